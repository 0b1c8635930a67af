"""Dead letters as the tools see them: how one is shown, which ones are meant, what became of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import total_ordering

import pydantic_core

from consumer.contracts import EVENTS
from consumer.core import dead_letters as form
from consumer.core.dead_letters import Position, Resolution
from consumer.core.identity import job_id_from_idempotency_key
from consumer.core.layout import Topic
from consumer.errors import Rejected
from consumer.events import JOB_ID_PATTERN
from consumer.ports import Received
from consumer.wire import Codec
from producer_tools.connection import Connection
from producer_tools.faults import WrongUsage
from producer_tools.instants import instant_from
from producer_tools.tail import FROM_THE_START_MS, Tail
from producer_tools.terminal import printable


@total_ordering
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as a list shows it: where it is, why it is there, where it came from and what became of it."""

    topic: str
    partition: int
    offset: int
    time: str
    """When it was parked (UTC), as ISO 8601."""
    code: str
    message: str
    original: str
    """Position of the original record: topic[partition]@offset."""
    redrives: int = 0
    """How often the original had been sent again before it was parked here."""
    resolution: str = ""
    """'redriven by ann at 2024-05-01T12:00:00+00:00'; empty while it is open."""

    def __lt__(self, other: DeadLetter) -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[str, int, int]:
        return self.time, self.partition, self.offset

    @classmethod
    def of(cls, record: Received, resolution: Resolution | None = None) -> DeadLetter:
        topic, partition, offset, code = (
            form.text_of(record, name) or "?" for name in (form.TOPIC, form.PARTITION, form.OFFSET, form.CODE)
        )
        return cls(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            time=iso(record.timestamp_ms),
            code=code,
            message=form.text_of(record, form.MESSAGE) or "",
            original=f"{topic}[{partition}]@{offset}",
            redrives=form.redrives_of(record),
            resolution="" if resolution is None else words_of(resolution),
        )

    def line(self) -> str:
        cells = (str(self.partition), str(self.offset), self.time, self.code, self.original, self.message)
        return "\t".join(map(printable, (*cells, str(self.redrives), self.resolution)))


def words_of(resolution: Resolution) -> str:
    return f"{resolution.how} by {resolution.by} at {resolution.at}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: those that every condition fits."""

    code: str | None = None
    job_id: str | None = None
    topic: str | None = None
    """The topic that the original was on, with its prefix."""
    since: datetime | None = None
    until: datetime | None = None
    position: Position | None = None

    @property
    def everything(self) -> bool:
        return self == Wanted()

    def fits(self, letter: Received, codec: Callable[[], Codec]) -> bool:
        """`codec` is asked for only where the bytes have to be read. Raises RegistryUnavailable."""
        return (
            self._fits_place(letter)
            and self.code in (None, form.text_of(letter, form.CODE))
            and self.topic in (None, form.text_of(letter, form.TOPIC))
            and (self.job_id is None or self.job_id in job_ids_of(letter, codec()))
        )

    def _fits_place(self, letter: Received) -> bool:
        at_ms = letter.timestamp_ms
        return (
            self.position in (None, Position.of(letter))
            and (self.since is None or at_ms >= _ms(self.since))
            and (self.until is None or at_ms < _ms(self.until))
        )

    def tail(self, connection: Connection) -> Tail:
        """A reader that meets all of them, and what was said of them later. Raises as Tail does."""
        kafka, topic = connection.settings.kafka, connection.topic(Topic.DEAD_LETTERS)
        if self.position is not None:
            return Tail.at(kafka, topic, self.position.partition, self.position.offset)
        return Tail.since(kafka, [topic], FROM_THE_START_MS if self.since is None else _ms(self.since))


def wanted_from(arguments: argparse.Namespace, connection: Connection, now: datetime) -> Wanted:
    """Raises WrongUsage."""
    partition, offset = arguments.partition, arguments.offset
    if partition is not None and offset is None:
        raise WrongUsage("a letter is named by PARTITION and OFFSET; `whisperx-jobs dead-letters list` shows both")
    return Wanted(
        code=arguments.code,
        job_id=arguments.job,
        topic=None if arguments.topic is None else _full(arguments.topic, connection),
        since=instant_from(arguments.since, now, ahead=False) if arguments.since else None,
        until=instant_from(arguments.until, now, ahead=False) if arguments.until else None,
        position=None if partition is None else Position(partition, offset),
    )


def _full(topic: str, connection: Connection) -> str:
    """With the prefix, which may be left out: jobs -> transcription.jobs."""
    return connection.topic(Topic(topic)) if topic in set(Topic) else topic


@dataclass(frozen=True, slots=True)
class Survey:
    """What was there when we looked. The letters themselves are read again: they can be many, and large."""

    resolutions: Mapping[Position, Resolution]
    ends: Mapping[int, int]
    """Partition → the offset behind the last record."""

    @classmethod
    def of(cls, records: Iterable[Received]) -> Survey:
        resolutions: dict[Position, Resolution] = {}
        ends: dict[int, int] = {}
        for record in records:
            ends[record.partition] = record.offset + 1
            found = form.resolution_of(record)
            if found is not None:
                resolutions.setdefault(found.letter, found)
        return cls(resolutions, ends)

    def letters(self, records: Iterable[Received]) -> Iterator[tuple[Received, Resolution | None]]:
        """The letters that were there then, each with what became of it; later ones are for another time."""
        for record in records:
            if record.offset < self.ends.get(record.partition, 0) and not form.is_resolution(record):
                yield record, self.resolutions.get(Position.of(record))


def job_ids_of(letter: Received, codec: Codec) -> set[str]:
    """The job ids that can be read: from the event, from a JSON object that is none, from the key."""
    found = {_from_event(letter, codec), _from_json(letter.value or b""), (letter.key or b"").decode(errors="replace")}
    return {one for one in found if one and re.fullmatch(JOB_ID_PATTERN, one)}


def _from_event(letter: Received, codec: Codec) -> str | None:
    """From an event of ours, whatever topic it was on."""
    original = Received(letter.topic, 0, 0, letter.key, letter.value, form.original_headers(letter))
    try:
        return _job_id_in(codec.decode(original, EVENTS).model_dump())
    except Rejected:
        return None


def _from_json(value: bytes) -> str | None:
    """From an object, or from the data of a CloudEvent."""
    try:
        found = pydantic_core.from_json(value)
    except ValueError:
        return None
    inner = found.get("data") if isinstance(found, dict) else None
    return _job_id_in(found | inner if isinstance(inner, dict) else found) if isinstance(found, dict) else None


def _job_id_in(fields: Mapping[str, object]) -> str | None:
    job_id, key = fields.get("job_id"), fields.get("idempotency_key")
    if isinstance(job_id, str):
        return job_id
    return job_id_from_idempotency_key(key) if isinstance(key, str) else None


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
