"""Attempt marks: a note beside the committed offset that counts how often an event has been begun.

It outlives the process, so an event that kills its worker is recognised by the next one. The note is cleared when
the event is finished or given back in good order.
"""

from __future__ import annotations

from collections.abc import Mapping

MAX_NOTE_BYTES = 4096  # what a broker keeps by default (offset.metadata.max.bytes)


def write_note(attempts: Mapping[int, int]) -> str:
    """write_note({17: 2, 18: 1}) -> '17:2 18:1'"""
    note = " ".join(f"{offset}:{count}" for offset, count in sorted(attempts.items()))
    return note if len(note) <= MAX_NOTE_BYTES else ""


def read_note(note: str) -> dict[int, int]:
    """The inverse of `write_note`; a note that somebody else wrote reads as empty.

    read_note("17:2 18:1") -> {17: 2, 18: 1}
    """
    try:
        return {int(offset): int(count) for offset, count in (pair.split(":") for pair in note.split())}
    except ValueError:
        return {}
