"""What befalls a process: at its n-th effect from now it dies, stalls, or something else happens meanwhile.

An effect is a call that the outside can see or that sees the outside. Each counts twice, before and after it took
place, so that a crash is possible between any two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from consumer.adapters.memory_broker import Fault, MemoryBroker, MemoryInbox, MemoryOutbox, MemoryTail
from consumer.adapters.memory_store import BINARY, MemoryStore
from consumer.broker import Inbox, Mark, Marks
from consumer.errors import BrokerUnavailable, StoreUnavailable
from consumer.ports import ObjectStat, Outgoing, PutOutcome, Received

if TYPE_CHECKING:
    from tests.model.oracle import Oracle

T = TypeVar("T")


class Crashed(BaseException):
    """The process is dead: nothing of it goes on, least of all an error handler."""


class Sabotage(Enum):
    """A build with a fault of its own, which the model must find."""

    NO_TRANSACTION = auto()
    """Records are published one by one, then the positions are committed."""
    COMMIT_BEFORE_WORK = auto()
    """A record counts as done when it is read."""
    PLAIN_PUT = auto()
    """A second writer of an object wins."""
    NO_FENCE = auto()
    """Whoever left the group may still publish and commit."""


@dataclass
class Weather:
    """What all processes share: the clock, and until when the servers are away."""

    now_s: float = 1_000_000.0
    store_away_until_s: float = 0.0
    broker_away_until_s: float = 0.0
    sabotage: Sabotage | None = None
    effects: int = 0
    """How many there were, of all processes."""

    @property
    def store_is_away(self) -> bool:
        return self.now_s < self.store_away_until_s

    @property
    def broker_is_away(self) -> bool:
        return self.now_s < self.broker_away_until_s


@dataclass
class _Appointment:
    """`act` is due in so many effects."""

    effects: int
    act: Callable[[], None]


@dataclass
class Fate:
    """One process's. `dead` is for ever."""

    weather: Weather
    oracle: Oracle
    dead: bool = False
    publish_faults: deque[Fault] = field(default_factory=deque)
    store_faults: deque[tuple[int, bool]] = field(default_factory=deque)
    """(store calls until the fault, whether the call takes effect before its answer is lost)."""
    _appointments: list[_Appointment] = field(default_factory=list)

    def appoint(self, effects: int, act: Callable[[], None]) -> None:
        self._appointments.append(_Appointment(effects, act))

    def die(self) -> None:
        self.dead = True
        raise Crashed

    def effect(self) -> None:
        """Here, between two effects, everything may happen."""
        self.weather.effects += 1
        due = [one for one in self._appointments if one.effects <= 0]
        self._appointments = [one for one in self._appointments if one.effects > 0]
        for one in self._appointments:
            one.effects -= 1
        for one in due:
            one.act()
        if self.dead:
            raise Crashed

    def around(self, act: Callable[[], T]) -> T:
        """One call to the broker."""
        self.effect()
        found = act()
        self.effect()
        return found

    def require_broker(self) -> None:
        if self.weather.broker_is_away:
            raise BrokerUnavailable("away, says the model")

    def store_fault(self) -> bool | None:
        """Whether the next store call fails, and if so, whether it takes effect."""
        if self.weather.store_is_away:
            return False
        if self.store_faults and self.store_faults[0][0] <= 0:
            return self.store_faults.popleft()[1]
        if self.store_faults:
            calls, takes_effect = self.store_faults[0]
            self.store_faults[0] = (calls - 1, takes_effect)
        return None


class ModelStore:
    """A process's way to the store. It is an `ObjectStore`."""

    def __init__(self, inner: MemoryStore, fate: Fate) -> None:
        self._inner = inner
        self._fate = fate

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        return self._call(lambda: self._inner.stat(bucket, key, version_id))

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        return self._call(lambda: self._inner.read_range(bucket, key, start, length, etag=etag, version_id=version_id))

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        return self._call(lambda: self._inner.get(bucket, key, etag=etag, version_id=version_id))

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        return self._call(lambda: self._inner.stream(bucket, key, block_bytes=block_bytes))

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        if self._fate.weather.sabotage is Sabotage.PLAIN_PUT:
            return self.put(bucket, key, data, content_type)
        return self._call(lambda: self._inner.put_new(bucket, key, data, content_type))

    def put(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        return self._call(lambda: self._inner.put(bucket, key, data, content_type))

    def upload(self, bucket: str, key: str, source: BinaryIO, content_type: str = BINARY) -> ObjectStat:
        return self._call(lambda: self._inner.upload(bucket, key, source, content_type))

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        return self._call(lambda: self._inner.list_keys(bucket, prefix))

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        return self._call(lambda: self._inner.delete(bucket, keys))

    def delete_exactly(self, pinned: ObjectStat) -> None:
        self._call(lambda: self._inner.delete_exactly(pinned))

    def bucket_exists(self, bucket: str) -> bool:
        return self._call(lambda: self._inner.bucket_exists(bucket))

    def make_bucket(self, bucket: str) -> None:
        self._call(lambda: self._inner.make_bucket(bucket))

    def _call(self, act: Callable[[], T]) -> T:
        self._fate.effect()
        takes_effect = self._fate.store_fault()
        if takes_effect is False:
            raise StoreUnavailable("no answer, says the model")
        found = act()
        self._fate.effect()
        if takes_effect:
            raise StoreUnavailable("the answer is lost, says the model")
        return found


class ModelInbox(MemoryInbox):
    """A process's membership. What it commits, the oracle sees."""

    def __init__(self, broker: MemoryBroker, topic: str, group: str, fate: Fate) -> None:
        super().__init__(broker, topic, group)
        self._fate = fate

    def poll(self, timeout_s: float) -> Received | None:
        """An effect only where it gives a record: what befalls a process is to meet it at work."""
        self._fate.require_broker()
        record = super().poll(timeout_s)
        if record is not None and self._fate.weather.sabotage is Sabotage.COMMIT_BEFORE_WORK:
            self.store({record.partition: Mark(record.offset + 1)})
        if record is not None:
            self._fate.effect()
        return record

    def committed(self, partitions: set[int]) -> dict[int, Mark]:
        self._fate.effect()
        self._fate.require_broker()
        return super().committed(partitions)

    def commit(self, marks: Marks) -> None:
        self._fate.effect()
        self._fate.require_broker()
        self._fate.around(lambda: super(ModelInbox, self).commit(marks))

    def note(self, marks: Marks) -> None:
        if not marks:
            return
        self._fate.effect()
        if not self._fate.weather.broker_is_away:
            super().note(marks)
        self._fate.effect()

    def store(self, marks: Marks) -> None:
        moved = {p: mark for p, mark in marks.items() if mark.offset is not None}
        self._fate.oracle.commits(self, moved)
        super().store(moved)

    def leave(self) -> None:
        """The broker takes it for dead."""
        if self in self._state.members:
            self._broker.expire(self)


class ModelOutbox(MemoryOutbox):
    """A process's transactions; the next of `publish_faults` says how one fails."""

    def __init__(self, broker: MemoryBroker, fate: Fate) -> None:
        super().__init__(broker)
        self._fate = fate

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        self._fate.effect()
        self._fate.require_broker()
        if self._fate.publish_faults and (fault := self._fate.publish_faults.popleft()) is not Fault.UNSETTLED:
            self._broker.faults.append(fault)
        super().publish(records, marks)
        self._fate.effect()

    def settle(self) -> None:
        self._fate.effect()
        self._fate.require_broker()
        if self._fate.publish_faults and self._fate.publish_faults[0] is Fault.UNSETTLED:
            self._fate.publish_faults.popleft()
            raise BrokerUnavailable("no answer, says the model")
        self._fate.effect()

    def _transact(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        match self._fate.weather.sabotage:
            case Sabotage.NO_TRANSACTION:
                self._one_by_one(records, marks)
            case Sabotage.NO_FENCE:
                self._store_all(records, marks)
            case _:
                super()._transact(records, marks)

    def _one_by_one(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        for record in records:
            self._broker.append(record)
            self._fate.effect()
        for inbox, of_inbox in marks:
            inbox.commit(of_inbox)

    def _store_all(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        for record in records:
            self._broker.append(record)
        for inbox, of_inbox in marks:
            assert isinstance(inbox, ModelInbox)
            inbox.store(of_inbox)

    def send(self, record: Outgoing) -> bool:
        self._fate.effect()
        if self._fate.weather.broker_is_away:
            return False
        return self._fate.around(lambda: super(ModelOutbox, self).send(record))


class ModelTail(MemoryTail):
    """A process's view of a whole topic."""

    def __init__(self, broker: MemoryBroker, topic: str, fate: Fate) -> None:
        super().__init__(broker, topic)
        self._fate = fate

    def poll(self, timeout_s: float) -> Received | None:
        return None if self._fate.weather.broker_is_away else super().poll(timeout_s)

    def read_to_end(self, partition: int, timeout_s: float) -> list[Received]:
        self._fate.effect()
        self._fate.require_broker()
        return super().read_to_end(partition, timeout_s)
