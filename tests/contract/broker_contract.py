"""The same questions to every broker: what the loops rely on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import pytest

from consumer.broker import Inbox, Mark, Marks, Outbox, PublishAborted, Rebalance, Tail
from consumer.ports import Outgoing, Received

PATIENCE_S = 30.0
WORK, OUT = "work", "out"


class Lab(Protocol):
    """A broker with the topics `work` (2 partitions) and `out` (1)."""

    def topic(self, name: str) -> str: ...
    def inbox(self, name: str, group: str = "group") -> Inbox: ...
    def outbox(self, name: str = "one") -> Outbox: ...
    def tail(self, name: str) -> Tail: ...


class Watcher:
    """Notes what a rebalance says, and holds new partitions back until the test is ready for their records."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.assigned: set[int] = set()
        self.marks: dict[int, Mark] = {}
        """Where each began, as it was told."""
        self.lost: list[set[int]] = []
        self.revoked: list[set[int]] = []

    def rebalance(self) -> Rebalance:
        return Rebalance(assigned=self._assigned, revoked=self._revoked, lost=self._lost)

    def _assigned(self, marks: Marks) -> None:
        self.assigned |= set(marks)
        self.marks = {**self.marks, **marks}
        self._inbox.pause(set(marks))

    def _revoked(self, partitions: set[int]) -> None:
        self.revoked.append(partitions)
        self.assigned -= partitions

    def _lost(self, partitions: set[int]) -> None:
        self.lost.append(partitions)
        self.assigned -= partitions


def poll_until(condition: Callable[[], bool], *inboxes: Inbox) -> list[Received]:
    """Poll until the condition holds; what came meanwhile."""
    seen: list[Received] = []
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not reached within {PATIENCE_S} s; seen {len(seen)} records"
        seen.extend(record for inbox in inboxes if (record := inbox.poll(0.05)) is not None)
    return seen


def take(count: int, inbox: Inbox) -> list[Received]:
    seen: list[Received] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < count:
        assert time.monotonic() < deadline, f"{len(seen)} of {count} records within {PATIENCE_S} s"
        record = inbox.poll(0.05)
        if record is not None:
            seen.append(record)
    return seen


class BrokerContract:
    """Subclasses give the fixture `lab`."""

    def fill(self, lab: Lab, *values: bytes, partition: int = 0) -> None:
        lab.outbox("filler").publish([Outgoing(lab.topic(WORK), b"k", v, partition=partition) for v in values], [])

    def joined(self, lab: Lab, name: str = WORK) -> tuple[Inbox, Watcher]:
        inbox = lab.inbox(name)
        watcher = Watcher(inbox)
        inbox.open(watcher.rebalance())
        poll_until(lambda: bool(watcher.assigned), inbox)
        inbox.resume(watcher.assigned)
        return inbox, watcher

    def test_records_keep_key_value_headers_and_order(self, lab: Lab) -> None:
        headers = (("a", b"1"), ("a", b"2"), ("b", b""), ("c", None))
        record = Outgoing(lab.topic(WORK), b"key", b"value", headers, partition=0)
        lab.outbox().publish([record, Outgoing(lab.topic(WORK), None, None, partition=0)], [])
        inbox, _ = self.joined(lab)
        first, second = take(2, inbox)
        assert (first.key, first.value, first.headers, first.partition) == (b"key", b"value", headers, 0)
        assert (second.key, second.value) == (None, None)
        assert second.offset > first.offset
        inbox.close(5)

    def test_one_key_goes_to_one_partition(self, lab: Lab) -> None:
        lab.outbox().publish([Outgoing(lab.topic(WORK), b"same", b"%d" % n) for n in range(5)], [])
        inbox, _ = self.joined(lab)
        assert len({record.partition for record in take(5, inbox)}) == 1
        inbox.close(5)

    def test_answers_and_positions_are_published_together(self, lab: Lab) -> None:
        self.fill(lab, b"1", b"2")
        inbox, _ = self.joined(lab)
        first = take(1, inbox)[0]
        lab.outbox().publish(
            [Outgoing(lab.topic(OUT), b"k", b"answer")], [(inbox, {0: Mark(first.offset + 1, "note")})]
        )
        assert [record.value for record in lab.tail(OUT).read_to_end(0, PATIENCE_S)] == [b"answer"]
        assert inbox.committed({0})[0].offset == first.offset + 1
        inbox.close(5)

    def test_a_position_that_was_never_committed_is_none(self, lab: Lab) -> None:
        inbox, _ = self.joined(lab)
        assert inbox.committed({0, 1}) == {0: Mark(None), 1: Mark(None)}
        inbox.close(5)

    def test_a_note_stays_beside_the_position_for_the_next_owner(self, lab: Lab) -> None:
        self.fill(lab, b"1")
        inbox, _ = self.joined(lab)
        take(1, inbox)
        inbox.commit({0: Mark(0, "0:2")})
        inbox.close(5)
        heir, watcher = self.joined(lab)
        assert heir.committed({0})[0] == watcher.marks[0] == Mark(0, "0:2")
        heir.close(5)

    def test_a_paused_partition_gives_nothing_and_a_resumed_one_goes_on(self, lab: Lab) -> None:
        inbox, _ = self.joined(lab)
        inbox.pause({0, 1})
        self.fill(lab, b"1")
        assert [inbox.poll(0.05) for _ in range(10)] == [None] * 10
        inbox.resume({0, 1})
        assert take(1, inbox)[0].value == b"1"
        inbox.close(5)

    def test_a_record_can_be_put_back(self, lab: Lab) -> None:
        self.fill(lab, b"1", b"2")
        inbox, _ = self.joined(lab)
        first = take(1, inbox)[0]
        inbox.seek(first.partition, first.offset)
        assert take(1, inbox)[0].offset == first.offset
        inbox.close(5)

    def test_what_was_not_committed_comes_again_to_the_next_owner(self, lab: Lab) -> None:
        self.fill(lab, b"1", b"2")
        inbox, _ = self.joined(lab)
        first, _second = take(2, inbox)
        inbox.commit({0: Mark(first.offset + 1)})
        inbox.close(5)
        heir, watcher = self.joined(lab)
        assert watcher.marks == {0: Mark(first.offset + 1), 1: Mark(None)}
        assert take(1, heir)[0].value == b"2"
        heir.close(5)

    def test_the_lag_counts_what_was_not_read(self, lab: Lab) -> None:
        """Transactions leave markers in the log, and those are not worth an exact number: more than nothing, and less
        after each record."""
        self.fill(lab, b"1", b"2", b"3")
        inbox, _ = self.joined(lab)
        take(1, inbox)
        after_one = inbox.lag()
        take(2, inbox)
        after_all = inbox.lag()
        inbox.close(5)
        assert after_one is not None
        assert after_all is not None
        assert after_one >= 2
        assert after_all <= after_one - 2

    def test_best_effort_says_that_it_took_the_record(self, lab: Lab) -> None:
        outbox = lab.outbox()
        assert outbox.send(Outgoing(lab.topic(OUT), b"k", b"tick"))
        outbox.close(5)
        assert [record.value for record in lab.tail(OUT).read_to_end(0, PATIENCE_S)] == [b"tick"]

    def test_the_tail_reads_a_partition_to_its_end(self, lab: Lab) -> None:
        self.fill(lab, b"1", b"2", b"3")
        assert [record.value for record in lab.tail(WORK).read_to_end(0, PATIENCE_S)] == [b"1", b"2", b"3"]
        assert lab.tail(WORK).read_to_end(1, PATIENCE_S) == []


class TransactionContract(BrokerContract):
    """What only a broker with real transactions and several members can answer."""

    def test_the_position_behind_the_last_record_leaves_no_lag(self, lab: Lab) -> None:
        self.fill(lab, b"1")
        inbox, _ = self.joined(lab)
        take(1, inbox)
        reached = lambda: (inbox.position(0) or 0) >= len(lab.tail(WORK).read_to_end(0, PATIENCE_S))  # noqa: E731
        poll_until(reached, inbox)
        inbox.close(5)

    def test_two_members_share_the_partitions(self, lab: Lab) -> None:
        first, watcher = self.joined(lab)
        second = lab.inbox(WORK)
        other = Watcher(second)
        second.open(other.rebalance())
        poll_until(lambda: len(watcher.assigned) == 1 and len(other.assigned) == 1, first, second)
        second.close(5)
        poll_until(lambda: watcher.assigned == {0, 1}, first)
        first.close(5)

    def test_a_member_that_has_left_cannot_publish(self, lab: Lab) -> None:
        self.fill(lab, b"1")
        inbox, watcher = self.joined(lab)
        take(1, inbox)
        self.push_out(inbox, watcher)
        with pytest.raises(PublishAborted) as caught:
            lab.outbox().publish([Outgoing(lab.topic(OUT), b"k", b"zombie")], [(inbox, {0: Mark(1)})])
        assert caught.value.stale
        assert lab.tail(OUT).read_to_end(0, PATIENCE_S) == []

    def test_an_outbox_works_on_after_an_abort(self, lab: Lab) -> None:
        self.fill(lab, b"1")
        inbox, watcher = self.joined(lab)
        take(1, inbox)
        self.push_out(inbox, watcher)
        outbox = lab.outbox()
        with pytest.raises(PublishAborted):
            outbox.publish([Outgoing(lab.topic(OUT), b"k", b"zombie")], [(inbox, {0: Mark(1)})])
        outbox.publish([Outgoing(lab.topic(OUT), b"k", b"fine")], [])
        assert [record.value for record in lab.tail(OUT).read_to_end(0, PATIENCE_S)] == [b"fine"]

    def test_an_outbox_without_a_doubt_is_settled_at_once_and_goes_on(self, lab: Lab) -> None:
        outbox = lab.outbox()
        outbox.settle()
        outbox.publish([Outgoing(lab.topic(OUT), b"k", b"1")], [])
        outbox.settle()
        outbox.publish([Outgoing(lab.topic(OUT), b"k", b"2")], [])
        assert [record.value for record in lab.tail(OUT).read_to_end(0, PATIENCE_S)] == [b"1", b"2"]

    def push_out(self, inbox: Inbox, watcher: Watcher) -> None:
        """Make the group move on without this member."""
        raise NotImplementedError
