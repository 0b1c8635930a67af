"""The form of a dead letter, and of the record that says what became of it. Both lie on the dead-letter topic.

    dead letter   key, value and headers of the original, and headers of ours that say where from and why
    resolution    same partition and key, no value, headers only: which letter it settles, how, by whom and when

A dead letter is never changed: whoever settles it adds a resolution behind it. A header of the original that is named
as ours are gets FOREIGN before its name, so that what a sender writes cannot pass for what we say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from consumer.events import Problem
from consumer.ports import Headers, Outgoing, Received

OURS = "dead-letter-"
"""What the names of all our headers begin with."""

TOPIC = "dead-letter-topic"
PARTITION = "dead-letter-partition"
OFFSET = "dead-letter-offset"
TIMESTAMP = "dead-letter-timestamp"
"""Kafka timestamp of the original in milliseconds since 1970."""
CODE = "dead-letter-code"
MESSAGE = "dead-letter-message"

REDRIVEN_FROM = "dead-letter-redriven-from"
"""On an original that was sent again: partition@offset of its dead letter."""
REDRIVES = "dead-letter-redrives"
"""How often the original was sent again, this time included."""

RESOLVES = "dead-letter-resolves"
"""On a resolution: partition@offset of the dead letter that it settles."""
RESOLUTION = "dead-letter-resolution"
RESOLVED_BY = "dead-letter-resolved-by"
RESOLVED_AT = "dead-letter-resolved-at"
"""Instant (UTC) as ISO 8601."""

FOREIGN = "dead-letter-foreign-"

MAX_MESSAGE_BYTES = 1024

_OF_REDRIVES = (REDRIVEN_FROM, REDRIVES)
_POSITION = re.compile(r"(\d{1,10})@(\d{1,19})")
_MOST_DIGITS = 6


class How(StrEnum):
    """What became of a dead letter."""

    REDRIVEN = "redriven"
    """Its original was sent again."""
    DISCARDED = "discarded"
    """It needs nothing more."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record lies on the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}@{self.offset}"

    @classmethod
    def of(cls, record: Received) -> Position:
        return cls(record.partition, record.offset)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of the letter at `letter`. `by` and `at` are for people."""

    letter: Position
    how: str
    by: str
    at: str


def dead_letter(topic: str, original: Received, reason: Problem) -> Outgoing:
    """The record to publish on the dead-letter topic; all of our headers are UTF-8 text."""
    ours: Headers = (
        (TOPIC, original.topic.encode()),
        (PARTITION, str(original.partition).encode()),
        (OFFSET, str(original.offset).encode()),
        (TIMESTAMP, str(original.timestamp_ms).encode()),
        (CODE, reason.code.encode()),
        (MESSAGE, _shortened(reason.message)),
    )
    kept = tuple((_kept_name(name), value) for name, value in original.headers)
    return Outgoing(topic=topic, key=original.key, value=original.value, headers=(*kept, *ours))


def redriven(letter: Received) -> Outgoing:
    """The original as it was, for the topic that it came from, and with headers that say so.

    Our headers are no part of it, but for the two that stay with it should it be parked again.
    """
    ours: Headers = (
        (REDRIVEN_FROM, str(Position.of(letter)).encode()),
        (REDRIVES, str(redrives_of(letter) + 1).encode()),
    )
    headers = (*original_headers(letter), *ours)
    return Outgoing(topic=text_of(letter, TOPIC) or "", key=letter.key, value=letter.value, headers=headers)


def resolution(letter: Received, how: How, by: str, at: datetime) -> Outgoing:
    """The record that settles a letter, to publish on the topic of the letter."""
    headers: Headers = (
        (RESOLVES, str(Position.of(letter)).encode()),
        (RESOLUTION, how.value.encode()),
        (RESOLVED_BY, by.encode(errors="replace")),
        (RESOLVED_AT, at.isoformat(timespec="seconds").encode()),
    )
    return Outgoing(letter.topic, letter.key, None, headers, partition=letter.partition)


def is_resolution(record: Received) -> bool:
    """Whether a record of the dead-letter topic settles a letter, and is none itself.

    A dead letter always says where it is from, so no original can pass for a resolution, whatever its headers are.
    """
    return not record.value and text_of(record, RESOLVES) is not None and text_of(record, TOPIC) is None


def resolution_of(record: Received) -> Resolution | None:
    """What a record settles; None for a letter, and for what names no letter before it in its own partition."""
    found = _POSITION.fullmatch(text_of(record, RESOLVES) or "") if is_resolution(record) else None
    letter = Position(int(found[1]), int(found[2])) if found else None
    if letter is None or letter.partition != record.partition or letter.offset >= record.offset:
        return None
    how, by, at = (text_of(record, name) or "?" for name in (RESOLUTION, RESOLVED_BY, RESOLVED_AT))
    return Resolution(letter, how, by, at)


def original_headers(letter: Received) -> Headers:
    """The headers of the original, with the names and in the order that they had."""
    return tuple(
        (name.removeprefix(FOREIGN), value)
        for name, value in letter.headers
        if name.startswith(FOREIGN) or not name.startswith(OURS)
    )


def redrives_of(letter: Received) -> int:
    """How often the original was sent again before; 0 where nothing sensible is said."""
    text = text_of(letter, REDRIVES) or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def text_of(record: Received, name: str) -> str | None:
    """A header as text; the last one of this name, because ours stand behind those of the original."""
    found = next((value for header, value in reversed(record.headers) if header == name), None)
    return None if found is None else found.decode(errors="replace")


def _kept_name(name: str) -> str:
    return FOREIGN + name if name.startswith(OURS) and name not in _OF_REDRIVES else name


def _shortened(message: str) -> bytes:
    """At most MAX_MESSAGE_BYTES, and no character cut in two."""
    return message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore").encode()
