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
from consumer.speech.gpu_errors import Meaning, meaning

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rung:
    """One thing to try; `step` returns False when it changed nothing, and the next one is tried at once."""

    name: str
    step: Callable[[], bool]


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


def climb_down(work: Callable[[int], T], batch: int, rungs: Sequence[Rung]) -> tuple[T, Climbed]:
    """Run `work(batch)`; each time it has no room, take the next step and run it again.

    Raises GpuOutOfMemory at the end of the ladder and BrokenGpuContext as soon as the device is lost.
    """
    steps: list[str] = []
    ladder = _steps(batch, rungs)
    while True:
        try:
            return work(batch), Climbed(batch, tuple(steps))
        except (RuntimeError, MemoryError) as exc:
            reason = _no_room_or_raise(exc)
        # Outside of the handler: the exception holds the frames, and the frames hold the tensors.
        batch, name = next(ladder, (0, ""))
        if not batch:
            raise GpuOutOfMemory(
                f"no room on the device even for one window ({reason}); "
                "give the model a device of its own or a smaller model",
                tried=tuple(steps),
            )
        steps.append(name)
        log.warning("Memory ran out, trying again", extra={"step": name, "batch": batch, "reason": reason})


def _no_room_or_raise(error: RuntimeError | MemoryError) -> str:
    match meaning(error):
        case Meaning.NO_ROOM:
            return str(error).splitlines()[0] if str(error) else type(error).__name__
        case Meaning.BROKEN:
            raise BrokenGpuContext(f"the CUDA context is lost ({error}); the process has to start again") from error
        case _:
            raise error


def _steps(batch: int, rungs: Sequence[Rung]) -> Iterator[tuple[int, str]]:
    while batch > 1:
        batch //= 2
        yield batch, f"batch of {batch}"
    for rung in rungs:
        if rung.step():
            yield batch, rung.name
