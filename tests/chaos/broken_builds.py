"""Builds of the system that are wrong on purpose, and the point between produce and commit where any build can die.

The product has none of this: it is put together here, in the process under test, from the product's own parts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from confluent_kafka import Producer

from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import PlainOutbox, TransactionalOutbox, Undelivered
from consumer.bootstrap import Parts, Role
from consumer.broker import Inbox, Mark, Marks, Outbox, PublishAborted
from consumer.core.layout import Topic
from consumer.errors import BrokerUnavailable
from consumer.ports import Outgoing, Received
from consumer.settings import KafkaSettings


class Sabotage(StrEnum):
    """What is wrong with the build."""

    NONE = "none"
    NO_TRANSACTIONS = "no-transactions"
    """Records first, positions afterwards: the harness must find duplicates."""
    COMMIT_FIRST = "commit-first"
    """A chunk's position moves when the chunk is taken: the harness must find losses."""


class Tear:
    """Armed by a signal: the process dies in the middle of its next publication that somebody would see."""

    def __init__(self) -> None:
        self._armed = threading.Event()

    def arm(self) -> None:
        self._armed.set()

    def strikes(self, records: Sequence[Outgoing]) -> bool:
        return self._armed.is_set() and any(_is_told(record) for record in records)


def _is_told(record: Outgoing) -> bool:
    """An announcement of a result of some kind, as opposed to progress and the work that is sent on."""
    return record.topic.endswith((Topic.PARTIALS, Topic.RESULTS, Topic.JOB_EVENTS, Topic.DEAD_LETTERS))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class TornTransactions(TransactionalOutbox):
    """The product's outbox, with the point."""

    def __init__(self, settings: KafkaSettings, transactional_id: str, tear: Tear) -> None:
        super().__init__(settings, transactional_id)
        self._tear = tear
        self._strikes = False

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        self._strikes = self._tear.strikes(records)
        super().publish(records, [(inbox, _lifted(inbox, of_inbox)) for inbox, of_inbox in marks])

    def _commit(self, producer: Producer, delivery_errors: list[Undelivered]) -> None:
        if self._strikes:
            producer.flush(2.0)
            die()
        super()._commit(producer, delivery_errors)


class TornPlainly(PlainOutbox):
    """Without a transaction nothing holds state and announcements together; here the announcements come first."""

    def __init__(self, settings: KafkaSettings, tear: Tear) -> None:
        super().__init__(settings)
        self._tear = tear

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        states = [record for record in records if record.topic.endswith(Topic.JOB_STATE)]
        super().publish([record for record in records if record not in states], ())
        if self._tear.strikes(records):
            die()
        super().publish(states, marks)


class CommitFirstInbox(KafkaInbox):
    """Commits what it hands out, and never lets a later mark take that back."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        super().__init__(settings, topic, group)
        self._handed_out: dict[int, int] = {}

    def poll(self, timeout_s: float) -> Received | None:
        record = super().poll(timeout_s)
        if record is not None:
            self._handed_out[record.partition] = record.offset + 1
            with contextlib.suppress(PublishAborted, BrokerUnavailable):
                super().commit({record.partition: Mark(record.offset + 1)})
        return record

    def commit(self, marks: Marks) -> None:
        super().commit(self.lifted(marks))

    def note(self, marks: Marks) -> None:
        super().note(self.lifted(marks))

    def lifted(self, marks: Marks) -> Marks:
        return {p: Mark(max(mark.offset or 0, self._handed_out.get(p, 0)) or None) for p, mark in marks.items()}


def _lifted(inbox: Inbox, marks: Marks) -> Marks:
    return inbox.lifted(marks) if isinstance(inbox, CommitFirstInbox) else marks


@dataclass
class ChaosParts(Parts):
    """The product's parts, with the point between produce and commit, and with what is to be wrong."""

    sabotage: Sabotage = Sabotage.NONE
    tear: Tear = field(default_factory=Tear)

    def inbox(self, topic: Topic, role: Role) -> KafkaInbox:
        if self.sabotage is Sabotage.COMMIT_FIRST and role is Role.TRANSCRIBE:
            group = f"{self.settings.kafka.group_prefix}{role.value}.{topic.value}"
            return CommitFirstInbox(self.settings.kafka, self.topic(topic), group)
        return super().inbox(topic, role)

    def outbox(self, role: Role) -> Outbox:
        kafka = self.settings.kafka
        if self.sabotage is Sabotage.NO_TRANSACTIONS:
            return TornPlainly(kafka, self.tear)
        return TornTransactions(kafka, f"{kafka.group_prefix}{role.value}.{self.settings.worker.id}", self.tear)
