"""Real loops on a real broker: workers of one group, in threads or turned by hand, whose work ends when the test says.

Two inboxes with two consumers are two members of the group, also in one process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic

from consumer.adapters.kafka_client import producer_config
from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import TransactionalOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.broker import Outbox
from consumer.health import Health
from consumer.loop import Loop, LoopLimits
from consumer.metrics import Metrics
from consumer.ports import Outgoing, Received
from consumer.settings import KafkaSettings
from consumer.tasks import Ticket
from tests.servers.kafka import Kafka

Protocol = Literal["classic", "consumer"]
SESSION_S = 6.0
"""The sessions of the test broker, too: see `tests.servers.kafka.properties`."""
PATIENCE_S = 90.0
"""For what is to happen on a busy machine; conditions end the waiting, not this."""
RECORD_S = 1.0


@dataclass
class GatedWork:
    """Answers `<worker>:<value>`; a value that begins with `wait` holds until this worker's gate for it is open."""

    worker: str
    out: str
    role: str = "test"
    weighs_audio: bool = False
    begun: list[bytes] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    gates: dict[bytes, threading.Event] = field(default_factory=dict)
    size_bytes: dict[bytes, int] = field(default_factory=dict)
    """Values whose answers are so long."""
    wedge: threading.Event | None = None
    """Work that gives no sign of life until this is set."""

    def weight(self, record: Received) -> float:
        return 1.0

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        value = record.value or b""
        self.begun.append(value)
        if self.wedge is not None:
            self.wedge.wait(PATIENCE_S)
        if value.startswith(b"wait"):
            self._hold(value, ticket)
        return [Outgoing(self.out, record.key, self._answer(value))]

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        return [Outgoing(self.out, record.key, b"gave up:" + (record.value or b""))]

    def open(self, value: bytes) -> None:
        self._gate(value).set()

    def _hold(self, value: bytes, ticket: Ticket) -> None:
        try:
            while not self._gate(value).is_set():
                ticket.wait(0.02)
            ticket.check()
        except BaseException:
            self.dropped.append(value)
            raise

    def _gate(self, value: bytes) -> threading.Event:
        return self.gates.setdefault(value, threading.Event())

    def _answer(self, value: bytes) -> bytes:
        answer = b"%s:%s" % (self.worker.encode(), value)
        if value not in self.size_bytes:
            return answer
        noise = b"".join(b"%032x" % hash((value, number)) for number in range(self.size_bytes[value] // 32))
        return answer + noise


@dataclass
class Worker:
    """One member of the group: its loop, and what a probe would ask."""

    loop: Loop
    inbox: KafkaInbox
    work: GatedWork
    health: Health
    metrics: Metrics
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def start(self) -> Worker:
        """Run in a thread of its own until `stop`, or until it fails."""
        self.thread = threading.Thread(target=self._run, name=self.work.worker, daemon=True)
        self.thread.start()
        return self

    def open(self) -> Worker:
        """Join the group; the test turns the loop."""
        self.loop.open()
        return self

    def end(self, timeout_s: float = PATIENCE_S) -> float:
        """SIGTERM's way; how long it took in seconds."""
        assert self.thread is not None
        asked_s = time.monotonic()
        self.loop.stop()
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), f"{self.work.worker} did not end within {timeout_s} s"
        return time.monotonic() - asked_s

    @property
    def assigned(self) -> set[int]:
        assignment = self.loop.describe()["assignment"]
        assert isinstance(assignment, dict)
        return set(assignment[self.inbox.topic])

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"whisperx_{name}", labels) or 0.0

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:  # noqa: BLE001  (what ended the loop is what some tests ask)
            self.error = error


@dataclass
class Yard:
    """Topics `work` and `out` with the workers of one group. `servers` are what clients call, if not the broker."""

    kafka: Kafka
    prefix: str
    protocol: Protocol = "classic"
    partitions: int = 1
    servers: str = ""
    max_poll_s: float = SESSION_S
    session_s: float = SESSION_S
    commit_timeout_s: float = 10.0
    copies: int = 1
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.work_topic = self._topic("work", self.partitions)
        self.out_topic = self._topic("out", 1)
        direct = self.settings(self.kafka.bootstrap_servers)
        self._filler = Producer({**producer_config(direct), "message.timeout.ms": 60_000})
        self._reader = KafkaTail(direct, self.out_topic, partitions=[0])
        self._seen: list[bytes] = []

    def settings(self, servers: str = "") -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=servers or self.servers or self.kafka.bootstrap_servers,
            topic_prefix=self.prefix,
            group_prefix=self.prefix,
            group_protocol=self.protocol,
            session_timeout_s=self.session_s,
            max_poll_interval_s=self.max_poll_s,
            commit_timeout_s=self.commit_timeout_s,
            transaction_timeout_s=10.0,
        )

    def _topic(self, name: str, partitions: int) -> str:
        wanted, admin = NewTopic(self.prefix + name, partitions, self.copies), self.kafka.admin()
        admin.create_topics([wanted], operation_timeout=30)[self.prefix + name].result(30)
        return self.prefix + name

    @property
    def group(self) -> str:
        return f"{self.prefix}group"

    def put(self, *values: bytes, partition: int = 0) -> None:
        for value in values:
            self._filler.produce(self.work_topic, value, value, partition=partition)
        assert self._filler.flush(60) == 0

    def worker(
        self,
        name: str,
        *,
        transactional_id: str = "",
        servers: str = "",
        outbox: Callable[[KafkaSettings, str], Outbox] = TransactionalOutbox,
        limits: LoopLimits | None = None,
        health: Health | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> Worker:
        """A new member; it joins when it is opened or started."""
        settings = self.settings(servers)
        inbox = KafkaInbox(settings, self.work_topic, self.group)
        work, metrics, health = GatedWork(name, self.out_topic), Metrics(), health or Health(60, 60)
        loop = Loop(
            work,
            [inbox],
            outbox(settings, f"{self.prefix}{transactional_id or name}"),
            limits or LoopLimits(capacity=2.0, grace_s=5.0),
            health=health,
            metrics=metrics,
            clock=time.monotonic,
            watch=watch,
        )
        made = Worker(loop, inbox, work, health, metrics)
        self.workers.append(made)
        return made

    def seen(self) -> list[bytes]:
        """What a read_committed reader that follows the topic has seen so far."""
        while (record := self._reader.poll(0.02)) is not None:
            self._seen.append(record.value or b"")
        return list(self._seen)

    def out(self) -> list[bytes]:
        """What a read_committed reader sees in the end."""
        tail = KafkaTail(self.settings(self.kafka.bootstrap_servers), self.out_topic)
        try:
            return [record.value or b"" for record in tail.read_to_end(0, 60.0)]
        finally:
            tail.close()

    def has(self, count: int) -> Callable[[], bool]:
        """Whether a reader has seen so many answers."""
        return lambda: len(self.seen()) >= count

    def answered(self) -> list[bytes]:
        """The values that were answered, whoever did it."""
        return [value.partition(b":")[2] for value in self.out()]

    def committed(self, partition: int = 0) -> int | None:
        asker = KafkaInbox(self.settings(self.kafka.bootstrap_servers), self.work_topic, self.group)
        try:
            return asker.committed({partition})[partition].offset
        finally:
            asker.close(5.0)

    def close(self) -> None:
        for worker in self.workers:
            worker.loop.stop()
            if worker.work.wedge is not None:
                worker.work.wedge.set()
        for worker in self.workers:
            if worker.thread is None:
                worker.inbox.close(5.0)
            else:
                worker.thread.join(30.0)
        self._reader.close()


@contextmanager
def yard_of(kafka: Kafka, prefix: str, **shape: object) -> Iterator[Yard]:
    """A yard whose workers end with the block."""
    made = Yard(kafka, prefix, **shape)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], bool], *turned: Worker, what: str = "", timeout_s: float = PATIENCE_S) -> float:
    """Turn these workers until the condition holds; how long it took in seconds. Others run in their threads."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < timeout_s, f"not reached within {timeout_s} s: {what or condition}"
        for worker in turned:
            worker.loop.turn()
        if not turned:
            time.sleep(0.05)  # it happens elsewhere, and asking is the only way to see it
    return time.monotonic() - began_s


def settle(*turned: Worker, for_s: float = RECORD_S) -> None:
    """Turn on for a moment, for what must not happen any more."""
    ends_s = time.monotonic() + for_s
    while time.monotonic() < ends_s:
        for worker in turned:
            worker.loop.turn()
        if not turned:
            time.sleep(0.05)
