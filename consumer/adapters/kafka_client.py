"""What our Kafka clients share: settings, classes of error, and records in our words. By confluent-kafka (librdkafka).

The evidence for the settings and for each error class is in docs/kafka.md.
"""

from __future__ import annotations

import logging
import threading
import time
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
from confluent_kafka.admin import TopicMetadata  # type: ignore[attr-defined]  # public, not exported explicitly

from consumer.adapters.kafka_refusals import AUTHORIZATION, Refusals, away, not_allowed
from consumer.broker import Marks
from consumer.errors import MissingTopic, RefusedLogin
from consumer.ports import Received
from consumer.settings import KafkaSettings

CLIENT_LOG = logging.getLogger("librdkafka")

REQUEST_TIMEOUT_S = 10.0
"""A request without an answer for so long, on a connection that may be dead: it is given up, the connection too."""

REFUSAL_S = 2.0
"""Time enough for a broker to refuse a login."""

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
    return {**config, **_login(settings), **_trust(settings)}


def _login(settings: KafkaSettings) -> dict[str, Any]:
    """How to say who we are. A token is renewed by the client itself before it expires."""
    if not settings.sasl_mechanism:
        return {}
    config: dict[str, Any] = {"sasl.mechanism": settings.sasl_mechanism}
    if settings.sasl_mechanism != "OAUTHBEARER":
        password = settings.sasl_password.get_secret_value()
        return {**config, "sasl.username": settings.sasl_username, "sasl.password": password}
    if not settings.oauth_token_endpoint:  # `extra` says where tokens come from
        return config
    config["sasl.oauthbearer.method"] = "oidc"
    config["sasl.oauthbearer.token.endpoint.url"] = settings.oauth_token_endpoint
    config["sasl.oauthbearer.client.id"] = settings.oauth_client_id
    config["sasl.oauthbearer.client.secret"] = settings.oauth_client_secret.get_secret_value()
    if settings.oauth_scope:
        config["sasl.oauthbearer.scope"] = settings.oauth_scope
    if settings.oauth_ca_location:
        config["https.ca.location"] = settings.oauth_ca_location
    return config


def _trust(settings: KafkaSettings) -> dict[str, Any]:
    """Whom we believe, and what shows who we are."""
    config: dict[str, Any] = {}
    if settings.ssl_ca_location:
        config["ssl.ca.location"] = settings.ssl_ca_location
    if settings.ssl_certificate_location:
        config["ssl.certificate.location"] = settings.ssl_certificate_location
        config["ssl.key.location"] = settings.ssl_key_location
        if password := settings.ssl_key_password.get_secret_value():
            config["ssl.key.password"] = password
    if settings.security_protocol.endswith("SSL"):
        config["ssl.endpoint.identification.algorithm"] = "https" if settings.ssl_verify_hostname else "none"
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


def partitions_of(client: Consumer | Producer, topic: str, refusals: Refusals, timeout_s: float = 10.0) -> list[int]:
    """The partition numbers. Raises Misconfigured when the topic is missing, BrokerUnavailable when nobody answers.

    Raises RefusedLogin and NotAuthorized where the brokers do answer, and refuse.
    """
    found = _metadata_of(client, topic, refusals, timeout_s)
    if found.error is not None and found.error.code() in AUTHORIZATION:
        raise not_allowed("Describe", "topic", topic)
    if found.error is not None or not found.partitions:
        raise MissingTopic(f"topic {topic} does not exist; create the topics with `whisperx-consumer topics create`")
    return sorted(found.partitions)


def _metadata_of(client: Consumer | Producer, topic: str, refusals: Refusals, timeout_s: float) -> TopicMetadata:
    """Asked in short waits: who is refused need not wait as long as for brokers that are away."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        left_s = give_up_s - time.monotonic()
        try:
            found: TopicMetadata = client.list_topics(topic, timeout=max(0.1, min(left_s, REFUSAL_S))).topics[topic]
            return found
        except KafkaException as exc:
            error = away(f"asking for topic {topic}", exc, client, refusals)
            if isinstance(error, RefusedLogin) or left_s <= REFUSAL_S:
                raise error from exc


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


def _header_bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


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
