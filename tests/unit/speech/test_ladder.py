"""What is tried when memory runs out, and in which order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from consumer.errors import BrokenGpuContext, Cancelled, GpuOutOfMemory
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
