"""The loop on the memory broker: nothing lost, nothing twice, whatever is revoked, aborted or killed."""

from __future__ import annotations

import pytest

from consumer.adapters.memory_broker import Fault, MemoryOutbox
from consumer.publishing import MAX_UNPUBLISHED
from tests.unit.loop.rig import GROUP, LOW, OUT, WORK, GatedHandler, Rig


def test_every_record_is_answered_once_and_the_lag_ends_at_zero() -> None:
    rig, handler = Rig(partitions=3), GatedHandler()
    for number in range(30):
        rig.put(b"r%d" % number, partition=number % 3)
    loop, _ = rig.worker(handler)
    rig.turn_until(lambda: len(rig.out()) == 30, loop)
    assert sorted(rig.out()) == sorted(b"done:r%d" % number for number in range(30))
    assert rig.broker.lag(WORK, GROUP) == 0


def test_records_that_finish_out_of_order_move_the_offset_only_over_what_is_done() -> None:
    rig, handler = Rig(partitions=2), GatedHandler()
    rig.put(b"wait-slow", b"quick")
    loop, _ = rig.worker(handler, capacity=5.0, workers=2)
    rig.turn_until(lambda: b"done:quick" in rig.out(), loop)
    assert rig.committed() == 0
    handler.open(b"wait-slow")
    rig.turn_until(lambda: rig.committed() == 2, loop)


def test_the_hand_off_is_bounded_by_weight() -> None:
    rig = Rig()
    handler = GatedHandler(weights={b"wait-1": 300.0, b"wait-2": 300.0, b"wait-3": 300.0})
    rig.put(b"wait-1", b"wait-2", b"wait-3")
    loop, inbox = rig.worker(handler, capacity=600.0)
    rig.turn_until(lambda: inbox.position(0) == 2, loop)
    for _ in range(5):
        loop.turn()
    assert inbox.position(0) == 2
    assert inbox.paused == {0}
    handler.open(b"wait-1")
    rig.turn_until(lambda: inbox.position(0) == 3, loop)


def test_new_partitions_are_paused_while_the_hand_off_is_full() -> None:
    rig, handler = Rig(partitions=2), GatedHandler()
    rig.put(b"wait", partition=0)
    first, inbox = rig.worker(handler, capacity=1.0)
    second, other = rig.worker(GatedHandler())
    rig.turn_until(lambda: other.assigned == {1} and bool(handler.begun), first, second)
    other.close(1.0)
    rig.turn_until(lambda: inbox.assigned == {0, 1}, first)
    assert inbox.paused == {0, 1}
    handler.open(b"wait")
    rig.turn_until(lambda: inbox.paused == set(), first)


def test_an_aborted_transaction_is_published_again_without_computing_again() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.broker.faults.extend([Fault.ABORTED, Fault.UNAVAILABLE, Fault.ABORTED])
    rig.put(b"r")
    loop, _ = rig.worker(handler)
    rig.turn_until(lambda: bool(rig.out()), loop)
    assert (rig.out(), handler.begun, rig.committed()) == ([b"done:r"], [b"r"], 1)


@pytest.mark.parametrize("unanswered", [0, 2], ids=["at once", "when the broker is back, polled for meanwhile"])
@pytest.mark.parametrize("fault", [Fault.IN_DOUBT_DONE, Fault.IN_DOUBT_LOST])
def test_a_transaction_in_doubt_is_settled_by_the_committed_offset(fault: Fault, unanswered: int) -> None:
    rig, handler = Rig(), GatedHandler()
    rig.broker.faults.extend([fault, *[Fault.UNSETTLED] * unanswered])
    rig.put(b"r", b"s")
    loop, _ = rig.worker(handler, capacity=1.0)
    rig.turn_until(lambda: len(rig.out()) >= 2, loop)
    for _ in range(5):
        loop.turn()
    assert rig.out() == [b"done:r", b"done:s"]
    assert handler.begun == [b"r", b"s"]
    assert not rig.broker.faults


def test_a_zombie_publishes_nothing() -> None:
    rig, slow, quick = Rig(), GatedHandler(), GatedHandler()
    rig.put(b"wait")
    zombie, inbox = rig.worker(slow)
    rig.turn_until(lambda: slow.begun == [b"wait"], zombie)
    rig.broker.expire(inbox)
    quick.open(b"wait")
    owner, _ = rig.worker(quick)
    rig.turn_until(lambda: rig.out() == [b"done:wait"], owner)
    slow.open(b"wait")
    rig.turn_until(lambda: not zombie.describe()["in_work"], zombie, owner)
    assert rig.out() == [b"done:wait"]


def test_an_announcing_zombie_is_fenced_too() -> None:
    rig, slow = Rig(), GatedHandler(announcements=2)
    rig.put(b"wait")
    zombie, inbox = rig.worker(slow)
    rig.turn_until(lambda: len(rig.out()) == 2, zombie)
    rig.broker.expire(inbox)
    second = GatedHandler()
    second.open(b"wait")
    owner, _ = rig.worker(second)
    rig.turn_until(lambda: b"done:wait" in rig.out(), owner)
    assert rig.out().count(b"done:wait") == 1


def test_announcements_come_before_the_answer_and_leave_the_offset() -> None:
    rig, handler = Rig(), GatedHandler(announcements=3)
    rig.put(b"wait")
    loop, _ = rig.worker(handler)
    rig.turn_until(lambda: len(rig.out()) == 3, loop)
    assert rig.committed() == 0
    handler.open(b"wait")
    rig.turn_until(lambda: rig.committed() == 1, loop)
    assert rig.out() == [b"announced:0", b"announced:1", b"announced:2", b"done:wait"]


def test_a_partition_lost_and_regained_while_busy_is_done_again_and_shown_once() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.put(b"wait")
    loop, inbox = rig.worker(handler)
    rig.turn_until(lambda: handler.begun == [b"wait"], loop)
    rig.broker.expire(inbox)
    handler.open(b"wait")
    rig.turn_until(lambda: rig.committed() == 1, loop)
    assert rig.out() == [b"done:wait"]
    assert inbox.paused == set()


def test_losing_the_partition_again_and_again_is_not_held_against_the_record() -> None:
    """The process lives: what it was doing did not kill it. A bad network must not fail chunks."""
    rig, handler = Rig(), GatedHandler()
    rig.put(b"wait")
    loop, inbox = rig.worker(handler)
    for times in range(1, 7):
        rig.turn_until(lambda times=times: len(handler.begun) == times, loop)  # type: ignore[misc]
        rig.broker.expire(inbox)
    handler.open(b"wait")
    rig.turn_until(lambda: rig.committed() == 1, loop)
    assert rig.out() == [b"done:wait"]


def test_deaths_of_others_between_a_loss_and_its_return_still_count() -> None:
    rig, survivor = Rig(), GatedHandler()
    rig.put(b"wait-deadly")
    loop, inbox = rig.worker(survivor)
    rig.turn_until(lambda: bool(survivor.begun), loop)
    rig.broker.expire(inbox)
    for _ in range(2):
        victim = GatedHandler()
        killed, held = rig.worker(victim)
        rig.turn_until(lambda victim=victim: bool(victim.begun), killed)  # type: ignore[misc]
        rig.broker.expire(held)
    assert rig.note() == "0:3"
    rig.turn_until(lambda: len(survivor.begun) == 2, loop)
    assert rig.note() == "0:3"  # two deaths and the beginning of now


def test_a_record_that_kills_its_worker_is_given_up() -> None:
    rig = Rig()
    rig.put(b"wait-deadly", b"fine")
    for _ in range(3):
        handler = GatedHandler()
        loop, inbox = rig.worker(handler, capacity=1.0)
        rig.turn_until(lambda handler=handler: bool(handler.begun), loop)  # type: ignore[misc]
        rig.broker.expire(inbox)  # the process is gone: nothing is given back
    loop, _ = rig.worker(GatedHandler(), capacity=1.0)
    rig.turn_until(lambda: len(rig.out()) == 2, loop)
    assert rig.out() == [b"gave up after 3", b"done:fine"]


def test_what_only_waited_beside_a_deadly_record_is_not_held_against_it() -> None:
    rig = Rig()
    rig.put(b"bug", b"innocent")
    for _ in range(3):
        loop, inbox = rig.worker(GatedHandler(), capacity=5.0)
        with pytest.raises(ZeroDivisionError):
            rig.turn_until(lambda: False, loop)
        rig.broker.expire(inbox)
    loop, _ = rig.worker(GatedHandler(), capacity=5.0)
    rig.turn_until(lambda: len(rig.out()) == 2, loop)
    assert rig.out() == [b"gave up after 3", b"done:innocent"]


def test_what_never_began_is_never_given_up_however_often_its_worker_leaves() -> None:
    rig = Rig()
    rig.put(b"wait", b"patient")
    for _ in range(5):
        handler = GatedHandler()
        loop, inbox = rig.worker(handler, capacity=5.0, grace_s=0.0)
        rig.turn_until(lambda handler=handler: handler.begun == [b"wait"], loop)  # type: ignore[misc]
        loop.stop()
        loop.drain()
        inbox.close(1.0)
        assert rig.note() == ""
    handler = GatedHandler()
    handler.open(b"wait")
    loop, _ = rig.worker(handler, capacity=5.0)
    rig.turn_until(lambda: rig.out() == [b"done:wait", b"done:patient"], loop)


def test_a_revocation_keeps_the_count_of_earlier_deaths() -> None:
    rig = Rig()
    rig.put(b"wait-deadly")
    for _ in range(2):
        handler = GatedHandler()
        loop, inbox = rig.worker(handler)
        rig.turn_until(lambda handler=handler: bool(handler.begun), loop)  # type: ignore[misc]
        rig.broker.expire(inbox)
    handler = GatedHandler()
    loop, inbox = rig.worker(handler)
    rig.turn_until(lambda: bool(handler.begun), loop)
    assert rig.note() == "0:3"
    inbox.close(1.0)
    assert rig.note() == "0:2"


def test_announcements_wait_when_the_broker_is_away_and_none_is_lost() -> None:
    rig, handler = Rig(), GatedHandler(announcements=1000)
    rig.broker.faults.extend([Fault.UNAVAILABLE] * 12)
    rig.put(b"r")
    loop, _ = rig.worker(handler)
    rig.turn_until(lambda: len(loop._publisher) >= MAX_UNPUBLISHED, loop)
    rig.turn_until(lambda: rig.committed() == 1, loop)
    assert rig.out() == [b"announced:%d" % number for number in range(1000)] + [b"done:r"]


def test_a_worker_that_leaves_in_good_order_leaves_no_mark() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.put(b"wait")
    loop, _ = rig.worker(handler, grace_s=0.0)
    rig.turn_until(lambda: bool(handler.begun), loop)
    assert rig.note() == "0:1"
    loop.stop()
    loop.drain()
    assert rig.note() == ""
    assert rig.committed() == 0


def test_a_drain_finishes_what_runs_and_takes_nothing_new() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.put(b"wait", b"never")
    loop, _ = rig.worker(handler, capacity=1.0)
    rig.turn_until(lambda: handler.begun == [b"wait"], loop)
    loop.stop()
    handler.open(b"wait")
    loop.drain()
    assert rig.out() == [b"done:wait"]
    assert rig.committed() == 1


def test_a_bug_ends_the_loop_without_a_commit() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.put(b"bug")
    loop, _ = rig.worker(handler)
    with pytest.raises(ZeroDivisionError):
        rig.turn_until(lambda: False, loop)
    assert rig.out() == []
    assert rig.committed() == 0


def test_no_lane_starves_while_others_have_work() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.broker.topics["work.normal"] = [[]]
    for topic, value in ((WORK, b"high"), ("work.normal", b"normal"), (LOW, b"low")):
        rig.put(*[value] * 100, topic=topic)
    loop, _ = rig.worker(handler, capacity=1.0, lanes=(WORK, "work.normal", LOW))
    rig.turn_until(lambda: len(handler.begun) >= 100, loop)
    assert handler.begun[:100].count(b"normal") == pytest.approx(5, abs=1)
    assert handler.begun[:100].count(b"low") == pytest.approx(5, abs=1)


def test_the_highest_lane_goes_first_and_the_lowest_gets_its_share() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.put(*[b"high"] * 40)
    rig.put(*[b"low"] * 40, topic=LOW)
    loop, _ = rig.worker(handler, capacity=1.0, lanes=(WORK, LOW))
    rig.turn_until(lambda: len(handler.begun) >= 40, loop)
    assert handler.begun[:40].count(b"low") == pytest.approx(4, abs=1)


def test_what_is_held_and_how_far_behind_is_told_while_it_is_so() -> None:
    rig, handler = Rig(), GatedHandler(weights={b"wait": 60.0})
    rig.put(b"wait", b"later", b"later")
    loop, _ = rig.worker(handler, capacity=60.0)
    rig.turn_until(lambda: rig.value("paused_partitions", topic=WORK) == 1, loop)
    assert rig.value("consumer_lag", topic=WORK) == 2
    assert rig.value("handoff_events", role="test") == 1
    assert rig.value("handoff_audio_seconds", role="test") == 60
    handler.open(b"wait")
    rig.turn_until(lambda: rig.value("consumer_lag", topic=WORK) == 0 and len(rig.out()) == 3, loop)
    assert rig.value("handoff_audio_seconds", role="test") == 0
    assert rig.value("paused_partitions", topic=WORK) == 0


def test_reports_without_room_are_dropped_and_counted() -> None:
    rig, handler = Rig(), GatedHandler(reports=2)
    loop, _ = rig.worker(handler)
    rig.put(b"a")
    rig.turn_until(lambda: b"done:a" in rig.out(), loop)
    assert rig.value("progress_dropped_total") == 0
    assert isinstance(loop._outbox, MemoryOutbox)
    loop._outbox.full = True
    rig.put(b"b")
    rig.turn_until(lambda: b"done:b" in rig.out(), loop)
    assert rig.value("progress_dropped_total") == 2
    assert rig.out().count(b"report:0") == 1


def test_every_transaction_is_timed_whatever_its_outcome() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.broker.faults.append(Fault.ABORTED)
    rig.put(b"a")
    loop, _ = rig.worker(handler)
    rig.turn_until(lambda: rig.out() == [b"done:a"] and rig.value("transactions_total", outcome="committed") == 1, loop)
    assert rig.value("transactions_total", outcome="aborted") == 1
    assert rig.value("transaction_seconds_count") == 2


def test_nothing_moves_a_position_back_while_a_transaction_is_in_doubt() -> None:
    """A note on the next record's beginning, with the position from before, would undo what was committed unseen."""
    rig, handler = Rig(), GatedHandler()
    rig.broker.faults.extend([Fault.IN_DOUBT_DONE, Fault.UNSETTLED, Fault.UNSETTLED])
    rig.put(b"r", b"s")
    loop, _ = rig.worker(handler, capacity=5.0)
    rig.turn_until(lambda: len(rig.out()) >= 2, loop)
    for _ in range(5):
        loop.turn()
    assert rig.out() == [b"done:r", b"done:s"]
    assert rig.committed() == 2


def test_nothing_is_published_while_a_note_is_not_answered() -> None:
    """It could reach the broker after the transaction, and move the position back."""
    rig, handler = Rig(), GatedHandler()
    rig.put(b"wait")
    loop, inbox = rig.worker(handler)
    rig.turn_until(lambda: handler.begun == [b"wait"], loop)
    inbox.noting = {0}
    handler.open(b"wait")
    for _ in range(50):
        loop.turn()
        rig.now_s += 0.1
    assert rig.out() == []
    inbox.noting = set()
    rig.turn_until(lambda: rig.out() == [b"done:wait"], loop)


@pytest.mark.parametrize("told", [True, False])
def test_an_idle_loop_is_not_ready_as_long_as_its_broker_is_away(told: bool) -> None:
    """The client tells once that the broker is gone, or, behind a proxy, not at all; and from an idle broker nothing
    comes either."""
    rig = Rig()
    loop, inbox = rig.worker(GatedHandler())
    rig.turn_until(lambda: loop._health.ready().ok, loop)
    inbox.away, inbox.told_away = True, not told
    rig.turn_until(lambda: not loop._health.ready().ok, loop)
    for _ in range(100):
        loop.turn()
        rig.now_s += 0.1
        assert not loop._health.ready().ok
    inbox.away = False
    rig.turn_until(lambda: loop._health.ready().ok, loop)


def test_readiness_ends_with_the_first_publication_that_nobody_answers() -> None:
    """Each costs ten seconds; an aborted one costs nothing, and one or two belong to a rebalance."""
    rig, handler = Rig(), GatedHandler()
    rig.broker.faults.extend([Fault.ABORTED, Fault.UNAVAILABLE])
    rig.put(b"r")
    loop, _ = rig.worker(handler)
    rig.turn_until(lambda: rig.value("transactions_total", outcome="aborted") == 1, loop)
    assert loop._health.ready().ok
    rig.turn_until(lambda: rig.value("transactions_total", outcome="unavailable") == 1, loop)
    assert not loop._health.ready().ok
    rig.turn_until(lambda: rig.out() == [b"done:r"], loop)
    assert loop._health.ready().ok


def test_leaving_is_bounded_for_all_lanes_together() -> None:
    rig = Rig()
    loop, _ = rig.worker(GatedHandler(), lanes=(WORK, LOW, OUT))
    granted: list[float] = []

    def hang(timeout_s: float) -> bool:
        granted.append(timeout_s)
        rig.now_s += timeout_s
        return False

    for lane in loop._lanes:
        lane.inbox.close = hang  # type: ignore[method-assign]
    loop.stop()
    loop._close()
    assert granted == [10.0, 1.0, 1.0]
