"""Outboxes by Kafka: records and offsets in one transaction, or one after the other for a broker that has none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.adapters.kafka_client import CLIENT_LOG, STALE, bounded, positions_of, producer_config
from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_refusals import AUTHORIZATION, Refusals, away, not_allowed, open_client
from consumer.broker import Inbox, Marks, PublishAborted, PublishInDoubt
from consumer.errors import BrokerUnavailable, Fenced, NotAuthorized
from consumer.ports import Outgoing
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

OFFSETS_S = 6.0
"""How long the offsets of a transaction may take: a few requests, but the client itself does not keep any limit."""
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}


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
        self._refusals = Refusals(settings)

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        producer = self._ready_producer()
        delivery_errors: list[Undelivered] = []
        try:
            producer.begin_transaction()
            _produce_all(producer, records, delivery_errors)
            for inbox, of_inbox in marks:
                self._send_offsets(producer, inbox, of_inbox)
        except Unanswered as exc:
            self._throw_away(exc)
        except (KafkaException, BufferError) as exc:
            self._abort(producer, exc, delivery_errors, marks)
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
            "error_cb": self._refusals,
        }
        return open_client(Producer, config, CLIENT_LOG)

    def _not_started(self, exc: KafkaException) -> NoReturn:
        """The same call can be made again where the client says so; else the next one begins anew."""
        producer, error = self._starting, exc.args[0]
        if not error.retriable():
            self._starting = None
        _raise_if_fenced(exc, self._transactional_id)
        if error.code() in AUTHORIZATION:
            raise not_allowed("Write", "transactional id", self._transactional_id) from exc
        raise away(f"starting transactions of {self._transactional_id}", exc, producer, self._refusals) from exc

    def _send_offsets(self, producer: Producer, inbox: Inbox, marks: Marks) -> None:
        assert isinstance(inbox, KafkaInbox)
        positions = positions_of(inbox.topic, marks)
        limit_s = min(OFFSETS_S, 1.0 + self._timeout_s)

        def send() -> None:
            group = inbox.group_metadata()
            call = partial(producer.send_offsets_to_transaction, positions, group, limit_s - 1.0)
            _answered(call, limit_s)

        _retrying(send, self._timeout_s)

    def _commit(self, producer: Producer, delivery_errors: list[Undelivered]) -> None:
        try:
            _retrying(lambda: producer.commit_transaction(self._timeout_s), self._timeout_s)
        except KafkaException as exc:
            if exc.args[0].txn_requires_abort():
                self._abort(producer, exc, delivery_errors, ())
            self._throw_away(exc)
        if delivery_errors:
            raise AssertionError(f"committed, yet records failed: {delivery_errors}")

    def _abort(
        self,
        producer: Producer,
        cause: BaseException,
        undelivered: Sequence[Undelivered],
        marks: Sequence[tuple[Inbox, Marks]],
    ) -> NoReturn:
        """End in PublishAborted or the refusal when nothing can be visible, in anything else when that is not sure."""
        error = cause.args[0] if isinstance(cause, KafkaException) else None
        if error is not None and (error.fatal() or error.code() in _FENCED):
            self._throw_away(cause)
        try:
            _retrying(lambda: producer.abort_transaction(self._timeout_s), self._timeout_s)
        except KafkaException as exc:
            self._throw_away(exc)
        if refusal := _refusal_of(cause, undelivered, marks):
            raise refusal from cause
        stale = error is not None and error.code() in STALE
        raise PublishAborted(str(cause), stale=stale) from cause

    def _throw_away(self, cause: BaseException) -> NoReturn:
        """Trust this producer no more, it may still end what we gave up on. Raises PublishInDoubt, Fenced."""
        self._producer = None
        if isinstance(cause, KafkaException):
            _raise_if_fenced(cause, self._transactional_id)
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
        self._producer = open_client(Producer, {**producer_config(settings), "enable.idempotence": False}, CLIENT_LOG)
        self._best_effort = BestEffort(settings)

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        errors: list[Undelivered] = []
        _produce_all(self._producer, records, errors)
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
        self._producer = open_client(Producer, {**config, "enable.idempotence": False, "acks": "1"}, CLIENT_LOG)

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


Undelivered = tuple[KafkaError, str]
"""Why a record did not arrive, and its topic."""


def _produce_all(producer: Producer, records: Sequence[Outgoing], errors: list[Undelivered]) -> None:
    """Hand all records to the client; the list fills while the client works."""

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            errors.append((error, message.topic() or ""))

    for record in records:
        while True:
            try:
                producer.produce(**_arguments(record), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)


def _refusal_of(
    cause: BaseException, undelivered: Sequence[Undelivered], marks: Sequence[tuple[Inbox, Marks]]
) -> NotAuthorized | None:
    """The right that is missing, if that is why a transaction could not go on; the brokers name no resource."""
    for error, topic in undelivered:
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return not_allowed("Write", "topic", topic)
    code = cause.args[0].code() if isinstance(cause, KafkaException) else None
    inboxes = [inbox for inbox, _ in marks if isinstance(inbox, KafkaInbox)]
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return not_allowed("Read", "group", ", ".join(inbox.group for inbox in inboxes))
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:  # a position is stored for who may read the topic
        return not_allowed("Read", "topic", ", ".join(inbox.topic for inbox in inboxes))
    return None


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


def _raise_if_fenced(exc: KafkaException, who: str) -> None:
    if exc.args[0].code() in _FENCED:
        raise Fenced(
            f"the transactional id {who} has a newer owner: this process was stopped in mid-transaction for longer "
            "than kafka.transaction_timeout_s, or another one has its name; if it repeats, give each pod its own"
        ) from exc
