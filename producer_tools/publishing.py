"""Publish an event and wait until the brokers have it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer import cloud_events, contracts
from consumer.adapters.kafka_client import partitions_of, producer_config
from consumer.adapters.kafka_refusals import AUTHORIZATION, Refusals, not_allowed, open_client
from consumer.core.identity import event_id
from consumer.core.layout import Topic
from consumer.errors import BrokerUnavailable, Misconfigured
from consumer.events import Event
from consumer.ports import Headers
from consumer.wire import Codec
from producer_tools.connection import SOURCE, Connection

CONFIRM_TIMEOUT_S = 30.0
"""How long the brokers may take to confirm an event before we say that they are away."""

Encode = Callable[[Event, str, datetime], tuple[bytes, Headers]]
"""An event, its topic and the time now to a record's value and headers."""


def as_avro(codec: Codec) -> Encode:
    def encode(event: Event, topic: str, now: datetime) -> tuple[bytes, Headers]:
        return codec.encode(event, topic, event_id=event_id(event), time=now)

    return encode


def as_json(event: Event, _topic: str, now: datetime) -> tuple[bytes, Headers]:
    """Plain JSON, as people write it with kcat."""
    headers = cloud_events.headers_of(
        event_id=event_id(event),
        source=SOURCE,
        event_type=contracts.full_name(type(event)),
        time=now,
        subject=event.key(),
        content_type="application/json",
        traceparent=None,
    )
    return event.model_dump_json(exclude_none=True).encode(), headers


class Publisher:
    """Sends events to one topic, keyed by job id.

    Raises Misconfigured (no such topic) and BrokerUnavailable (RefusedLogin, NotAuthorized).
    """

    def __init__(self, connection: Connection, topic: Topic, encode: Encode, clock: Callable[[], datetime]) -> None:
        self._topic = connection.topic(topic)
        self._encode = encode
        self._clock = clock
        config: dict[str, Any] = {
            **producer_config(connection.settings.kafka),
            "message.timeout.ms": int(CONFIRM_TIMEOUT_S * 1000),
        }
        self._refusals = Refusals(connection.settings.kafka)
        config["error_cb"] = self._refusals
        self._producer = open_client(Producer, config, logging.getLogger("librdkafka"))
        self._failures: list[KafkaError] = []
        partitions_of(self._producer, self._topic, self._refusals)

    def publish(self, events: Sequence[Event]) -> None:
        """Returns when all of them are confirmed."""
        for event in events:
            value, headers = self._encode(event, self._topic, self._clock())
            self._produce(event.key().encode(), value, headers)
        unconfirmed = self._flush()
        if self._failures:
            raise self._refusal(self._failures.pop())
        if unconfirmed:
            raise self._refusals.take() or BrokerUnavailable(
                f"{self._topic}: {unconfirmed} events were not confirmed; send them again"
            )

    def _produce(self, key: bytes, value: bytes, headers: Headers) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic, key=key, value=value, headers=list(headers), on_delivery=self._delivered
                )
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as exc:
                raise self._refusal(exc.args[0]) from exc

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failures.append(error)

    def _flush(self) -> int:
        """Events that are still unconfirmed at the end. In short waits, so that Ctrl-C is heard."""
        deadline = time.monotonic() + CONFIRM_TIMEOUT_S + 5
        while (left := self._producer.flush(0.2)) and time.monotonic() < deadline:
            pass
        return int(left)

    def _refusal(self, error: KafkaError) -> BrokerUnavailable | Misconfigured:
        if error.code() in AUTHORIZATION:
            return not_allowed("Write", "topic", self._topic)
        if refusal := self._refusals.take():  # the record has waited for a connection in vain
            return refusal
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return Misconfigured(f"{self._topic} takes no event of this size: {error.str()}; raise max.message.bytes")
        return BrokerUnavailable(f"{self._topic} did not take an event: {error.str()}; send it again")
