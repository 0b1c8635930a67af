"""What is seen from outside while it runs: results as they come, and where every group stands, second by second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, not exported

from consumer.adapters.kafka_client import bounded
from consumer.adapters.kafka_tail import KafkaTail
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.events import JobFinished
from consumer.settings import KafkaSettings
from consumer.wire import Codec
from tests.chaos.journal import Journal

READERS = (
    ("intake", Topic.CONTROL),
    ("intake", Topic.JOBS),
    ("coordinate", Topic.JOB_EVENTS),
    ("plan", Topic.PLAN_WORK),
    *(("transcribe", lane) for lane in CHUNK_LANES),
    ("assemble", Topic.ASSEMBLY_WORK),
    ("cleanup", Topic.CLEANUP_WORK),
)
"""Every group: one per role and topic."""
TIMEOUT_S = 4.0


@dataclass
class Groups:
    """Asks the brokers where the groups stand, by the direct way.

    Positions are asked for by consumers that never join: the admin client's own question for them ends the process when
    the group's coordinator moves (it goes to a consumer group that an admin client has not).
    """

    bootstrap_servers: str
    prefix: str
    partitions: dict[Topic, int]

    _readers: dict[str, Consumer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """After a failure: a client may look for a lost coordinator for ever (confluentinc/librdkafka#5456)."""
        for reader in self._readers.values():
            bounded(reader.close, 0.1)
        self._readers.clear()
        self._admin = AdminClient(self._config())

    def _config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap_servers, "log_level": 0}

    def _reader_of(self, group: str) -> Consumer:
        """It also tells of a group whose newest position is part of an open transaction: the one before that."""
        if group not in self._readers:
            config = {**self._config(), "group.id": group, "isolation.level": "read_uncommitted"}
            self._readers[group] = Consumer(config)
        return self._readers[group]

    def standing(self, *, committed_only: bool) -> dict[str, list[tuple[int, int]]]:
        """Per topic and partition: the committed position (0 before the first) and the end.

        `committed_only` takes the end of what read_committed readers see. Raises KafkaException or TimeoutError.
        """
        asked = {topic: self._ends(topic, committed_only) for _, topic in READERS}
        stored = {topic: self._committed(topic, f"{self.prefix}{role}.{topic}") for role, topic in READERS}
        return {
            topic.value: [(max(0, stored[topic].get(p, 0)), end) for p, end in sorted(ends.items())]
            for topic, ends in asked.items()
        }

    def lag(self) -> dict[str, int]:
        """Of each group that has any, to the very end of its topic, as an autoscaler counts it."""
        lags = {t: sum(end - at for at, end in places) for t, places in self.standing(committed_only=False).items()}
        return {topic: lag for topic, lag in lags.items() if lag}

    def _ends(self, topic: Topic, committed_only: bool) -> dict[int, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(self.prefix + topic, p): latest for p in range(self.partitions[topic])}
        level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
        found = self._admin.list_offsets(asked, isolation_level=level, request_timeout=TIMEOUT_S)
        return {place.partition: future.result(TIMEOUT_S).offset for place, future in found.items()}

    def _committed(self, topic: Topic, group: str) -> dict[int, int]:
        asked = [TopicPartition(self.prefix + topic, p) for p in range(self.partitions[topic])]
        found = self._reader_of(group).committed(asked, timeout=TIMEOUT_S)
        for error in [place.error for place in found if place.error is not None]:
            raise KafkaException(error)
        return {place.partition: place.offset for place in found}


@dataclass
class Watch:
    """Threads that fill the journal, and the runs that are known to have ended."""

    groups: Groups
    journal: Journal
    codec: Codec
    partitions: int
    finished: dict[str, float] = field(default_factory=dict)
    """Job → when its result was seen."""

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=act, daemon=True) for act in (self._sample, self._read_results)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(20)

    def _sample(self) -> None:
        while not self._ending.wait(1.0):
            try:
                standing = self.groups.standing(committed_only=True)
            except (KafkaException, TimeoutError):
                self.groups.begin_anew()  # the brokers are away, which is no news
                continue
            self.journal.write("standing", topics=standing)

    def _read_results(self) -> None:
        settings = KafkaSettings(bootstrap_servers=self.groups.bootstrap_servers, extra={"log_level": "0"})
        tail = KafkaTail(settings, self.groups.prefix + Topic.RESULTS, partitions=range(self.partitions))
        while not self._ending.is_set():
            for result in self._results(tail):
                self.finished.setdefault(result.job_id, time.time())
                self.journal.write("result", job=result.job_id, run=result.run, status=result.status)
        tail.close()

    def _results(self, tail: KafkaTail) -> Iterator[JobFinished]:
        record = tail.poll(0.2)
        if record is not None:
            yield self.codec.decode(record, (JobFinished,))
