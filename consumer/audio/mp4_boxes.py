"""The boxes of an MP4: found, read and made. What does not fit is Unusual. Source: ISO/IEC 14496-12."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

MAX_COPY_BYTES: Final = 1 << 22
"""Of one box that is taken over as it is: what describes the coding, tags. With a cover picture about 1 MB."""
MAX_BOXES: Final = 4_096
BLOCK_BYTES: Final = 1 << 16


class Readable(Protocol):
    def read(self, length: int = -1) -> bytes: ...
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int: ...


class Unusual(Exception):
    """This file is none that we take apart."""


@dataclass(frozen=True, slots=True)
class Box:
    kind: bytes
    start: int
    """Of its content."""
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of fixed length in the file. With `same` all of them are that number, and none is there."""

    file: Readable
    start: int
    count: int
    row: struct.Struct
    same: int = 0

    def read(self, first: int, count: int) -> bytes:
        if self.same:
            return self.row.pack(self.same) * count
        return read_at(self.file, self.start + first * self.row.size, count * self.row.size)

    def rows(self, first: int = 0) -> Iterator[tuple[int, ...]]:
        at_once = BLOCK_BYTES // self.row.size
        for at in range(first, self.count, at_once):
            yield from self.row.iter_unpack(self.read(at, min(at_once, self.count - at)))


def make_table(kind: bytes, count: int, rows: bytes) -> bytes:
    """With version and flags of 0."""
    return make_box(kind, bytes(4), struct.pack(">I", count), rows)


def make_box(kind: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I4s", 8 + len(inner), kind) + inner


def boxes_in(file: Readable, start: int, end: int, until: bytes = b"") -> Iterator[Box]:
    """Those side by side between two places, up to one of the kind `until`."""
    for _ in range(MAX_BOXES):
        if end - start < 8:
            return
        size, kind = struct.unpack(">I4s", read_at(file, start, 8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", read_at(file, start + 8, 8)), 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            raise Unusual("a box that is longer than its place")
        yield Box(kind, start + head, start + size)
        if kind == until:
            return
        start += size
    raise Unusual("too many boxes")


def only(boxes: list[Box], kind: bytes) -> Box:
    found = [box for box in boxes if box.kind == kind]
    if len(found) != 1:
        raise Unusual(f"{len(found)} boxes {kind!r}")
    return found[0]


def span(box: Box) -> tuple[int, int]:
    return box.start, box.end


def content_of(file: Readable, box: Box) -> bytes:
    if box.size > MAX_COPY_BYTES:
        raise Unusual(f"{box.size} bytes of {box.kind!r}")
    return read_at(file, box.start, box.size)


def whole(file: Readable, box: Box) -> bytes:
    return make_box(box.kind, content_of(file, box))


def table(file: Readable, box: Box, row: str) -> Table:
    (count,) = struct.unpack(">I", read_at(file, box.start + 4, 4))
    shape = struct.Struct(row)
    return Table(file, within(box, 8, count * shape.size), count, shape)


def within(box: Box, skip: int, length: int) -> int:
    """Where the rows begin; they end within their box."""
    if skip + length > box.size:
        raise Unusual("a table that is longer than its box")
    return box.start + skip


def timescale_of(header: bytes) -> int:
    """Of `mvhd` and `mdhd`."""
    (timescale,) = struct.unpack_from(">I", header, 20 if header[:1] == b"\1" else 12)
    if timescale == 0:
        raise Unusual("a time that stands")
    return int(timescale)


def duration_of(header: bytes) -> int:
    """Of `mdhd`, in its timescale; without one, more than there is."""
    (duration,) = struct.unpack_from(">Q", header, 24) if header[:1] == b"\1" else struct.unpack_from(">I", header, 16)
    return int(duration) or 1 << 64


def read_at(file: Readable, start: int, length: int) -> bytes:
    """Raises Unusual where the file ends before."""
    file.seek(start)
    parts: list[bytes] = []
    while length > 0:
        part = file.read(length)
        if not part:
            raise Unusual("the file ends within a box")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
