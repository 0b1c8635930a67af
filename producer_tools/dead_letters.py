"""Look at the dead-letter topic: which events could not be read, why, what their bytes are, and what became of them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import BinaryIO

from consumer.core import dead_letters as form
from consumer.core.dead_letters import Position
from consumer.core.layout import Topic
from consumer.ports import Received
from producer_tools.connection import Connection
from producer_tools.faults import NotFound
from producer_tools.letters import DeadLetter, Survey, Wanted, words_of
from producer_tools.tail import record_at
from producer_tools.terminal import Terminal, printable


def list_dead_letters(
    connection: Connection,
    terminal: Terminal,
    *,
    since: datetime,
    code: str | None,
    limit: int,
    as_json: bool,
    resolved: bool = False,
) -> None:
    """Print the newest `limit` of those that are open (with `resolved`: of all), the oldest first."""
    shown, total, settled = _newest_there(connection, Wanted(code=code, since=since), limit, resolved=resolved)
    for letter in shown:
        terminal.data(json.dumps(asdict(letter)) if as_json else letter.line())
    if total > len(shown):
        terminal.say(f"the newest {len(shown)} of {total}; --limit shows more")
    elif not total:
        terminal.say("no dead letters" if resolved else "no open dead letters")
    if settled and not resolved:
        terminal.say(f"{settled} more were redriven or discarded; --all shows them")
    if shown and not as_json:
        terminal.say("whisperx-jobs dead-letters show PARTITION OFFSET shows one of them whole")


def _newest_there(
    connection: Connection, wanted: Wanted, limit: int, *, resolved: bool
) -> tuple[list[DeadLetter], int, int]:
    """The newest of them, how many there are, and how many are settled. Read twice: see Survey."""
    with wanted.tail(connection) as tail:
        survey = Survey.of(tail.read_to_end())
    settled = 0

    def chosen() -> Iterable[DeadLetter]:
        nonlocal settled
        with wanted.tail(connection) as tail:
            for record, resolution in survey.letters(tail.read_to_end()):
                if wanted.fits(record, connection.codec):
                    settled += resolution is not None
                    if resolved or resolution is None:
                        yield DeadLetter.of(record, resolution)

    shown, total = newest(chosen(), limit)
    return shown, total, settled


def newest(letters: Iterable[DeadLetter], limit: int) -> tuple[list[DeadLetter], int]:
    """The newest `limit` in the order of time, and how many there are; memory holds `limit` of them."""
    kept: list[DeadLetter] = []
    total = 0
    for total, letter in enumerate(letters, 1):  # noqa: B007 - the count is what we are after
        heapq.heappush(kept, letter)
        if len(kept) > limit:
            heapq.heappop(kept)
    return sorted(kept), total


def show_dead_letter(connection: Connection, terminal: Terminal, partition: int, offset: int) -> None:
    """Print headers, key, bytes (escaped), and what became of it."""
    wanted = Wanted(position=Position(partition, offset))
    record = _record(connection, partition, offset)
    for name, value in record.headers:
        terminal.data(f"{printable(name)}: {escaped(value) if value is not None else '(none)'}")
    terminal.data(f"key: {escaped(record.key) if record.key is not None else '(none)'}")
    terminal.data("")
    terminal.data(escaped(record.value) if record.value is not None else "(no value)")
    with wanted.tail(connection) as tail:
        resolution = Survey.of(tail.read_to_end()).resolutions.get(Position(partition, offset))
    terminal.say(printable(words_of(resolution)) if resolution else "open: neither redriven nor discarded")


def write_dead_letter(connection: Connection, target: BinaryIO, partition: int, offset: int) -> None:
    """Write the original bytes as they are."""
    target.write(_record(connection, partition, offset).value or b"")
    target.flush()


def _record(connection: Connection, partition: int, offset: int) -> Received:
    topic = connection.topic(Topic.DEAD_LETTERS)
    record = record_at(connection.settings.kafka, topic, partition, offset)
    if record is None or form.is_resolution(record):
        what = "no record" if record is None else f"the resolution of {form.text_of(record, form.RESOLVES)}"
        raise NotFound(
            printable(
                f"{topic} has {what} at {partition} {offset}; `whisperx-jobs dead-letters list` shows the letters"
            )
        )
    return record


def escaped(data: bytes) -> str:
    """Bytes as text that cannot steer a terminal and that says every byte.

    escaped(b'{"a"\\n\\xff') -> '{"a"\\\\n\\\\xff'
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else _escape(byte) for byte in data)


_SHORT = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x5C: "\\\\"}


def _escape(byte: int) -> str:
    return _SHORT.get(byte, f"\\x{byte:02x}")
