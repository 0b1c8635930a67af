"""A broker in memory: partitions, groups with rebalances and fencing, transactions. Held to the real one by contract.

What it leaves out on purpose: time (nothing expires by itself; `expire` says who is dead), and the network (`faults`
says which publish fails, and how).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from consumer.broker import Inbox, Mark, Marks, PublishAborted, PublishInDoubt, Rebalance
from consumer.errors import BrokerUnavailable, Misconfigured
from consumer.ports import Outgoing, Received


class Fault(Enum):
    """How a publish fails."""

    ABORTED = auto()
    """Nothing is visible."""
    UNAVAILABLE = auto()
    """Nothing is visible, and nobody answered."""
    IN_DOUBT_LOST = auto()
    """The answer was lost, and so was the transaction."""
    IN_DOUBT_DONE = auto()
    """The answer was lost, the transaction is visible."""
    UNSETTLED = auto()
    """After one of the above: nobody answers yet when the doubt is to be settled."""


@dataclass(eq=False)
class _Group:
    """One group on one topic. `members` in the order of joining share the partitions."""

    members: list[MemoryInbox] = field(default_factory=list)
    committed: dict[int, Mark] = field(default_factory=dict)
    generation: int = 0

    def share(self, member: MemoryInbox, partitions: int) -> set[int]:
        place = self.members.index(member)
        return {p for p in range(partitions) if p % len(self.members) == place}

    def held_by_others(self, member: MemoryInbox) -> set[int]:
        """What another member has not given up yet: nobody gets it before (cooperative rebalancing)."""
        return {p for other in self.members if other is not member for p in other.assigned}


class MemoryBroker:
    """Topics with their partitions, and the groups that read them."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        self.topics: dict[str, list[list[Received]]] = {name: [[] for _ in range(n)] for name, n in topics.items()}
        self.groups: dict[tuple[str, str], _Group] = {}
        self.faults: deque[Fault] = deque()
        self.clock_ms = 0

    def append(self, record: Outgoing) -> Received:
        """Add one record; its partition is given, or found from its key."""
        partitions = self._partitions(record.topic)
        partition = record.partition if record.partition is not None else _partition(record.key, len(partitions))
        log = partitions[partition]
        stored = Received(
            record.topic, partition, len(log), record.key, record.value, record.headers, timestamp_ms=self.clock_ms
        )
        log.append(stored)
        return stored

    def records(self, topic: str) -> list[Received]:
        """Everything on a topic, partition by partition."""
        return [record for log in self._partitions(topic) for record in log]

    def lag(self, topic: str, group: str) -> int:
        committed = self.groups[group, topic].committed
        return sum(len(log) - (committed.get(p, Mark(0)).offset or 0) for p, log in enumerate(self._partitions(topic)))

    def expire(self, inbox: MemoryInbox) -> None:
        """The member is taken for dead: its partitions go to the others, and it learns of it at its next poll."""
        group = self.groups[inbox.group, inbox.topic]
        group.members.remove(inbox)
        group.generation += 1
        inbox.expelled = True

    def _partitions(self, topic: str) -> list[list[Received]]:
        if topic not in self.topics:
            raise Misconfigured(
                f"topic {topic} does not exist; create the topics with `whisperx-consumer topics create`"
            )
        return self.topics[topic]


class MemoryInbox:
    """A member of a group."""

    def __init__(self, broker: MemoryBroker, topic: str, group: str) -> None:
        self._broker = broker
        self._topic = topic
        self.group = group
        self._state = broker.groups.setdefault((group, topic), _Group())
        self._rebalance: Rebalance | None = None
        self._assigned: set[int] = set()
        self._paused: set[int] = set()
        self._positions: dict[int, int] = {}
        self._generation = -1
        self.expelled = False
        self.away = False
        """The broker does not answer; the client says so once, and then is silent as a real one."""
        self.told_away = False
        self.noting: set[int] = set()
        """Partitions whose notes the test leaves unanswered."""
        self.awaits_positions = False
        self.tells_positions = True
        """Whether the group answers the question for positions; the test may say no."""

    @property
    def topic(self) -> str:
        return self._topic

    @property
    def paused(self) -> set[int]:
        return self._paused & self._assigned

    @property
    def assigned(self) -> set[int]:
        return set(self._assigned)

    def open(self, rebalance: Rebalance) -> None:
        self._broker._partitions(self._topic)
        self._rebalance = rebalance
        self._join()

    def poll(self, timeout_s: float) -> Received | None:  # noqa: ARG002  (nothing to wait for: what is there is there)
        if self.away:
            self._tell_away()
            return None
        self._catch_up()
        for partition in sorted(self._assigned - self._paused):
            log = self._broker.topics[self._topic][partition]
            position = self._positions.get(partition, 0)
            if position < len(log):
                self._positions[partition] = position + 1
                return log[position]
        return None

    def is_answered(self) -> bool:
        return not self.away

    def pause(self, partitions: set[int]) -> None:
        self._paused |= partitions

    def resume(self, partitions: set[int]) -> None:
        self._paused -= partitions

    def seek(self, partition: int, offset: int) -> None:
        self._positions[partition] = offset

    def position(self, partition: int) -> int | None:
        return self._positions.get(partition)

    def lag(self) -> int | None:
        ends = {p: len(self._broker.topics[self._topic][p]) for p in self._assigned}
        return sum(end - self._positions.get(p, 0) for p, end in ends.items()) if ends else None

    def committed(self, partitions: set[int]) -> dict[int, Mark]:
        if not self.tells_positions:
            raise BrokerUnavailable("no positions, says the test")
        return {p: self._state.committed.get(p, Mark(None)) for p in partitions}

    def commit(self, marks: Marks) -> None:
        if not marks:
            return
        if not self.is_current():
            raise PublishAborted("the group has moved on", stale=True)
        self.store(marks)

    def note(self, marks: Marks) -> None:
        if self.is_current():
            self.store(marks)

    def is_noting(self, partitions: set[int]) -> bool:
        return bool(partitions & self.noting)

    def store(self, marks: Marks) -> None:
        self._state.committed.update({p: mark for p, mark in marks.items() if mark.offset is not None})

    def is_current(self) -> bool:
        """What the broker checks: member and generation."""
        return self in self._state.members and self._generation == self._state.generation

    def close(self, timeout_s: float) -> bool:  # noqa: ARG002
        """Still a member while the callback runs, as with a real client: what it commits is accepted."""
        self._give_up(set(self._assigned), revoked=self in self._state.members)
        if self in self._state.members:
            self._state.members.remove(self)
            self._state.generation += 1
        return True

    def _tell_away(self) -> None:
        if not self.told_away:
            self.told_away = True
            raise BrokerUnavailable("away by the test")

    def _join(self) -> None:
        self._state.members.append(self)
        self._state.generation += 1
        self.expelled = False

    def _catch_up(self) -> None:
        """Learn of rebalances, as a real client does: inside poll."""
        if self.expelled:
            self._give_up(set(self._assigned), revoked=False)
            self._join()
        share = self._state.share(self, len(self._broker.topics[self._topic]))
        if self._generation != self._state.generation:
            self._give_up(self._assigned - share, revoked=True)
            self._generation = self._state.generation
        self._take_over(share - self._assigned - self._state.held_by_others(self))

    def _give_up(self, partitions: set[int], *, revoked: bool) -> None:
        if not partitions or self._rebalance is None:
            return
        if revoked and self in self._state.members:
            # An orderly revocation is still inside the old generation: what the callback commits is accepted.
            self._generation = self._state.generation
        (self._rebalance.revoked if revoked else self._rebalance.lost)(partitions)
        self._assigned -= partitions

    def _take_over(self, partitions: set[int]) -> None:
        """New partitions start at the committed offset and un-paused, once the group tells it."""
        told, self.awaits_positions = self.awaits_positions, bool(partitions)
        if not partitions:
            return
        try:
            marks = self.committed(partitions)
        except BrokerUnavailable:
            if told:  # said once already, and what we have goes on
                return
            raise
        self.awaits_positions = False
        self._assigned |= partitions
        self._paused -= partitions
        for partition in partitions:
            self._positions[partition] = marks[partition].offset or 0
        if self._rebalance is not None:
            self._rebalance.assigned(marks)


class MemoryOutbox:
    """Publishes all or nothing, fenced by the inboxes' membership; fails as `broker.faults` says."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.sent: list[Outgoing] = []
        self.full = False
        """Whether best-effort records find no room."""

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        fault = self._broker.faults.popleft() if self._broker.faults else None
        if fault is Fault.ABORTED:
            raise PublishAborted("aborted by the test", stale=False)
        if fault is Fault.UNAVAILABLE:
            raise BrokerUnavailable("away by the test")
        if fault is Fault.IN_DOUBT_LOST:
            raise PublishInDoubt("no answer")
        self._transact(records, marks)
        if fault is Fault.IN_DOUBT_DONE:
            raise PublishInDoubt("no answer")

    def _transact(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        inboxes = [(inbox, of_inbox) for inbox, of_inbox in marks if isinstance(inbox, MemoryInbox)]
        if any(not inbox.is_current() for inbox, _ in inboxes):
            raise PublishAborted("the group has moved on", stale=True)
        for record in records:
            self._broker.append(record)
        for inbox, of_inbox in inboxes:
            inbox.store(of_inbox)

    def settle(self) -> None:
        """A doubt is the caller's only: here each transaction is decided at once."""
        if self._broker.faults and self._broker.faults[0] is Fault.UNSETTLED:
            self._broker.faults.popleft()
            raise BrokerUnavailable("away by the test")

    def send(self, record: Outgoing) -> bool:
        if self.full:
            return False
        self.sent.append(record)
        self._broker.append(record)
        return True

    def close(self, timeout_s: float) -> None:
        """Nothing is held back."""


class MemoryTail:
    """Reads a topic without a group."""

    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._seen = [0] * len(broker.topics[topic])

    def poll(self, timeout_s: float) -> Received | None:  # noqa: ARG002
        for partition, records in enumerate(self._broker.topics[self._topic]):
            if self._seen[partition] < len(records):
                self._seen[partition] += 1
                return records[self._seen[partition] - 1]
        return None

    def read_to_end(self, partition: int, timeout_s: float) -> list[Received]:  # noqa: ARG002
        return list(self._broker.topics[self._topic][partition])

    def close(self) -> None:
        """Nothing to leave."""


def _partition(key: bytes | None, partitions: int) -> int:
    return zlib.crc32(key or b"") % partitions
