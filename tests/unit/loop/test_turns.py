"""Jobs that share a worker are served in turn."""

from __future__ import annotations

from functools import partial

from consumer.loop import Loop
from consumer.ports import Outgoing
from tests.unit.loop.rig import LOW, WORK, GatedHandler, Rig


def put(rig: Rig, *keys: bytes, topic: str = WORK) -> None:
    for key in keys:
        rig.broker.append(Outgoing(topic, key, b"wait " + key, partition=0))


def work_off(rig: Rig, loop: Loop, handler: GatedHandler, pieces: int) -> None:
    """One piece after the other, in the order that the loop begins them."""
    for number in range(1, pieces + 1):
        rig.turn_until(partial(begun_is, handler, number), loop)
        handler.open(handler.begun[-1])


def begun_is(handler: GatedHandler, number: int) -> bool:
    return len(handler.begun) == number


def held(loop: Loop) -> int:
    in_work = loop.describe()["in_work"]
    assert isinstance(in_work, list)
    return len(in_work)


def test_a_job_that_comes_later_is_served_after_the_piece_that_runs() -> None:
    rig, handler = Rig(), GatedHandler()
    loop, _ = rig.worker(handler, capacity=100.0)
    put(rig, *(b"long/%d" % index for index in range(8)))
    rig.turn_until(lambda: handler.begun == [b"wait long/0"], loop)
    put(rig, b"short/0", b"other/0")
    rig.turn_until(lambda: held(loop) == 10, loop)
    work_off(rig, loop, handler, 10)
    order = [value.removeprefix(b"wait ") for value in handler.begun]
    assert order == [b"long/0", b"short/0", b"other/0", *(b"long/%d" % index for index in range(1, 8))]
    rig.turn_until(lambda: rig.committed() == 10, loop)


def test_what_is_held_of_a_lower_lane_waits_for_the_higher_one() -> None:
    rig, handler = Rig(), GatedHandler()
    loop, _ = rig.worker(handler, capacity=100.0, lanes=(WORK, LOW))
    put(rig, b"low/0", b"low/1", b"low/2", topic=LOW)
    rig.turn_until(lambda: handler.begun == [b"wait low/0"], loop)
    put(rig, b"high/0")
    rig.turn_until(lambda: held(loop) == 4, loop)
    work_off(rig, loop, handler, 4)
    assert handler.begun[1] == b"wait high/0"
