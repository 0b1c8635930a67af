"""A tail by Kafka: partitions of one topic, read outside any group."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.kafka_client import (
    CLIENT_LOG,
    NO_LEADER_YET,
    REQUEST_TIMEOUT_S,
    bounded,
    consumer_config,
    partitions_of,
    received,
)
from consumer.adapters.kafka_refusals import AUTHORIZATION, Refusals, away, not_allowed, open_client
from consumer.errors import BrokerUnavailable
from consumer.ports import Received
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

BEGIN_AGAIN_S = 5.0
"""Between two tries to follow a topic."""


class KafkaTail:
    """Reads partitions of one topic by itself: the control topic for its news, the state topic from start to end."""

    def __init__(self, settings: KafkaSettings, topic: str, *, partitions: Sequence[int] | None = None) -> None:
        self._topic = topic
        self._settings = settings
        config = {**_config(settings), "queued.min.messages": 1_000, "enable.partition.eof": True}
        self._refusals = Refusals(settings)
        self._consumer = open_client(Consumer, {**config, "error_cb": self._refusals}, CLIENT_LOG)
        self._reached: dict[int, int] = {}
        """Where `read_on` goes on."""
        self._begin_at: float | None = None
        """When to try again to follow a topic whose broker did not answer; None: nothing to begin."""
        if partitions is not None:
            self._consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])

    def partitions(self, timeout_s: float = 10.0) -> list[int]:
        """The partitions that the topic has. Raises Misconfigured when there is no such topic."""
        return partitions_of(self._consumer, self._topic, self._refusals, timeout_s)

    def follow(self) -> None:
        """Read all partitions from their start, and go on with what comes; later, when the broker is away now."""
        self._begin(timeout_s=10.0)

    def _begin(self, timeout_s: float) -> None:
        try:
            partitions = self.partitions(timeout_s)
        except BrokerUnavailable as error:
            log.info("Following begins later", extra={"topic": self._topic, "reason": error.message})
            self._begin_at = time.monotonic() + BEGIN_AGAIN_S
            return
        self._begin_at = None
        self._consumer.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions])

    def poll(self, timeout_s: float) -> Received | None:
        if self._begin_at is not None and time.monotonic() >= self._begin_at:
            self._begin(timeout_s=1.0)
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        if error is None:
            return received(message)
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            reason = not_allowed("Read", "topic", self._topic).message
            log.warning("Nothing is heard of a topic", extra={"topic": self._topic, "reason": reason})
        return None

    def read_to_end(self, partition: int, timeout_s: float) -> list[Received]:
        """See `Tail`. The end is the high watermark, so a transaction that is still being settled is waited for."""
        records, _ = self._read({partition: OFFSET_BEGINNING}, timeout_s)
        return records

    def read_on(self, timeout_s: float) -> list[Received]:
        """What has come to all partitions since the last call, in order for each; with the first call, all of it.

        Raises BrokerUnavailable when an end was not reached in time; the next call reads the same again then.
        """
        starts = {partition: self._reached.get(partition, OFFSET_BEGINNING) for partition in self.partitions()}
        records, self._reached = self._read(starts, timeout_s)
        return records

    def _read(self, starts: Mapping[int, int], timeout_s: float) -> tuple[list[Received], dict[int, int]]:
        """From these offsets to the present ends, and where those are."""
        targets = [TopicPartition(self._topic, partition, offset) for partition, offset in starts.items()]
        deadline = time.monotonic() + timeout_s
        ends = self._high_watermarks(targets, timeout_s)
        if made_anew := [partition for partition, offset in starts.items() if offset > ends[partition]]:
            raise BrokerUnavailable(f"{self._topic}{made_anew} was made anew or cut while it was read; begin again")
        self._meet_the_leaders(deadline)
        self._consumer.assign(targets)
        records: list[Received] = []
        reached: dict[int, int] = {}
        while len(reached) < len(ends) and (left := deadline - time.monotonic()) > 0:
            message = self._consumer.poll(min(left, 1.0))
            if message is None:
                continue
            error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
            if error is None:
                records.append(received(message))
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise not_allowed("Read", "topic", self._topic)
            elif error.code() != KafkaError._PARTITION_EOF:
                log.info("Reading to the end goes on", extra={"topic": self._topic, "reason": error.str()})
            elif offset >= ends[partition]:
                reached[partition] = offset
        if len(reached) < len(ends):
            raise self._refusals.take() or self._held_up(targets, ends, reached, timeout_s)
        self._consumer.unassign()
        return records, reached

    def _held_up(
        self, targets: list[TopicPartition], ends: Mapping[int, int], reached: Mapping[int, int], timeout_s: float
    ) -> BrokerUnavailable:
        """Says of the first partition whose end was not reached how far it was."""
        at = next(found for found in self._consumer.position(targets) if found.partition not in reached)
        where = f"{self._topic}[{at.partition}] was read to {max(0, at.offset)} of {ends[at.partition]}"
        return BrokerUnavailable(
            f"{where} within {timeout_s:.0f} s; if that stays, `whisperx-consumer doctor` looks for what holds it up"
        )

    def _meet_the_leaders(self, deadline: float) -> None:
        """A client that is given a partition whose leader it does not know yet first rests for half a second."""
        with contextlib.suppress(KafkaException):  # then it rests
            self._consumer.list_topics(
                self._topic, timeout=max(0.1, min(REQUEST_TIMEOUT_S, deadline - time.monotonic()))
            )

    def _high_watermarks(self, targets: Sequence[TopicPartition], timeout_s: float) -> dict[int, int]:
        """The ends with what is still undecided: a client that reads committed records is told earlier ones."""
        config = {**_config(self._settings), "isolation.level": "read_uncommitted"}
        asker = open_client(Consumer, {**config, "error_cb": self._refusals}, CLIENT_LOG)
        deadline = time.monotonic() + timeout_s
        try:
            return {target.partition: _high_of(asker, target, deadline) for target in targets}
        except KafkaException as exc:
            if exc.args[0].code() in AUTHORIZATION:
                raise not_allowed("Read", "topic", self._topic) from exc
            raise away(f"asking for the end of {self._topic}", exc, asker, self._refusals) from exc
        finally:
            bounded(asker.close, 5.0)

    def close(self) -> None:
        bounded(self._consumer.close, 5.0)


def _config(settings: KafkaSettings) -> dict[str, Any]:
    """It never joins a group, so the group's own settings must only not contradict each other."""
    config = consumer_config(settings, f"{settings.group_prefix}tail")
    return {**config, "group.protocol": "classic", "session.timeout.ms": 10_000, "max.poll.interval.ms": 300_000}


def _require_description(asker: Consumer, topic: str) -> None:
    """To the client, a topic that we may not see has no partitions. Raises NotAuthorized."""
    with contextlib.suppress(KafkaException):
        error = asker.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic].error
        if error is not None and error.code() in AUTHORIZATION:
            raise not_allowed("Describe", "topic", topic)


def _high_of(asker: Consumer, target: TopicPartition, deadline: float) -> int:
    """A client that has just started may not know the partition, and a new leader not its end: both soon do."""
    while True:
        try:
            _, high = asker.get_watermark_offsets(target, timeout=max(0.1, deadline - time.monotonic()))
        except KafkaException as exc:
            if exc.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise
            _require_description(asker, target.topic)
            asker.poll(0.1)
        else:
            return int(high)
