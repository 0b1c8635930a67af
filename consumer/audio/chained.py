"""Chained Ogg: recordings one behind the other in one file, as streaming software and `cat` make them.

FFmpeg goes on by itself into a link that is coded like the one before. One with another rate or number of channels it
does not take ("patches welcome"), so such a link is found here, to be opened as a file of its own.
"""

from __future__ import annotations

from typing import Final, Protocol

HEADER_BYTES: Final = 27
MAX_HEADER_BYTES: Final = HEADER_BYTES + 255
FLAGS, SEGMENTS = 5, 26
"""Places in a page's header. Source: RFC 3533, section 6."""
BEGINS: Final = 0x02
"""Flag of the first page of a stream."""


class Readable(Protocol):
    def read(self, length: int) -> bytes: ...
    def seek(self, offset: int) -> int: ...


def next_link(file: Readable, at: int) -> int | None:
    """Where the first page behind the one at `at` lies that begins a stream; None where no such page follows."""
    is_behind = False
    while (header := _header(file, at)) is not None:
        if is_behind and header[FLAGS] & BEGINS:
            return at
        at += len(header) + sum(header[HEADER_BYTES:])
        is_behind = True
    return None


def _header(file: Readable, at: int) -> bytes | None:
    """The header of the page with the table of its segments' sizes; None where there is no page."""
    file.seek(at)
    data = file.read(MAX_HEADER_BYTES)
    if len(data) < HEADER_BYTES or not data.startswith(b"OggS"):
        return None
    return data[: HEADER_BYTES + data[SEGMENTS]]
