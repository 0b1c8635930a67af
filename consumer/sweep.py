"""Find and remove what cleanup has missed: objects that were written after it, or whose job is long forgotten.

The states of the jobs are read after the listing and before every batch of deletions. A run's state is published
before its first object is written, so what a listing shows of an open run is always known by then. Where the states
cannot be read nothing is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, islice
from typing import Protocol

from consumer.coordinator.state import JobState, Status
from consumer.core.audit import BEGUN
from consumer.core.orphans import Folder, Why, prefix_of, why_orphan
from consumer.errors import WhisperXError
from consumer.events import JobStatus
from consumer.ports import ObjectStat

BATCH = 200
"""Folders that are decided on with one reading of the states."""
KEYS = 1_000
"""Keys of one folder that are held at once: the rest of a larger one is a folder of its own, and goes next."""

Needed = frozenset[tuple[str, int]]


class SweptStore(Protocol):
    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectStat]:
        """In the order of keys, with size and age."""
        ...

    def delete(self, bucket: str, keys: Iterable[str]) -> int: ...


@dataclass(frozen=True, slots=True)
class Found:
    """An orphan, and what became of it: found, removed, or the code of why it could not be."""

    folder: Folder
    why: Why
    outcome: str


@dataclass
class Sweep:
    """One pass. `needed` reads which runs are still needed; `note` writes a line of the audit trail and waits for it;
    without it nothing is removed."""

    store: SweptStore
    buckets: tuple[str, ...]
    needed: Callable[[], Needed]
    before: datetime
    note: Callable[[Folder, str], None] | None = None
    foreign: int = field(default=0, init=False)
    """Objects that are not in a place of ours: never touched."""

    def run(self) -> Iterator[Found]:
        """Each orphan as it is dealt with. Raises BrokerUnavailable and the store's errors of listing."""
        for bucket in dict.fromkeys(self.buckets):  # the two may be one
            old = (folder for folder in self._folders(bucket) if folder.newest_at < self.before)
            while batch := list(islice(old, BATCH)):
                needed = self.needed()
                for folder in batch:
                    why = why_orphan(folder, needed, self.before)
                    if why is not None:
                        yield Found(folder, why, self._remove(folder))

    def _folders(self, bucket: str) -> Iterator[Folder]:
        for prefix, objects in groupby(self.store.list_objects(bucket, ""), lambda found: prefix_of(found.key)):
            if prefix is None:
                self.foreign += sum(1 for _ in objects)
                continue
            yield from _parts(bucket, prefix, objects)

    def _remove(self, folder: Folder) -> str:
        """Written down before and after, so that no removal is without a line, wherever this process dies."""
        if self.note is None:
            return "found"
        self.note(folder, BEGUN)
        try:
            self.store.delete(folder.bucket, folder.keys)
        except WhisperXError as error:
            self.note(folder, error.code)
            return error.code
        self.note(folder, "ok")
        return "removed"


def _parts(bucket: str, prefix: str, objects: Iterator[ObjectStat]) -> Iterator[Folder]:
    """A folder in parts of bounded size, of which each is as young as the youngest object seen so far: what is young
    in a later part does not keep an earlier one, so what protects an open run is its state and not its age.

    The manifest sorts before the transcripts, so the first part has it; later parts know.
    """
    newest: datetime | None = None
    has_manifest = False
    while part := list(islice(objects, KEYS)):
        ages = [one.modified_at for one in part if one.modified_at is not None]
        if len(ages) < len(part):
            continue  # of unknown age: it stays
        newest = max([*ages, newest] if newest else ages)
        has_manifest = has_manifest or any(one.key == f"{prefix}manifest.json" for one in part)
        keys = tuple(one.key for one in part)
        yield Folder(bucket, prefix, keys, sum(one.size_bytes for one in part), newest, has_manifest)


def runs_needed(states: Iterable[JobState]) -> Needed:
    """The runs whose objects are in use, or that cleanup will see to by itself."""
    return frozenset(run for state in states for run in _runs_of(state))


def _runs_of(state: JobState) -> Iterator[tuple[str, int]]:
    for one in state.leftovers:
        yield from ((state.job_id, run) for run in {one.run, one.work_run or one.run})
    if state.status is not Status.CLEANED or state.outcome in (JobStatus.FAILED, JobStatus.UNKNOWN):
        # A failed run can be retried, and then goes on with its work, as long as its state is there.
        yield from ((state.job_id, run) for run in {state.run, state.work_run or state.run})
