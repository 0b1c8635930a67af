"""Read all partitions of some topics, from a point in time on, without a consumer group's bookkeeping."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.kafka_client import bounded, consumer_config, partitions_of, received
from consumer.adapters.kafka_refusals import Refusals, not_allowed, open_client
from consumer.errors import BrokerUnavailable, Misconfigured
from consumer.ports import Received
from consumer.settings import KafkaSettings

ANSWER_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
FROM_THE_START_MS = 0


Starts = Callable[[Consumer, Refusals], list[TopicPartition]]
"""Where to begin. A client is asked, whose refusals say why it does not answer."""


class Tail:
    """A reader of whole topics; `starts` says which partitions to read from where.

        with Tail.since(settings, ["transcription.progress"], 1_700_000_000_000) as tail:
            record = tail.poll(0.2)

    Raises Misconfigured (no such topic) and BrokerUnavailable (RefusedLogin, NotAuthorized).
    """

    def __init__(self, settings: KafkaSettings, starts: Starts) -> None:
        self._settings = settings
        self._refusals = Refusals(settings)
        more = {"queued.min.messages": 1_000, "enable.partition.eof": True, "error_cb": self._refusals}
        self._consumer = _consumer(settings, more)
        try:
            assigned = starts(self._consumer, self._refusals)
        except BaseException:
            self.close()
            raise
        self._unread = {_name(one) for one in assigned}
        self._must_reach: dict[tuple[str, int], int] = {}
        self._consumer.assign(assigned)

    @classmethod
    def since(cls, settings: KafkaSettings, topics: Sequence[str], since_ms: int) -> Self:
        """All partitions of these topics, from an instant on."""

        def starts(consumer: Consumer, refusals: Refusals) -> list[TopicPartition]:
            return _starts(consumer, _partitions(consumer, refusals, topics), since_ms)

        return cls(settings, starts)

    @classmethod
    def at(cls, settings: KafkaSettings, topic: str, partition: int, offset: int) -> Self:
        """One partition from an offset on; nothing when there is no such partition."""
        wanted = TopicPartition(topic, partition, offset)
        return cls(
            settings,
            lambda consumer, refusals: [wanted] if partition in partitions_of(consumer, topic, refusals) else [],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def caught_up(self) -> bool:
        """Whether everything was read that was there when we began."""
        return not self._unread

    def poll(self, timeout_s: float) -> Received | None:
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        if error is None:
            return received(message)
        if error.code() == KafkaError._PARTITION_EOF:
            self._reached((message.topic() or "", message.partition() or 0), message.offset() or 0)
        else:
            _raise_if_hopeless(error, message.topic() or "")
        return None

    def _reached(self, partition: tuple[str, int], offset: int) -> None:
        if offset >= self._must_reach.get(partition, 0):
            self._unread.discard(partition)

    def await_undecided(self) -> Self:
        """Be caught up only behind the transactions that are open now: what they hold is decided first.

        Without this the end of a partition is where its oldest open transaction begins. Call it before reading.
        """
        self._must_reach = _ends_with_undecided(self._settings, self._unread)
        return self

    def read_to_end(self, silence_s: float = 30.0) -> Iterator[Received]:
        """What is there now. Raises BrokerUnavailable when nothing comes for `silence_s` seconds."""
        waited_s, step_s = 0.0, 0.5
        while not self.caught_up:
            unread = len(self._unread)
            record = self.poll(step_s)
            if record is not None:
                yield record
            waited_s = waited_s + step_s if record is None and unread == len(self._unread) else 0.0
            if waited_s >= silence_s:
                raise self._refusals.take() or BrokerUnavailable(
                    f"the brokers have been silent for {silence_s:.0f} s; try again"
                )

    def close(self) -> None:
        bounded(self._consumer.close, CLOSE_TIMEOUT_S)


def record_at(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Received | None:
    """The record at this very position; None where there is none. Raises as Tail does."""
    with Tail.at(settings, topic, partition, offset) as tail:
        for record in tail.read_to_end():
            return record if record.offset == offset else None
    return None


def _consumer(settings: KafkaSettings, more: dict[str, Any]) -> Consumer:
    """Assigned by hand, the group is only a name that librdkafka asks for."""
    config = consumer_config(settings, f"{settings.group_prefix}tools") | {"group.protocol": "classic"} | more
    config.pop("partition.assignment.strategy", None)
    return open_client(Consumer, config, logging.getLogger("librdkafka"))


def _partitions(consumer: Consumer, refusals: Refusals, topics: Sequence[str]) -> list[TopicPartition]:
    return [TopicPartition(topic, one) for topic in topics for one in partitions_of(consumer, topic, refusals)]


def _starts(consumer: Consumer, partitions: Sequence[TopicPartition], since_ms: int) -> list[TopicPartition]:
    """The first record at or after the instant in each partition; the beginning where the broker cannot tell.

    A broker without a time index (librdkafka's mock) says "the end" to every instant. A real one says so only of a
    partition that has nothing newer, and finds the first record when it is asked for the year 1970.
    """
    if since_ms <= FROM_THE_START_MS:
        return [_at(one, OFFSET_BEGINNING) for one in partitions]
    # Asked first: "the end" as a place to start would miss what comes between the answer and the first fetch.
    ends = {_name(one): _end(consumer, one) for one in partitions}
    found = _offsets_at(consumer, partitions, since_ms)
    at_end = [one for one in found if one.offset == OFFSET_END]
    untold = {_name(one) for one in _offsets_at(consumer, at_end, FROM_THE_START_MS) if one.offset == OFFSET_END}
    starts = {_name(one): ends[_name(one)] if one.offset == OFFSET_END else one.offset for one in found}
    return [_at(one, OFFSET_BEGINNING if _name(one) in untold else starts[_name(one)]) for one in partitions]


def _ends_with_undecided(settings: KafkaSettings, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Where the partitions end for a reader who does not wait for the end of transactions."""
    asker = _consumer(settings, {"isolation.level": "read_uncommitted"})
    try:
        return {(topic, number): _end(asker, TopicPartition(topic, number)) for topic, number in partitions}
    finally:
        bounded(asker.close, CLOSE_TIMEOUT_S)


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    try:
        _, end = consumer.get_watermark_offsets(partition, timeout=ANSWER_TIMEOUT_S)
    except KafkaException as exc:
        raise _unanswered(exc, partition.topic) from exc
    return int(end)


def _offsets_at(consumer: Consumer, partitions: Sequence[TopicPartition], at_ms: int) -> list[TopicPartition]:
    if not partitions:
        return []
    try:
        return consumer.offsets_for_times([_at(one, at_ms) for one in partitions], timeout=ANSWER_TIMEOUT_S)
    except KafkaException as exc:
        raise _unanswered(exc, partitions[0].topic) from exc


def _unanswered(exc: KafkaException, topic: str) -> BrokerUnavailable:
    _raise_if_hopeless(exc.args[0], topic)
    return BrokerUnavailable(f"the brokers do not say where to start reading: {exc}")


def _name(partition: TopicPartition) -> tuple[str, int]:
    return partition.topic, partition.partition


def _at(partition: TopicPartition, offset: int) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition, offset)


def _raise_if_hopeless(error: KafkaError, topic: str) -> None:
    """All other errors are those of brokers that come back: the client goes on by itself.

    That we may not ask for our group is none: nobody joins it.
    """
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise not_allowed("Read", "topic", topic)
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise Misconfigured(f"{error.str()}: create the topics with `whisperx-consumer topics create`")
