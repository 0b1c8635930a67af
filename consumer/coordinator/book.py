"""The jobs of one partition, and lists of them by what has to be done: a turn costs what changes, not what is there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush

from consumer.coordinator.state import JobState, Status
from consumer.events import Priority

_LANES = {priority: place for place, priority in enumerate(Priority)}

Place = tuple[int, int, str]
"""Lane, order of admission, job: sorted, it is the order of precedence."""


class Book:
    """`due_at` tells when time by itself does something to a job; None: never."""

    def __init__(self, due_at: Callable[[JobState], float | None]) -> None:
        self._due_at = due_at
        self._jobs: dict[str, JobState] = {}
        self._running: dict[str, None] = {}
        self._waiting: list[Place] = []
        self._open: dict[Priority, list[int]] = {priority: [] for priority in Priority}
        """Orders of admission, sorted."""
        self._due: dict[str, float] = {}
        self._agenda: list[tuple[float, str]] = []
        """A heap; entries that `_due` does not confirm are out of date."""

    @property
    def jobs(self) -> Mapping[str, JobState]:
        return self._jobs

    def put(self, state: JobState) -> None:
        """Take in a new state of a job."""
        self._leave(self._jobs.get(state.job_id))
        self._jobs[state.job_id] = state
        if state.is_open:
            insort(self._open[state.request.priority], state.admitted_as)
            if state.status is Status.WAITING:
                insort(self._waiting, _place(state))
            else:
                self._running[state.job_id] = None
        self.remind(state)

    def remove(self, job_id: str) -> None:
        self._leave(self._jobs.pop(job_id))
        self._due.pop(job_id, None)

    def _leave(self, state: JobState | None) -> None:
        if state is None or not state.is_open:
            return
        _take_out(self._open[state.request.priority], state.admitted_as)
        if state.status is Status.WAITING:
            _take_out(self._waiting, _place(state))
        else:
            self._running.pop(state.job_id)

    def remind(self, state: JobState) -> None:
        """Note when the job is to be looked at."""
        at = self._due_at(state)
        if at is None:
            self._due.pop(state.job_id, None)
        elif self._due.get(state.job_id) != at:
            self._due[state.job_id] = at
            heappush(self._agenda, (at, state.job_id))

    def due(self, now_s: float) -> list[str]:
        """The jobs to look at by now, each once: whoever looks calls `put` or `remind` for what is still to come."""
        found = []
        while self._agenda and self._agenda[0][0] <= now_s:
            at, job_id = heappop(self._agenda)
            if self._due.get(job_id) == at:
                del self._due[job_id]
                found.append(job_id)
        return found

    def running(self) -> list[JobState]:
        """Open jobs that wait no more, in no order."""
        return [self._jobs[job_id] for job_id in self._running]

    def waiting(self) -> Iterator[JobState]:
        """Jobs without a plan, in their order of precedence. Do not change the book while you read."""
        return (self._jobs[job_id] for _, _, job_id in self._waiting)

    def place_in_lane(self, state: JobState) -> int | None:
        """From 1, among the open jobs of its lane; None once a chunk of it has been released."""
        if state.first_release_at_s is not None or state.status not in (Status.WAITING, Status.PLANNING):
            return None
        return bisect_right(self._open[state.request.priority], state.admitted_as)


def _place(state: JobState) -> Place:
    return _LANES[state.request.priority], state.admitted_as, state.job_id


def _take_out(sorted_list: list[int] | list[Place], value: int | Place) -> None:
    del sorted_list[bisect_left(sorted_list, value)]


def earliest(times: Iterable[float | None]) -> float | None:
    return min((at for at in times if at is not None), default=None)
