"""What is tried when memory runs out, step by step, and what is said about it afterwards.

halve the batch … until one window at a time
the given rungs in order: unload idle models, build the model anew, go on on the CPU
GpuOutOfMemory
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from consumer.errors import BrokenGpuContext, GpuOutOfMemory
from consumer.events import Problem
from consumer.speech.device import CUDA, Card
from consumer.speech.gpu_errors import Meaning, first_line, meaning

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rung:
    """One thing to try; `step` returns False when it changed nothing, and the next one is tried at once."""

    name: str
    step: Callable[[], bool]
    leaves_device: bool = False
    """Whether the work goes on elsewhere: only for want of room, not because the device is in a bad state."""


@dataclass(frozen=True, slots=True)
class Climbed:
    """How far down the ladder it went: the batch that had room, and what was done for it."""

    batch: int
    steps: tuple[str, ...] = ()

    def warning(self, stage: str) -> Problem | None:
        if not self.steps:
            return None
        return Problem(
            code="GPU_MEMORY_SHORT",
            message=f"memory ran out and the work went on after: {', '.join(self.steps)}; lower device.batch_size",
            stage=stage,
        )


def climb_down(work: Callable[[int], T], batch: int, rungs: Sequence[Rung], card: Card = CUDA) -> tuple[T, Climbed]:
    """Run `work(batch)`; each time it has no room, take the next step and run it again.

    Libraries without room may also fail in no clear way. Such a try is made once more before the next step, as
    CTranslate2 says something else in the call after one without room.

    Raises GpuOutOfMemory at the end of the ladder. Raises BrokenGpuContext as soon as the device is lost, and also
    where it has room and still fails in no clear way at every step: a new process does not.
    """
    climb = _Climb(card, rungs)
    ladder = climb.steps(batch)
    steps: list[str] = []
    again = False
    while True:
        try:
            return work(batch), Climbed(batch, tuple(steps))
        except (RuntimeError, MemoryError) as exc:
            reason = climb.no_room_or_raise(exc)
            again = not again and meaning(exc) is Meaning.UNCLEAR
        # Outside of the handler: the exception holds the frames, and the frames hold the tensors.
        if again:
            log.warning("The device failed in no clear way, trying again", extra={"batch": batch, "reason": reason})
            continue
        batch, name = next(ladder, (0, ""))
        if not batch:
            raise GpuOutOfMemory(
                f"no room on the device even for one window ({reason}); "
                "give the model a device of its own or a smaller model",
                tried=tuple(steps),
            )
        steps.append(name)
        log.warning("Memory ran out, trying again", extra={"step": name, "batch": batch, "reason": reason})


class _Climb:
    """The steps of one climb, and what was heard on the way."""

    def __init__(self, card: Card, rungs: Sequence[Rung]) -> None:
        self._card = card
        self._rungs = rungs
        self._is_short = False
        self._reason = ""

    def no_room_or_raise(self, error: RuntimeError | MemoryError) -> str:
        self._reason = first_line(error)
        match meaning(error):
            case Meaning.NO_ROOM:
                self._is_short = True
            case Meaning.UNCLEAR if self._card.answers():
                pass
            case Meaning.BROKEN | Meaning.UNCLEAR:
                raise BrokenGpuContext(f"the CUDA context is lost ({error}); the process has to start again") from error
            case _:
                raise error
        return self._reason

    def steps(self, batch: int) -> Iterator[tuple[int, str]]:
        while batch > 1:
            batch //= 2
            yield batch, f"batch of {batch}"
        for rung in self._rungs:
            if rung.leaves_device:
                self._require_shortage()
            if self._helped(rung):
                yield batch, rung.name
        self._require_shortage()

    def _helped(self, rung: Rung) -> bool:
        """A step may need room itself, as building a model anew does; without it, it has changed nothing."""
        try:
            return rung.step()
        except (RuntimeError, MemoryError) as exc:
            log.warning("A step found no room itself", extra={"step": rung.name, "reason": self.no_room_or_raise(exc)})
            return False

    def _require_shortage(self) -> None:
        if not self._is_short and self._card.has_room():
            raise BrokenGpuContext(
                f"the device has room and fails at every step ({self._reason}); the process has to start again"
            )
