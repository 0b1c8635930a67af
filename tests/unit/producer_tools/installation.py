"""An installation as the tools see it: topics, buckets, and somebody who publishes what the service would."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Producer

from consumer.adapters.kafka_client import producer_config
from consumer.adapters.object_store import S3Store
from consumer.core.identity import event_id
from consumer.core.layout import Topic
from consumer.events import Event, JobFinished, JobProgress, JobStatus, Stage
from consumer.ports import Outgoing, Received
from consumer.settings import KafkaSettings
from consumer.wire import Codec
from producer_tools.tail import Tail

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
PUBLIC = (Topic.JOBS, Topic.CONTROL, Topic.PROGRESS, Topic.PARTIALS, Topic.RESULTS, Topic.DEAD_LETTERS, Topic.AUDIT)
_numbers = itertools.count(1)


def job_name() -> str:
    """Another one at every call, because the tests of a module share a broker."""
    return f"job-{next(_numbers)}"


@dataclass
class Installation:
    """A broker with the public topics and a store; `environment` leads the tools to both."""

    kafka: KafkaSettings
    store: S3Store
    store_environment: Mapping[str, str]
    codec: Codec = field(default_factory=lambda: Codec(None, "/tests"))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "WHISPERX_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "WHISPERX_KAFKA__TOPIC_PREFIX": self.kafka.topic_prefix,
            "WHISPERX_KAFKA__GROUP_PROTOCOL": self.kafka.group_protocol,
            "WHISPERX_KAFKA__EXTRA": json.dumps(self.kafka.extra),
            **self.store_environment,
        }

    def topic(self, topic: Topic) -> str:
        return self.kafka.topic_prefix + topic

    def publish(self, topic: Topic, *events: Event) -> None:
        for event in events:
            value, headers = self.codec.encode(event, self.topic(topic), event_id=event_id(event), time=NOW)
            self.send(Outgoing(self.topic(topic), event.key().encode(), value, headers))

    def send(self, record: Outgoing) -> None:
        with _producer(self.kafka) as producer:
            producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))

    def records(self, topic: Topic) -> list[Received]:
        """All that is on a topic."""
        with Tail.since(self.kafka, [self.topic(topic)], 0) as tail:
            return list(tail.read_to_end())


@contextmanager
def _producer(settings: KafkaSettings) -> Iterator[Producer]:
    producer = Producer(producer_config(settings))
    yield producer
    assert producer.flush(20) == 0


def progress(job_id: str, sequence: int, **fields: Any) -> JobProgress:
    standard = {"run": 1, "stage": Stage.TRANSCRIBING, "fraction": 0.5, "chunks_done": 1, "emitted_at": NOW}
    return JobProgress.model_validate({"job_id": job_id, "sequence": sequence, **standard, **fields})


def finished(job_id: str, status: JobStatus = JobStatus.COMPLETED, **fields: Any) -> JobFinished:
    return JobFinished.model_validate({"job_id": job_id, "run": 1, "status": status, "finished_at": NOW, **fields})
