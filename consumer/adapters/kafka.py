"""Kafka by confluent-kafka (librdkafka): an inbox per group, a transactional outbox, a plain one, and a tail.

The evidence for the settings and for each error class is in docs/kafka.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from consumer.broker import Inbox, Mark, Marks, PublishAborted, PublishInDoubt, Rebalance
from consumer.errors import BrokenWorker, BrokerUnavailable, Fenced, Misconfigured, MissingTopic
from consumer.ports import Outgoing, Received
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)
_librdkafka_log = logging.getLogger("librdkafka")

REQUEST_TIMEOUT_S = 10.0
"""A request without an answer for so long, on a connection that may be dead: it is given up, the connection too."""
ANSWER_S = 1.0
"""For the question whether the broker is there at all."""
BEGIN_AGAIN_S = 5.0
"""Between two tries to follow a topic."""
NOTE_LIFE_S = 3 * REQUEST_TIMEOUT_S
"""After that a note was given up, if its answer did not come: sent, and tried again twice."""

OFFSETS_S = 6.0
"""How long the offsets of a transaction may take: a few requests, but the client itself does not keep any limit."""

_STALE = {
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
}
NO_LEADER_YET = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}
_FATAL_FOR_US = {
    KafkaError._AUTHENTICATION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


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


class KafkaInbox:
    """One topic read in one group."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self._topic = topic
        self._timeout_s = settings.commit_timeout_s
        config = {**consumer_config(settings, group), "on_commit": self._note_answered}
        self._consumer = Consumer(config, logger=_librdkafka_log)
        self._noted_at: dict[int, list[float]] = {}
        """When notes were sent that were not answered yet, by partition."""
        self._starts: dict[int, int] = {}
        """Where partitions that were not read yet begin, as far as somebody asked."""

    @property
    def topic(self) -> str:
        return self._topic

    def open(self, rebalance: Rebalance) -> None:
        def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            consumer.incremental_assign(partitions)
            rebalance.assigned({p.partition for p in partitions})

        def on_revoke(_: Consumer, partitions: list[TopicPartition]) -> None:
            rebalance.revoked({p.partition for p in partitions})
            self._forget_notes(partitions)

        def on_lost(_: Consumer, partitions: list[TopicPartition]) -> None:
            rebalance.lost({p.partition for p in partitions})
            self._forget_notes(partitions)

        self._consumer.subscribe([self._topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)

    def poll(self, timeout_s: float) -> Received | None:
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        if error is not None:
            self._poll_error(error)
            return None
        return received(message)

    def _poll_error(self, error: KafkaError) -> None:
        """Say what it is: nothing (a rebalance will tell), a broker that is away, or a setting that cannot work."""
        code = error.code()
        if error.fatal():
            raise BrokenWorker(f"the client of {self._topic} cannot go on: {error.str()}")
        if code in (KafkaError._PARTITION_EOF, KafkaError._MAX_POLL_EXCEEDED, *_STALE):
            log.info("The group has moved on", extra={"topic": self._topic, "reason": error.str()})
            return
        if code in _FATAL_FOR_US:
            raise Misconfigured(f"Kafka refuses us on topic {self._topic}: {error.str()}; check user and ACLs")
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise MissingTopic(
                f"topic {self._topic} does not exist; create the topics with `whisperx-consumer topics create`"
            )
        raise BrokerUnavailable(f"reading {self._topic}: {error.str()}")

    def is_answered(self) -> bool:
        try:
            self._consumer.list_topics(self._topic, timeout=ANSWER_S)
        except KafkaException:
            return False
        return True

    def pause(self, partitions: set[int]) -> None:
        self._on_assigned(self._consumer.pause, partitions)

    def resume(self, partitions: set[int]) -> None:
        self._on_assigned(self._consumer.resume, partitions)

    def _on_assigned(self, act: Callable[[list[TopicPartition]], None], partitions: set[int]) -> None:
        if partitions:
            act([TopicPartition(self._topic, p) for p in sorted(partitions)])

    def seek(self, partition: int, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, offset))
        except KafkaException as exc:  # the fetcher of a new partition has not begun yet
            raise BrokerUnavailable(f"going back to {offset} in {self._topic}[{partition}]: {exc}") from exc

    def position(self, partition: int) -> int | None:
        (found,) = self._consumer.position([TopicPartition(self._topic, partition)])
        return found.offset if found.offset >= 0 else None

    def lag(self) -> int | None:
        """From what the fetches brought along: asks nobody, and knows nothing new of a paused partition."""
        known = [lag for p in self._consumer.assignment() if (lag := self._lag_of(p.partition)) is not None]
        return sum(known) if known else None

    def _lag_of(self, partition: int) -> int | None:
        try:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        except KafkaException:  # the partition has just gone
            return None
        position = self.position(partition)
        start = self._starts.get(partition, 0) if position is None else position
        return max(0, end - start) if end >= 0 else None

    def committed(self, partitions: set[int]) -> dict[int, Mark]:
        asked = [TopicPartition(self._topic, p) for p in sorted(partitions)]
        try:
            found = self._consumer.committed(asked, timeout=self._timeout_s)
        except KafkaException as exc:
            raise BrokerUnavailable(f"asking for committed offsets of {self._topic}: {exc}") from exc
        self._starts.update({p.partition: max(0, p.offset) for p in found})
        return {p.partition: Mark(p.offset if p.offset >= 0 else None, p.metadata or "") for p in found}

    def commit(self, marks: Marks) -> None:
        positions = _positions(self._topic, marks)
        if not positions:
            return
        try:
            self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as exc:
            code = exc.args[0].code()
            if code in _STALE:
                raise PublishAborted(str(exc), stale=True) from exc
            raise BrokerUnavailable(f"committing offsets of {self._topic}: {exc}") from exc

    def note(self, marks: Marks) -> None:
        positions = _positions(self._topic, marks)
        if positions:
            try:
                self._consumer.commit(offsets=positions, asynchronous=True)
            except KafkaException as exc:
                log.info("Positions are not noted", extra={"topic": self._topic, "reason": str(exc)})
                return
            for position in positions:
                self._noted_at.setdefault(position.partition, []).append(time.monotonic())

    def is_noting(self, partitions: set[int]) -> bool:
        """The client tries a note again by itself while its request is not answered: for so long it may arrive."""
        latest_s = time.monotonic() - NOTE_LIFE_S
        return any(at_s > latest_s for p in partitions for at_s in self._noted_at.get(p, ()))

    def _note_answered(self, _: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Called from poll, in the order of the notes."""
        for partition in partitions:
            del self._noted_at.get(partition.partition, [])[:1]

    def _forget_notes(self, partitions: list[TopicPartition]) -> None:
        """The group has moved on, and refuses what is on its way."""
        for partition in partitions:
            self._noted_at.pop(partition.partition, None)

    def group_metadata(self) -> object:
        """Taken at commit time: the generation changes with every rebalance, and it is what fences us."""
        return self._consumer.consumer_group_metadata()

    def close(self, timeout_s: float) -> bool:
        return bounded(self._consumer.close, timeout_s)


class TransactionalOutbox:
    """Records and offsets in one transaction. A producer whose transaction is in doubt is thrown away.

    The transaction is opened when everything to publish is at hand, so it lives for milliseconds.
    """

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._timeout_s = settings.commit_timeout_s
        self._producer: Producer | None = None
        self._starting: Producer | None = None
        """One whose first call was not answered yet."""
        self._best_effort = BestEffort(settings)

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        producer = self._ready_producer()
        try:
            producer.begin_transaction()
            delivery_errors = _produce_all(producer, records)
            for inbox, of_inbox in marks:
                self._send_offsets(producer, inbox, of_inbox)
        except Unanswered as exc:
            self._throw_away(exc)
        except (KafkaException, BufferError) as exc:
            self._abort(producer, exc)
        self._commit(producer, delivery_errors)

    def settle(self) -> None:
        """A new producer under the same id ends what the old one left open, in the way that the broker knows of."""
        self._ready_producer()

    def _ready_producer(self) -> Producer:
        if self._producer is None:
            self._starting = self._starting or self._new_producer()
            try:
                self._starting.init_transactions(self._timeout_s)
            except KafkaException as exc:
                self._not_started(exc)
            self._producer, self._starting = self._starting, None
        return self._producer

    def _new_producer(self) -> Producer:
        config = {
            **producer_config(self._settings),
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": int(self._settings.transaction_timeout_s * 1000),
        }
        return Producer(config, logger=_librdkafka_log)

    def _not_started(self, exc: KafkaException) -> NoReturn:
        """The same call can be made again where the client says so; else the next one begins anew."""
        if not exc.args[0].retriable():
            self._starting = None
        _raise_if_fatal(exc, self._transactional_id)
        raise BrokerUnavailable(f"starting transactions of {self._transactional_id}: {exc}") from exc

    def _send_offsets(self, producer: Producer, inbox: Inbox, marks: Marks) -> None:
        assert isinstance(inbox, KafkaInbox)
        positions = _positions(inbox.topic, marks)
        limit_s = min(OFFSETS_S, 1.0 + self._timeout_s)

        def send() -> None:
            group = inbox.group_metadata()
            call = partial(producer.send_offsets_to_transaction, positions, group, limit_s - 1.0)
            _answered(call, limit_s)

        _retrying(send, self._timeout_s)

    def _commit(self, producer: Producer, delivery_errors: list[str]) -> None:
        try:
            _retrying(lambda: producer.commit_transaction(self._timeout_s), self._timeout_s)
        except KafkaException as exc:
            if exc.args[0].txn_requires_abort():
                self._abort(producer, exc)
            self._throw_away(exc)
        if delivery_errors:
            raise AssertionError(f"committed, yet records failed: {delivery_errors}")

    def _abort(self, producer: Producer, cause: BaseException) -> NoReturn:
        """End in PublishAborted when nothing can be visible, in anything else when that is not sure."""
        error = cause.args[0] if isinstance(cause, KafkaException) else None
        if error is not None and (error.fatal() or error.code() in _FENCED):
            self._throw_away(cause)
        try:
            _retrying(lambda: producer.abort_transaction(self._timeout_s), self._timeout_s)
        except KafkaException as exc:
            self._throw_away(exc)
        stale = error is not None and error.code() in _STALE
        raise PublishAborted(str(cause), stale=stale) from cause

    def _throw_away(self, cause: BaseException) -> NoReturn:
        """Trust this producer no more, it may still end what we gave up on. Raises PublishInDoubt, Fenced."""
        self._producer = None
        if isinstance(cause, KafkaException):
            _raise_if_fatal(cause, self._transactional_id)
        log.warning("A transaction is in doubt, the producer is replaced", extra={"reason": str(cause)})
        raise PublishInDoubt(str(cause)) from cause

    def send(self, record: Outgoing) -> bool:
        return self._best_effort.send(record)

    def close(self, timeout_s: float) -> None:
        self._best_effort.close(timeout_s)


class PlainOutbox:
    """For a broker without transactions: records first, offsets after they are confirmed. At least once, no fencing."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._timeout_s = settings.commit_timeout_s
        self._producer = Producer({**producer_config(settings), "enable.idempotence": False}, logger=_librdkafka_log)
        self._best_effort = BestEffort(settings)

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        errors = _produce_all(self._producer, records)
        if self._producer.flush(self._timeout_s) or errors:
            raise BrokerUnavailable(f"records were not confirmed within {self._timeout_s} s: {errors[:1]}")
        for inbox, of_inbox in marks:
            inbox.commit(of_inbox)

    def settle(self) -> None:
        """Without transactions there is nothing to settle."""

    def send(self, record: Outgoing) -> bool:
        return self._best_effort.send(record)

    def close(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)
        self._best_effort.close(timeout_s)


class BestEffort:
    """Progress ticks: a bounded queue that drops the new one when it is full."""

    def __init__(self, settings: KafkaSettings) -> None:
        config = {**producer_config(settings), "queue.buffering.max.messages": 1_000, "message.timeout.ms": 10_000}
        self._producer = Producer({**config, "enable.idempotence": False, "acks": "1"}, logger=_librdkafka_log)

    def send(self, record: Outgoing) -> bool:
        """False when the queue is full: the broker is slow, and a newer tick will come."""
        try:
            self._producer.produce(**_arguments(record))
        except BufferError:
            return False
        finally:
            self._producer.poll(0)
        return True

    def close(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)


class KafkaTail:
    """Reads partitions of one topic by itself: the control topic for its news, the state topic from start to end."""

    def __init__(self, settings: KafkaSettings, topic: str, *, partitions: Sequence[int] | None = None) -> None:
        self._topic = topic
        self._settings = settings
        config = consumer_config(settings, f"{settings.group_prefix}tail")
        # It never joins a group, so the group's own settings must only not contradict each other.
        config.update({"group.protocol": "classic", "session.timeout.ms": 10_000, "max.poll.interval.ms": 300_000})
        config.update({"queued.min.messages": 1_000, "enable.partition.eof": True})
        self._consumer = Consumer(config, logger=_librdkafka_log)
        self._begin_at: float | None = None
        """When to try again to follow a topic whose broker did not answer; None: nothing to begin."""
        if partitions is not None:
            self._consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])

    def partitions(self, timeout_s: float = 10.0) -> list[int]:
        """The partitions that the topic has. Raises Misconfigured when there is no such topic."""
        return partitions_of(self._consumer, self._topic, timeout_s)

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
        if message is None or message.error() is not None:
            return None
        return received(message)

    def read_to_end(self, partition: int, timeout_s: float) -> list[Received]:
        """See `Tail`. The end is the high watermark, so a transaction that is still being settled is waited for."""
        target = TopicPartition(self._topic, partition, OFFSET_BEGINNING)
        deadline = time.monotonic() + timeout_s
        end = self._high_watermark(target, timeout_s)
        self._consumer.assign([target])
        records: list[Received] = []
        while (left := deadline - time.monotonic()) > 0:
            message = self._consumer.poll(min(left, 1.0))
            if message is None:
                continue
            error = message.error()
            if error is None:
                records.append(received(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                log.info("Reading to the end goes on", extra={"topic": self._topic, "reason": error.str()})
            elif (message.offset() or 0) >= end:
                self._consumer.unassign()
                return records
        reached = records[-1].offset + 1 if records else 0
        where = f"{self._topic}[{partition}] was read to {reached} of {end} within {timeout_s:.0f} s"
        raise BrokerUnavailable(f"{where}; if that stays, `whisperx-consumer doctor` looks for what holds it up")

    def _high_watermark(self, target: TopicPartition, timeout_s: float) -> int:
        """The end with what is still undecided: a client that reads committed records is told an earlier one."""
        config = {**client_config(self._settings), "group.id": "none", "isolation.level": "read_uncommitted"}
        asker = Consumer(config, logger=_librdkafka_log)
        try:
            return _high_of(asker, target, time.monotonic() + timeout_s)
        except KafkaException as exc:
            raise BrokerUnavailable(f"asking for the end of {self._topic}[{target.partition}]: {exc}") from exc
        finally:
            bounded(asker.close, 5.0)

    def close(self) -> None:
        bounded(self._consumer.close, 5.0)


def _high_of(asker: Consumer, target: TopicPartition, deadline: float) -> int:
    """A client that has just started may not know the partition, and a new leader not its end: both soon do."""
    while True:
        try:
            _, high = asker.get_watermark_offsets(target, timeout=max(0.1, deadline - time.monotonic()))
        except KafkaException as exc:
            if exc.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise
            asker.poll(0.1)
        else:
            return int(high)


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


def _positions(topic: str, marks: Marks) -> list[TopicPartition]:
    """In librdkafka's form; partitions of which nothing was read yet have no position to store."""
    return [
        TopicPartition(topic, partition, mark.offset, metadata=mark.note)
        for partition, mark in sorted(marks.items())
        if mark.offset is not None
    ]


def _produce_all(producer: Producer, records: Sequence[Outgoing]) -> list[str]:
    """Hand all records to the client; the list fills with delivery errors while the client works."""
    errors: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            errors.append(error.str())

    for record in records:
        while True:
            try:
                producer.produce(**_arguments(record), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
    return errors


def _arguments(record: Outgoing) -> dict[str, Any]:
    arguments: dict[str, Any] = {"topic": record.topic, "key": record.key, "value": record.value}
    if record.headers:
        arguments["headers"] = list(record.headers)
    if record.partition is not None:
        arguments["partition"] = record.partition
    return arguments


class Unanswered(Exception):
    """A call into the client has outlived its own time limit. It may still be running, so its client is lost."""


def _answered(act: Callable[[], object], timeout_s: float) -> None:
    """Run `act`, and leave it behind when it does not come back. Raises what it raises, and Unanswered.

    librdkafka's send_offsets_to_transaction does not keep its limit while the group's coordinator is not found
    (confluentinc/librdkafka#5456); the loop must go on polling.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as exc:  # noqa: BLE001  (handed to the caller's thread, which raises it)
            failures.append(exc)

    if not bounded(run, timeout_s):
        raise Unanswered(f"the client did not come back within {timeout_s:.0f} s")
    if failures:
        raise failures[0]


def _retrying(act: Callable[[], object], timeout_s: float) -> None:
    """Call again while the client says that calling again is right, up to the bound."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            act()
        except KafkaException as exc:
            if not exc.args[0].retriable() or time.monotonic() > deadline:
                raise
        else:
            return


def _raise_if_fatal(exc: KafkaException, who: str) -> None:
    code = exc.args[0].code()
    if code in _FENCED:
        raise Fenced(f"another process uses the transactional id {who}; give each pod its own name") from exc
    if code in _FATAL_FOR_US:
        raise Misconfigured(f"Kafka refuses {who}: {exc}; check user and ACLs") from exc
