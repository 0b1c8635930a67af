"""An inbox by Kafka: one topic read in one group."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.kafka_client import (
    CLIENT_LOG,
    REQUEST_TIMEOUT_S,
    STALE,
    bounded,
    consumer_config,
    positions_of,
    received,
)
from consumer.adapters.kafka_positions import Unplaced
from consumer.adapters.kafka_refusals import AUTHORIZATION, Refusals, not_allowed, open_client
from consumer.broker import Mark, Marks, PublishAborted, Rebalance
from consumer.errors import BrokenWorker, BrokerUnavailable, MissingTopic, NotAuthorized
from consumer.ports import Received
from consumer.settings import KafkaSettings

log = logging.getLogger(__name__)

ANSWER_S = 1.0
"""For the question whether the broker is there at all."""
NOTE_LIFE_S = 3 * REQUEST_TIMEOUT_S
"""After that a note was given up, if its answer did not come: sent, and tried again twice."""


class KafkaInbox:
    """One topic read in one group."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self._topic = topic
        self._timeout_s = settings.commit_timeout_s
        self._group = group
        self._refusals = Refusals(settings)
        own = {"on_commit": self._note_answered, "error_cb": self._refusals}
        self._consumer = open_client(Consumer, {**consumer_config(settings, group), **own}, CLIENT_LOG)
        self._noted_at: dict[int, list[float]] = {}
        """When notes were sent that were not answered yet, by partition."""
        self._starts: dict[int, int] = {}
        """Where partitions that were not read yet begin, as far as somebody asked."""
        self._rebalance = Rebalance(lambda _: None, lambda _: None, lambda _: None)
        self._settings = settings
        self._unplaced = Unplaced(self._asked_aside)

    @property
    def topic(self) -> str:
        return self._topic

    def open(self, rebalance: Rebalance) -> None:
        self._rebalance = rebalance
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They begin where the group says. Until it does, they are held still at a place that nobody reads from."""
        new = {p.partition for p in partitions}
        try:
            marks = self._asked(self._consumer, new, min(ANSWER_S, self._timeout_s)) if new else {}
        except BrokerUnavailable as error:
            extra = {"topic": self._topic, "partitions": sorted(new), "reason": error.message}
            log.info("The group does not tell yet where partitions begin", extra=extra)
            consumer.incremental_assign([TopicPartition(self._topic, p, 0) for p in sorted(new)])
            self.pause(new)
            self._unplaced.add(new, error)
            return
        consumer.incremental_assign([TopicPartition(self._topic, p, _start(marks[p])) for p in sorted(new)])
        self._rebalance.assigned(marks)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._gone(partitions, self._rebalance.revoked)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._gone(partitions, self._rebalance.lost)

    def _gone(self, partitions: list[TopicPartition], tell: Callable[[set[int]], None]) -> None:
        gone = {p.partition for p in partitions}
        self._unplaced.drop(gone)
        tell(gone)
        self._forget_notes(gone)

    def _place(self) -> None:
        """Hand over those of whose position the group has told by now."""
        marks = self._unplaced.told()
        for partition, mark in marks.items():
            self.seek(partition, _start(mark))
        if marks:
            self._unplaced.drop(set(marks))
            self._rebalance.assigned(marks)

    @property
    def awaits_positions(self) -> bool:
        return bool(self._unplaced)

    def poll(self, timeout_s: float) -> Received | None:
        if self._unplaced:
            self._place()
        message = self._consumer.poll(timeout_s)
        if message is None:
            self._raise_if_refused()
            return None
        error = message.error()
        if error is not None:
            self._poll_error(error)
            return None
        return received(message)

    def _raise_if_refused(self) -> None:
        """Unless another broker answers: then work goes on, and the client tries this one again."""
        refusal = self._refusals.take()
        if refusal is not None and not self.is_answered():
            raise refusal

    def _not_allowed(self, error: KafkaError) -> NotAuthorized:
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return not_allowed("Read", "group", self._group)
        return not_allowed("Read", "topic", self._topic)

    def _poll_error(self, error: KafkaError) -> None:
        """Say what it is: nothing (a rebalance will tell), a broker that is away, or a setting that cannot work."""
        code = error.code()
        if error.fatal() or code == KafkaError._FATAL:  # what it is about is only in its words
            lacking = "Group authorization failed" in error.str()
            todo = f"; {not_allowed('Read', 'group', self._group).message}" if lacking else ""
            raise BrokenWorker(f"the client of {self._topic} cannot go on: {error.str()}{todo}")
        if code in (KafkaError._PARTITION_EOF, KafkaError._MAX_POLL_EXCEEDED, *STALE):
            log.info("The group has moved on", extra={"topic": self._topic, "reason": error.str()})
            return
        if code in AUTHORIZATION:
            raise self._not_allowed(error)
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
        return self._asked(self._consumer, partitions, self._timeout_s)

    def _asked_aside(self, partitions: set[int]) -> dict[int, Mark]:
        """By a client of its own: while a question is on its way, its client cannot poll (confluent-kafka 2.16.1)."""
        asker = open_client(Consumer, consumer_config(self._settings, self._group), CLIENT_LOG)
        try:
            return self._asked(asker, partitions, self._timeout_s)
        finally:
            bounded(asker.close, REQUEST_TIMEOUT_S)

    def _asked(self, client: Consumer, partitions: set[int], timeout_s: float) -> dict[int, Mark]:
        asked = [TopicPartition(self._topic, p) for p in sorted(partitions)]
        try:
            found = client.committed(asked, timeout=timeout_s)
        except KafkaException as exc:
            raise self._not_told(exc.args[0]) from exc
        for error in (p.error for p in found):
            if error is not None:
                raise self._not_told(error)
        self._starts.update({p.partition: max(0, p.offset) for p in found})
        return {p.partition: Mark(p.offset if p.offset >= 0 else None, p.metadata or "") for p in found}

    def _not_told(self, error: KafkaError) -> BrokerUnavailable:
        if error.code() in AUTHORIZATION:
            return self._not_allowed(error)
        return BrokerUnavailable(f"asking for committed offsets of {self._topic}: {error.str()}")

    def commit(self, marks: Marks) -> None:
        positions = positions_of(self._topic, marks)
        if not positions:
            return
        try:
            self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as exc:
            code = exc.args[0].code()
            if code in STALE:
                raise PublishAborted(str(exc), stale=True) from exc
            if code in AUTHORIZATION:
                raise self._not_allowed(exc.args[0]) from exc
            raise BrokerUnavailable(f"committing offsets of {self._topic}: {exc}") from exc

    def note(self, marks: Marks) -> None:
        positions = positions_of(self._topic, marks)
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

    def _forget_notes(self, partitions: set[int]) -> None:
        """The group has moved on, and refuses what is on its way."""
        for partition in partitions:
            self._noted_at.pop(partition, None)

    @property
    def group(self) -> str:
        return self._group

    def group_metadata(self) -> object:
        """Taken at commit time: the generation changes with every rebalance, and it is what fences us."""
        return self._consumer.consumer_group_metadata()

    def close(self, timeout_s: float) -> bool:
        return bounded(self._consumer.close, timeout_s)


def _start(mark: Mark) -> int:
    return OFFSET_BEGINNING if mark.offset is None else mark.offset
