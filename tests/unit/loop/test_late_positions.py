"""A group that gives partitions and does not tell yet where they begin: they are ours once it does."""

from __future__ import annotations

import pytest

from tests.unit.loop.rig import GatedHandler, Rig


def test_what_was_begun_before_counts_also_where_the_group_tells_positions_late() -> None:
    """A record that kills its worker in the middle of a transaction: its successor is told late, and must be told."""
    rig = Rig()
    rig.put(b"bug", b"fine")
    for _ in range(3):
        loop, inbox = rig.worker(GatedHandler())
        with pytest.raises(ZeroDivisionError):
            rig.turn_until(lambda: False, loop)
        rig.broker.expire(inbox)
    loop, inbox = rig.worker(GatedHandler(), opened=False)
    inbox.tells_positions = False
    loop.open()
    for _ in range(5):
        loop.turn()
    inbox.tells_positions = True
    rig.turn_until(lambda: len(rig.out()) == 2, loop)
    assert rig.out() == [b"gave up after 3", b"done:fine"]


def test_a_loop_is_not_ready_and_says_why_until_the_group_tells_its_positions() -> None:
    rig, handler = Rig(), GatedHandler()
    loop, inbox = rig.worker(handler, opened=False)
    inbox.tells_positions = False
    loop._health.expect(["test"])
    loop.open()
    rig.put(b"1")
    for _ in range(200):
        loop.turn()
        rig.now_s += 0.1
        assert loop._health.live().ok
        assert loop._health.ready().reasons == ("test reading work: no positions, says the test",)
    assert (loop.describe()["awaits_positions"], handler.begun) == (["work"], [])
    inbox.tells_positions = True
    rig.turn_until(lambda: rig.out() == [b"done:1"], loop)
    assert (loop.describe()["awaits_positions"], loop._health.ready().ok) == ([], True)


def test_partitions_that_are_told_work_while_others_are_not() -> None:
    rig, handler = Rig(partitions=2), GatedHandler()
    loop, inbox = rig.worker(handler)
    other, leaving = rig.worker(GatedHandler())
    rig.turn_until(lambda: inbox.assigned == {0} and leaving.assigned == {1}, loop, other)
    inbox.tells_positions = False
    leaving.close(1.0)
    rig.put(b"0", partition=0)
    rig.put(b"1", partition=1)
    rig.turn_until(lambda: rig.out() == [b"done:0"], loop)
    assert not loop._health.ready().ok
    inbox.tells_positions = True
    rig.turn_until(lambda: rig.out() == [b"done:0", b"done:1"], loop)
