"""A loop on the memory broker, turned by hand, with a handler whose work ends when the test says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from consumer.adapters.memory_broker import MemoryBroker, MemoryInbox, MemoryOutbox
from consumer.health import Health
from consumer.loop import Loop, LoopLimits
from consumer.metrics import Metrics
from consumer.ports import Outgoing, Received
from consumer.tasks import Ticket

WORK, LOW, OUT, GROUP = "work", "work.low", "out", "group"
PATIENCE_S = 10.0


@dataclass
class GatedHandler:
    """Answers `done:<value>`; a value that begins with `wait` holds until the test opens its gate."""

    role: str = "test"
    weighs_audio: bool = True
    weights: dict[bytes, float] = field(default_factory=dict)
    begun: list[bytes] = field(default_factory=list)
    gates: dict[bytes, threading.Event] = field(default_factory=dict)
    announcements: int = 0
    reports: int = 0

    def weight(self, record: Received) -> float:
        return self.weights.get(record.value or b"", 1.0)

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        value = record.value or b""
        self.begun.append(value)
        if value == b"bug":
            raise ZeroDivisionError("a bug in the handler")
        for number in range(self.announcements):
            ticket.announce([Outgoing(OUT, record.key, b"announced:%d" % number)])
        for number in range(self.reports):
            ticket.report(Outgoing(OUT, record.key, b"report:%d" % number))
        if value.startswith(b"wait"):
            gate = self.gates.setdefault(value, threading.Event())
            while not gate.is_set():
                ticket.wait(0.01)
        return [Outgoing(OUT, record.key, b"done:" + value)]

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        return [Outgoing(OUT, record.key, b"gave up after %d" % attempts)]

    def open(self, value: bytes) -> None:
        self.gates.setdefault(value, threading.Event()).set()


@dataclass
class Rig:
    """One broker; loops are added as workers of the same group."""

    partitions: int = 1
    broker: MemoryBroker = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.broker = MemoryBroker({WORK: self.partitions, LOW: 1, OUT: 1})

    def put(self, *values: bytes, topic: str = WORK, partition: int | None = 0) -> None:
        for value in values:
            self.broker.append(Outgoing(topic, value, value, partition=partition))

    def worker(
        self,
        handler: GatedHandler,
        *,
        capacity: float = 2.0,
        lanes: Sequence[str] = (WORK,),
        grace_s: float = 5.0,
        workers: int = 1,
        opened: bool = True,
    ) -> tuple[Loop, MemoryInbox]:
        inboxes = [MemoryInbox(self.broker, topic, GROUP) for topic in lanes]
        loop = Loop(
            handler,
            inboxes,
            MemoryOutbox(self.broker),
            LoopLimits(capacity=capacity, grace_s=grace_s, workers=workers),
            health=Health(60, 60),
            metrics=self.metrics,
            clock=lambda: self.now_s,
        )
        if opened:
            loop.open()
        return loop, inboxes[0]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"whisperx_{name}", labels)

    def out(self) -> list[bytes]:
        return [record.value or b"" for record in self.broker.records(OUT)]

    def committed(self, partition: int = 0, topic: str = WORK) -> int | None:
        mark = self.broker.groups[GROUP, topic].committed.get(partition)
        return mark.offset if mark else None

    def note(self, partition: int = 0) -> str:
        mark = self.broker.groups[GROUP, WORK].committed.get(partition)
        return mark.note if mark else ""

    def turn_until(self, condition: Callable[[], bool], *loops: Loop) -> None:
        """Turn the loops until the condition holds; time goes on a little with each turn."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {PATIENCE_S} s; out: {self.out()}"
            for loop in loops:
                loop.turn()
            self.now_s += 0.05
            time.sleep(0.001)  # lets the worker threads run; the condition decides, not the time
