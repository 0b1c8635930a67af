"""The sender: submits the scenario over a stretch of time, by the direct way, and writes down what it knows of it."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

from consumer.core.layout import Topic
from tests.chaos.journal import Journal
from tests.chaos.scenario import Event, Kind, Scenario

DELIVERY_S = 60.0


@dataclass
class Submitter:
    """`spread_s` is the time over which the events are sent."""

    bootstrap_servers: str
    prefix: str
    scenario: Scenario
    journal: Journal
    spread_s: float

    def __post_init__(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "enable.idempotence": True,
                "message.timeout.ms": int(DELIVERY_S * 1000),
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run, name="submitter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        begun_s = time.monotonic()
        for event in self.scenario.events:
            time.sleep(max(0.0, begun_s + event.at * self.spread_s - time.monotonic()))
            self._send(event)

    def _send(self, event: Event) -> None:
        """One after the other: what comes later in the scenario comes later in its partition."""
        topic = self.prefix + (Topic.CONTROL if event.kind is Kind.CANCEL else Topic.JOBS)
        self._note(event, "intent", topic)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._note(event, "ok", topic, partition=message.partition(), offset=message.offset())
            else:
                self._note(event, "unknown", topic, reason=error.str())

        self._producer.produce(topic, event.value, event.key, headers=list(event.headers), on_delivery=delivered)
        self._producer.flush(DELIVERY_S + 10)

    def _note(self, event: Event, state: str, topic: str, **found: object) -> None:
        self.journal.write(
            "submission",
            state=state,
            kind=event.kind,
            job=event.job_id,
            topic=topic,
            recording=event.recording,
            record_key=base64.b64encode(event.key or b"").decode(),
            value=base64.b64encode(event.value).decode(),
            headers=[[name, base64.b64encode(value or b"").decode()] for name, value in event.headers],
            **found,
        )
