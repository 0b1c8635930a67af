"""Look at the dead-letter topic: which events could not be read, why, and what their bytes are."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import total_ordering
from typing import BinaryIO

from consumer.core import dead_letters as headers
from consumer.core.layout import Topic
from consumer.ports import Received
from producer_tools.connection import Connection
from producer_tools.faults import NotFound
from producer_tools.tail import Tail, record_at
from producer_tools.terminal import Terminal, printable


@total_ordering
@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as a list shows it: where it is, why it is there, and where it came from."""

    topic: str
    partition: int
    offset: int
    time: str
    """When it was parked (UTC), as ISO 8601."""
    code: str
    message: str
    original: str
    """Position of the original record: topic[partition]@offset."""

    def __lt__(self, other: DeadLetter) -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[str, int, int]:
        return self.time, self.partition, self.offset

    @classmethod
    def of(cls, record: Received) -> DeadLetter:
        text = {name: value.decode(errors="replace") for name, value in record.headers}
        topic, partition, offset = (text.get(name, "?") for name in (headers.TOPIC, headers.PARTITION, headers.OFFSET))
        return cls(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            time=_iso(record.timestamp_ms),
            code=text.get(headers.CODE, "?"),
            message=text.get(headers.MESSAGE, ""),
            original=f"{topic}[{partition}]@{offset}",
        )

    def line(self) -> str:
        cells = (str(self.partition), str(self.offset), self.time, self.code, self.original, self.message)
        return "\t".join(map(printable, cells))


def list_dead_letters(
    connection: Connection, terminal: Terminal, *, since: datetime, code: str | None, limit: int, as_json: bool
) -> None:
    """Print the newest `limit` of them, the oldest first."""
    topic = connection.topic(Topic.DEAD_LETTERS)
    with Tail.since(connection.settings.kafka, [topic], int(since.timestamp() * 1000)) as tail:
        shown, total = newest(tail.read_to_end(), code, limit)
    for letter in shown:
        terminal.data(json.dumps(asdict(letter)) if as_json else letter.line())
    if total > len(shown):
        terminal.say(f"the newest {len(shown)} of {total}; --limit shows more")
    elif not total:
        terminal.say("no dead letters")
    if shown and not as_json:
        terminal.say("whisperx-jobs dead-letters show PARTITION OFFSET shows one of them whole")


def newest(records: Iterator[Received], code: str | None, limit: int) -> tuple[Sequence[DeadLetter], int]:
    """The newest `limit` in the order of time, and how many there are; memory holds `limit` of them."""
    kept: list[DeadLetter] = []
    total = 0
    for record in records:
        letter = DeadLetter.of(record)
        if code is None or letter.code == code:
            total += 1
            heapq.heappush(kept, letter)
            if len(kept) > limit:
                heapq.heappop(kept)
    return sorted(kept), total


def show_dead_letter(connection: Connection, terminal: Terminal, partition: int, offset: int) -> None:
    """Print headers, key and bytes, escaped."""
    record = _record(connection, partition, offset)
    for name, value in record.headers:
        terminal.data(f"{printable(name)}: {escaped(value)}")
    terminal.data(f"key: {escaped(record.key) if record.key is not None else '(none)'}")
    terminal.data("")
    terminal.data(escaped(record.value) if record.value is not None else "(no value)")


def write_dead_letter(connection: Connection, target: BinaryIO, partition: int, offset: int) -> None:
    """Write the original bytes as they are."""
    target.write(_record(connection, partition, offset).value or b"")
    target.flush()


def _record(connection: Connection, partition: int, offset: int) -> Received:
    topic = connection.topic(Topic.DEAD_LETTERS)
    record = record_at(connection.settings.kafka, topic, partition, offset)
    if record is None:
        raise NotFound(f"{topic} has no record at {partition} {offset}; `whisperx-jobs dead-letters list` shows them")
    return record


def escaped(data: bytes) -> str:
    """Bytes as text that cannot steer a terminal and that says every byte.

    escaped(b'{"a"\\n\\xff') -> '{"a"\\\\n\\\\xff'
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else _escape(byte) for byte in data)


_SHORT = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x5C: "\\\\"}


def _escape(byte: int) -> str:
    return _SHORT.get(byte, f"\\x{byte:02x}")


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
