"""Which folders of the two buckets nobody needs any more: the net under cleanup, decided from values alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_RUN = re.compile(r"(?:work|results)/([^/]+)/(\d+)/")
_PROBE = re.compile(r"(?:probe|doctor)/")


class Why(StrEnum):
    WORK = "work of a run that has ended"
    RESULTS = "result files without a manifest"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies together: the objects of one run in one bucket, or one probe object."""

    bucket: str
    prefix: str
    keys: tuple[str, ...]
    size_bytes: int
    newest_at: datetime
    has_manifest: bool = False

    @property
    def run(self) -> tuple[str, int] | None:
        """Job and run; None for a probe."""
        found = _RUN.fullmatch(self.prefix)
        return (found[1], int(found[2])) if found else None


def prefix_of(key: str) -> str | None:
    """The folder that a key belongs to; None for what is not ours to touch.

    prefix_of("work/call-17/1/chunks/00000.pcm") -> 'work/call-17/1/'
    """
    if found := _RUN.match(key):
        return found[0]
    return key if _PROBE.match(key) else None


def why_orphan(folder: Folder, needed: frozenset[tuple[str, int]], before: datetime) -> Why | None:
    """Why it can go; None when it stays. `needed` are the runs that the coordinator still has something to do with.

    A folder that was written to since `before` stays, whoever it belongs to.
    """
    if folder.newest_at >= before:
        return None
    run = folder.run
    if run is None:
        return Why.PROBE
    if run in needed:
        return None
    if folder.prefix.startswith("work/"):
        return Why.WORK
    return None if folder.has_manifest else Why.RESULTS
