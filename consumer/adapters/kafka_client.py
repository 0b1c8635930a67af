"""What our Kafka clients share: settings, classes of error, and records in our words. By confluent-kafka (librdkafka).

The evidence for the settings and for each error class is in docs/kafka.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from consumer.broker import Marks
from consumer.errors import BrokerUnavailable, MissingTopic
from consumer.ports import Received
from consumer.settings import KafkaSettings

CLIENT_LOG = logging.getLogger("librdkafka")

REQUEST_TIMEOUT_S = 10.0
"""A request without an answer for so long, on a connection that may be dead: it is given up, the connection too."""

STALE = {
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
}
"""We are no longer the owner: the group has moved on."""
NO_LEADER_YET = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}
"""A new leader that does not know its partition yet, or a client that does not know its leader: both soon do."""
REFUSALS = {
    KafkaError._AUTHENTICATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
"""Only an operator can mend it."""


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """What every client of ours shares."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "enable.metrics.push": False,
        "reconnect.backoff.ms": 500,
        "reconnect.backoff.max.ms": 5_000,
        # The client's own minute of waiting on a connection that died silently would be a minute without work.
        "socket.timeout.ms": int(REQUEST_TIMEOUT_S * 1000),
        "socket.keepalive.enable": True,
    }
    if settings.sasl_mechanism:
        config["sasl.mechanism"] = settings.sasl_mechanism
        config["sasl.username"] = settings.sasl_username
        config["sasl.password"] = settings.sasl_password.get_secret_value()
    if settings.ssl_ca_location:
        config["ssl.ca.location"] = settings.ssl_ca_location
    return config


def consumer_config(settings: KafkaSettings, group: str) -> dict[str, Any]:
    """Never commits by itself, reads only committed records, holds few records in memory."""
    config: dict[str, Any] = {
        **client_config(settings),
        "group.id": group,
        "group.protocol": settings.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "max.poll.interval.ms": int(settings.max_poll_interval_s * 1000),
        # Few and small: a paused partition throws its prefetched records away, and our records are minutes of work.
        "queued.min.messages": 16,
        "queued.max.messages.kbytes": 1024,
        # With so small a queue the default of a second would be felt between two records.
        "fetch.queue.backoff.ms": 50,
        "fetch.wait.max.ms": 100,
    }
    if settings.group_protocol == "classic":
        config["partition.assignment.strategy"] = "cooperative-sticky"
        config["session.timeout.ms"] = int(settings.session_timeout_s * 1000)
        config["heartbeat.interval.ms"] = max(200, int(settings.session_timeout_s * 1000 / 5))
    return {**config, **_without_producer_keys(settings.extra)}


def producer_config(settings: KafkaSettings) -> dict[str, Any]:
    return {
        **client_config(settings),
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 2,
        "compression.type": "lz4",
        # A dead letter is its original and our headers, and the original may be as large as the broker takes.
        "message.max.bytes": 2_000_000,
        # Java clients choose partitions this way; one partitioner everywhere, so that keys meet.
        "partitioner": "murmur2_random",
        **_without_consumer_keys(settings.extra),
    }


_CONSUMER_ONLY = ("session.", "heartbeat.", "max.poll", "fetch.", "queued.", "auto.offset", "group.", "isolation.")


def _without_consumer_keys(extra: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in extra.items() if not k.startswith(_CONSUMER_ONLY)}


def _without_producer_keys(extra: Mapping[str, str]) -> dict[str, str]:
    producer_only = ("transaction", "enable.idempotence", "acks", "linger.", "compression.", "partitioner")
    return {k: v for k, v in extra.items() if not k.startswith(producer_only)}


def partitions_of(client: Consumer | Producer, topic: str, timeout_s: float = 10.0) -> list[int]:
    """The partition numbers. Raises Misconfigured when the topic is missing, BrokerUnavailable when nobody answers."""
    try:
        found = client.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as exc:
        raise BrokerUnavailable(f"asking for topic {topic}: {exc}") from exc
    if found.error is not None or not found.partitions:
        raise MissingTopic(f"topic {topic} does not exist; create the topics with `whisperx-consumer topics create`")
    return sorted(found.partitions)


def received(message: Message) -> Received:
    kind, timestamp_ms = message.timestamp()
    return Received(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=tuple((str(name), _header_bytes(value)) for name, value in list(message.headers() or ())),
        timestamp_ms=0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
    )


def _header_bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def bounded(act: Callable[[], object], timeout_s: float) -> bool:
    """Run `act` but do not wait for ever: a consumer's close can hang when the brokers are away."""
    thread = threading.Thread(target=act, daemon=True, name="closing")
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()


def positions_of(topic: str, marks: Marks) -> list[TopicPartition]:
    """In librdkafka's form; partitions of which nothing was read yet have no position to store."""
    return [
        TopicPartition(topic, partition, mark.offset, metadata=mark.note)
        for partition, mark in sorted(marks.items())
        if mark.offset is not None
    ]
