"""The system that cases are put to: every role's real loop and function, real decoders; fakes around, no models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from consumer import contracts
from consumer.adapters.memory_store import BINARY, MemoryStore
from consumer.core.dead_letters import CODE, text_of
from consumer.core.layout import Topic
from consumer.events import JobFinished
from consumer.health import Health
from consumer.ports import Outgoing, PutOutcome, Received
from consumer.refusals import RefusalLimit
from consumer.settings import CoordinatorSettings
from consumer.work import JobReceived
from tests.fuzz.case import Case
from tests.integration.memory_system import RECORDINGS, RESULTS, WORK_BUCKET, MemorySystem

LIMIT_S: Final = 60.0
"""Twice what a decoder may work or be waited for before it has given a sample (`limits.decoder_grace_s`)."""


class NoOutcome(Exception):
    """Nobody would ever learn what became of it."""


class _Store(MemoryStore):
    """Counts what it is given: it lies in the memory of the worker that is watched, and would not in a real one's."""

    put_bytes = 0

    def put(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        self.put_bytes += len(data)
        return super().put(bucket, key, data, content_type)


class _System(MemorySystem):
    def __init__(self) -> None:
        super().__init__()
        self.store: _Store = _Store(RECORDINGS, WORK_BUCKET, RESULTS)

    def _refusals(self, role: str) -> RefusalLimit:
        """Nearly everything may be refused here, and nobody is to wait because of it."""
        return RefusalLimit(role, Health(60, 60), 0, 60.0)


class World:
    """Takes one case after the other. What it raises, a worker would have died of."""

    def __init__(self) -> None:
        self._system = _System()
        at_once = CoordinatorSettings(retry_base_s=0.01, retry_max_s=0.02)
        self._system.settings = self._system.settings.model_copy(update={"coordinator": at_once})
        self._system.start()
        self._letters = _Tail(self._system, Topic.DEAD_LETTERS)
        self._events = _Tail(self._system, Topic.JOB_EVENTS)
        self._results = _Tail(self._system, Topic.RESULTS)
        self._ended: dict[str, str] = {}
        self._job_id: str | None = None
        """Of the case, as soon as intake has said it."""

    @property
    def put_bytes(self) -> int:
        """What the store has been given so far."""
        return self._system.store.put_bytes

    def outcome_of(self, case: Case) -> str:
        """A code: of the dead letter, or of how the job ended. Raises NoOutcome, or what ended a loop."""
        system, self._job_id = self._system, None
        system.store.put(RECORDINGS, "a", case.recording)
        system.broker.clock_ms = int(time.time() * 1000) if case.timestamp_ms is None else case.timestamp_ms
        sent = system.broker.append(Outgoing(system.post.topic(Topic(case.topic)), case.key, case.value, case.headers))
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            for loop in system.loops:
                loop.turn()
            if self._is_quiet() and (outcome := self._outcome(sent)):
                return outcome
            if time.monotonic() > deadline_s:
                raise NoOutcome(f"none after {LIMIT_S:g} s")
            time.sleep(0.0005)  # lets the worker threads run

    def _is_quiet(self) -> bool:
        """All that is on a topic with readers has been done."""
        broker = self._system.broker
        return all(broker.lag(topic, group) == 0 for group, topic in broker.groups)

    def _outcome(self, sent: Received) -> str | None:
        for record in self._results.new():
            result = self._system.post.codec.decode(record, (JobFinished,))
            self._ended[result.job_id] = result.error.code if result.error else result.status.value
        for letter in self._letters.new():
            return f"parked: {text_of(letter, CODE)}"
        if sent.topic == self._system.post.topic(Topic.CONTROL):
            return "control taken"
        for one in self._received():
            if _is_of(one, sent):
                self._job_id = one.job_id
        return self._ended.get(self._job_id) if self._job_id else None

    def _received(self) -> Iterator[JobReceived]:
        """What intake has passed on."""
        kind = contracts.full_name(JobReceived).encode()
        for record in self._events.new():
            if ("ce_type", kind) in record.headers:
                yield self._system.post.codec.decode(record, (JobReceived,))


class _Tail:
    """What has come to a topic since it was asked last."""

    def __init__(self, system: MemorySystem, topic: Topic) -> None:
        self._logs = system.broker.topics[system.post.topic(topic)]
        self._seen = [0] * len(self._logs)

    def new(self) -> Iterator[Received]:
        for partition, log in enumerate(self._logs):
            while self._seen[partition] < len(log):
                self._seen[partition] += 1
                yield log[self._seen[partition] - 1]


def _is_of(received: JobReceived, sent: Received) -> bool:
    return (received.original.partition, received.original.offset) == (sent.partition, sent.offset)
