"""Whose turn it is: jobs that share a worker are served one after the other, so that a long one never stands before a
short one, however many of its chunks wait.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

J = TypeVar("J", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Waiting(Generic[J]):
    """A piece of work of a job; `since` is what `Turns.now` was when it came."""

    job: J
    since: int


@dataclass
class Turns(Generic[J]):
    """Start-time fair queueing with pieces that all count the same: what waits is served by the later of two moments,
    when it came and when its job was last served; at the same moment a job that comes is before one that was served.

    A job that comes waits for the piece that runs and for those that came before it, never for a second piece of one
    job. Nobody starves: who comes later does not overtake.
    """

    now: int = 0
    """Counts the pieces that were begun."""
    _served: dict[J, int] = field(default_factory=dict)

    def next(self, waiting: Sequence[Waiting[J]]) -> int:
        """The place of the piece to begin; the earliest of those that are equal. `waiting` is not empty."""
        return min(range(len(waiting)), key=lambda place: self._moment(waiting[place]))

    def begun(self, job: J, held: set[J]) -> None:
        """Remember it, for as long as the job is among those held."""
        self.now += 1
        self._served = {name: at for name, at in self._served.items() if name in held} | {job: self.now}

    def _moment(self, piece: Waiting[J]) -> tuple[int, bool]:
        served = self._served.get(piece.job)
        return (piece.since, False) if served is None else max((piece.since, False), (served, True))
