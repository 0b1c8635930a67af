"""Old work that is read once more, because the positions of a group that was idle for long have expired.

What it is for has its result, and the work bucket was emptied: without this it would be computed once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from consumer.core.layout import RunKeys
from consumer.errors import MissingObject, RunEnded
from consumer.events import Event
from consumer.ports import Attempt, ObjectStore
from consumer.work import ChunkWork, PlanWork

W = TypeVar("W", bound=PlanWork | ChunkWork)
E = TypeVar("E", bound=Event)


class UnlessEnded(Generic[W, E]):
    """A function that is not called for a run that has its manifest. Raises RunEnded, and what the function raises."""

    def __init__(self, function: Callable[[W, Attempt], E], store: ObjectStore, results_bucket: str) -> None:
        self._function = function
        self._store = store
        self._bucket = results_bucket

    def __call__(self, work: W, attempt: Attempt) -> E:
        keys = RunKeys(work.job_id, work.run)
        try:
            self._store.stat(self._bucket, keys.manifest)
        except MissingObject:
            return self._function(work, attempt)
        raise RunEnded(f"run {work.run} of job {work.job_id} has its result; this work is from before and is left")
