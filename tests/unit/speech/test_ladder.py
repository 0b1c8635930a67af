"""What is tried when memory runs out, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from consumer.errors import BrokenGpuContext, Cancelled, GpuOutOfMemory
from consumer.speech.device import Card
from consumer.speech.ladder import Rung, climb_down

NO_ROOM = RuntimeError("CUDA failed with error out of memory")


def works_when(ready: Callable[[int], bool], tried: list[int]) -> Callable[[int], str]:
    def work(batch: int) -> str:
        tried.append(batch)
        if not ready(batch):
            raise NO_ROOM
        return "done"

    return work


def test_work_that_has_room_runs_once_and_says_nothing() -> None:
    tried: list[int] = []
    answer, climbed = climb_down(works_when(lambda _: True, tried), 16, [])
    assert (answer, tried, climbed.steps, climbed.warning("transcribe")) == ("done", [16], (), None)


def test_the_batch_is_halved_until_there_is_room() -> None:
    tried: list[int] = []
    _, climbed = climb_down(works_when(lambda batch: batch <= 4, tried), 16, [])
    assert (tried, climbed.batch) == ([16, 8, 4], 4)
    warning = climbed.warning("transcribe")
    assert warning is not None
    assert (warning.code, "batch of 4" in warning.message) == ("GPU_MEMORY_SHORT", True)


def test_rungs_are_taken_in_order_and_those_that_change_nothing_cost_no_try() -> None:
    taken: list[str] = []

    def rung(name: str, changes: bool) -> Rung:
        def step() -> bool:
            taken.append(name)
            return changes

        return Rung(name, step)

    tried: list[int] = []
    rungs = [rung("unload", False), rung("rebuild", True), rung("cpu", True)]
    _, climbed = climb_down(works_when(lambda _: "cpu" in taken, tried), 2, rungs)
    assert taken == ["unload", "rebuild", "cpu"]
    assert tried == [2, 1, 1, 1]
    assert climbed.steps == ("batch of 1", "rebuild", "cpu")


def test_a_rung_that_has_no_room_itself_is_passed_over() -> None:
    """Building a model anew takes memory, and another process may have taken it."""
    taken: list[str] = []

    def rebuild() -> bool:
        raise NO_ROOM

    def cpu() -> bool:
        taken.append("cpu")
        return True

    _, climbed = climb_down(
        works_when(lambda _: bool(taken), []), 1, [Rung("rebuild", rebuild), Rung("going on on the CPU", cpu)]
    )
    assert climbed.steps == ("going on on the CPU",)


def test_a_context_that_is_lost_on_a_rung_ends_it_at_once() -> None:
    def rebuild() -> bool:
        raise RuntimeError("CUDA failed with error an illegal memory access was encountered")

    with pytest.raises(BrokenGpuContext):
        climb_down(works_when(lambda _: False, []), 1, [Rung("rebuild", rebuild), Rung("cpu", lambda: True)])


def fails_with(*errors: str) -> Callable[[int], int]:
    """Work that raises these one after the other, and then gives the batch."""
    left = list(errors)

    def work(batch: int) -> int:
        if left:
            raise RuntimeError(left.pop(0))
        return batch

    return work


@dataclass(frozen=True)
class StandIn(Card):
    """A GPU in a given state."""

    alive: bool = True
    room: bool = False

    def answers(self) -> bool:
        return self.alive

    def has_room(self) -> bool:
        return self.room


OUT_OF_MEMORY = "CUDA failed with error out of memory"
AFTER_IT = "parallel_for failed: cudaErrorInvalidDevice: invalid device ordinal"


def test_what_comes_up_in_the_call_after_one_without_room_costs_no_step() -> None:
    found, climbed = climb_down(fails_with(OUT_OF_MEMORY, AFTER_IT), 16, [], StandIn())
    assert (found, climbed.steps) == (8, ("batch of 8",))


def test_what_stays_unclear_is_taken_for_want_of_room_at_first() -> None:
    found, climbed = climb_down(fails_with(AFTER_IT, AFTER_IT), 16, [], StandIn())
    assert (found, climbed.steps) == (8, ("batch of 8",))


def test_what_is_unclear_is_a_lost_context_where_the_device_does_not_answer() -> None:
    with pytest.raises(BrokenGpuContext):
        climb_down(fails_with("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), 16, [], StandIn(alive=False))


@pytest.mark.parametrize("leaves", [True, False])
def test_a_device_that_has_room_and_stays_unclear_is_not_left_for_the_cpu(leaves: bool) -> None:
    """It would be tried in vain by every chunk, and a new process puts it right."""
    rungs = [Rung("cpu", lambda: True, leaves_device=True)] if leaves else []
    with pytest.raises(BrokenGpuContext, match="has room"):
        climb_down(fails_with(*[AFTER_IT] * 4), 2, rungs, StandIn(room=True))


def test_a_device_without_room_is_left_whatever_it_says() -> None:
    rungs = [Rung("cpu", lambda: True, leaves_device=True)]
    _, climbed = climb_down(fails_with(*[AFTER_IT] * 4), 2, rungs, StandIn())
    assert climbed.steps == ("batch of 1", "cpu")


def test_a_device_that_had_no_room_once_is_left_though_there_is_room_now() -> None:
    rungs = [Rung("cpu", lambda: True, leaves_device=True)]
    _, climbed = climb_down(fails_with(OUT_OF_MEMORY, AFTER_IT, AFTER_IT), 2, rungs, StandIn(room=True))
    assert climbed.steps == ("batch of 1", "cpu")


def test_at_the_end_of_the_ladder_there_is_no_room() -> None:
    with pytest.raises(GpuOutOfMemory) as caught:
        climb_down(works_when(lambda _: False, []), 2, [Rung("unload", lambda: True)])
    assert caught.value.retryable
    assert caught.value.facts["tried"] == ("batch of 1", "unload")


def test_a_lost_context_ends_it_at_once() -> None:
    tried: list[int] = []

    def work(batch: int) -> None:
        tried.append(batch)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(BrokenGpuContext):
        climb_down(work, 8, [])
    assert tried == [8]


@pytest.mark.parametrize("error", [Cancelled("enough"), RuntimeError("shapes differ"), ValueError("no")])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    def work(_: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        climb_down(work, 8, [])
    assert caught.value is error
