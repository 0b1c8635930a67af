"""What a media file is made of, as far as somebody who wants to spoil it must know: its elements and its numbers.

Nothing is taken for granted: these files may be spoiled already. Sources: see `tests.hostile_media`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_PIECES: Final = 2_000
"""A file of ten thousand pages is no better known by all of them."""

MP4_FOLDERS: Final = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"udta", b"edts", b"moof", b"traf", b"mvex", b"rmra")
)
EBML_FOLDERS: Final = frozenset(
    (0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE1, 0x1F43B675, 0x6D80, 0x6240, 0x5034, 0x1254C367, 0x7373, 0x67C8)
)
MOST_DEPTH: Final = 40
MP4_TABLE_BYTES: Final = 96
"""So much of an atom that is no folder is taken for numbers of four bytes."""


@dataclass(frozen=True, slots=True)
class Number:
    """A field that says how much, how many or how long."""

    at: int
    width: int
    big_endian: bool = True
    marker: int = 0
    """A bit that has to stay, for the kind of number that says its own width."""

    def value(self, data: bytes) -> int:
        return int.from_bytes(data[self.at : self.at + self.width], "big" if self.big_endian else "little")

    def written(self, value: int) -> bytes:
        """As much of the value as there is room for."""
        room = (self.marker or 1 << 8 * self.width) - 1
        return (value & room | self.marker).to_bytes(self.width, "big" if self.big_endian else "little")


@dataclass(frozen=True, slots=True)
class Piece:
    """An element from its first byte to behind its last, with the numbers in its head."""

    start: int
    end: int
    numbers: tuple[Number, ...]


def pieces_of(data: bytes) -> list[Piece]:
    """Elements in the order of their starts, folders before what is in them; none where the container is unknown."""
    found = []
    for piece in _walk(data):
        if piece.start < piece.end <= len(data):
            found.append(piece)
        if len(found) == MOST_PIECES:
            break
    return found


def _walk(data: bytes) -> Iterator[Piece]:
    head = data[:4]
    if head in (b"RIFF", b"RF64", b"BW64", b"FORM"):
        yield from _riff(data, 12, len(data), big_endian=head == b"FORM")
    elif head == b"caff":
        yield from _caf(data)
    elif head == b"riff":
        yield from _wave64(data)
    elif data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        yield from _mp4(data, 0, len(data))
    elif head == b"\x1a\x45\xdf\xa3":
        yield from _ebml(data, 0, len(data))
    elif head == b"OggS":
        yield from _ogg(data)
    elif head == b"fLaC":
        yield from _flac(data)
    elif head == b".snd":
        yield Piece(0, min(24, len(data)), _row(4, 24))
    else:
        yield from _frames(data)


def _row(start: int, end: int, width: int = 4, *, big_endian: bool = True) -> tuple[Number, ...]:
    return tuple(Number(at, width, big_endian) for at in range(start, end - width + 1, width))


def _riff(data: bytes, start: int, end: int, *, big_endian: bool, depth: int = 0) -> Iterator[Piece]:
    at = start
    while at + 8 <= end and depth < MOST_DEPTH:
        name, length = data[at : at + 4], Number(at + 4, 4, big_endian)
        body, after = at + 8, min(at + 8 + length.value(data), end)
        numbers: tuple[Number, ...] = (length,)
        if name in (b"fmt ", b"COMM"):
            numbers += _row(body, min(after, body + 18), 2, big_endian=big_endian)
        elif name in (b"ds64", b"fact", b"SSND"):
            numbers += _row(body, min(after, body + 28), big_endian=big_endian)
        yield Piece(at, after, numbers)
        if name == b"LIST":
            yield from _riff(data, body + 4, after, big_endian=big_endian, depth=depth + 1)
        at = after + after % 2


def _caf(data: bytes) -> Iterator[Piece]:
    at = 8
    while at + 12 <= len(data):
        length = Number(at + 4, 8)
        after = min(at + 12 + length.value(data), len(data))
        described = _row(at + 12, min(after, at + 44)) if data[at : at + 4] in (b"desc", b"pakt") else ()
        yield Piece(at, after, (length, *described))
        at = after


def _wave64(data: bytes) -> Iterator[Piece]:
    at = 40
    while at + 24 <= len(data):
        length = Number(at + 16, 8, big_endian=False)
        after = min(at + max(length.value(data), 24), len(data))
        described = _row(at + 24, min(after, at + 42), 2, big_endian=False) if data[at : at + 4] == b"fmt " else ()
        yield Piece(at, after, (length, *described))
        at = after + -after % 8


def _mp4(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Piece]:
    at = start
    while at + 8 <= end and depth < MOST_DEPTH:
        name, length = data[at + 4 : at + 8], Number(at, 4)
        after = min(at + max(length.value(data), 8), end) if length.value(data) else end
        table = () if name in MP4_FOLDERS or name == b"mdat" else _row(at + 8, min(after, at + 8 + MP4_TABLE_BYTES))
        yield Piece(at, after, (length, *table))
        if name in MP4_FOLDERS:
            yield from _mp4(data, at + 8, after, depth + 1)
        at = after


def _ebml(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[Piece]:
    at = start
    while at < end and data[at] and depth < MOST_DEPTH:
        id_width = 9 - data[at].bit_length()
        size_at = at + id_width
        if size_at >= end or not data[size_at]:
            return
        size_width = 9 - data[size_at].bit_length()
        size = Number(size_at, size_width, marker=1 << 7 * size_width)
        body, known = size_at + size_width, size.value(data) & size.marker - 1
        after = end if known == size.marker - 1 else min(body + known, end)
        number = int.from_bytes(data[at:size_at], "big")
        is_small = number not in EBML_FOLDERS and 0 < after - body <= 8
        yield Piece(at, after, (size, Number(body, after - body)) if is_small else (size,))
        if number in EBML_FOLDERS:
            yield from _ebml(data, body, after, depth + 1)
        at = max(after, at + 1)


def _ogg(data: bytes) -> Iterator[Piece]:
    at = data.find(b"OggS")
    while at >= 0:
        after = data.find(b"OggS", at + 4)
        end = after if after > 0 else len(data)
        segments = data[at + 26] if at + 26 < len(data) else 0
        lengths = _row(at + 27, min(at + 27 + segments, end), 1)
        fields = (Number(at + 6, 8, big_endian=False), Number(at + 14, 4, big_endian=False), Number(at + 26, 1))
        yield Piece(at, end, (*fields, Number(at + 5, 1), *lengths))
        at = after


def _flac(data: bytes) -> Iterator[Piece]:
    at, is_last = 4, False
    while not is_last and at + 4 <= len(data):
        length = Number(at + 1, 3)
        after = min(at + 4 + length.value(data), len(data))
        info = (Number(at + 4, 2), Number(at + 6, 2), Number(at + 14, 8)) if data[at] & 0x7F == 0 else ()
        yield Piece(at, after, (Number(at, 1), length, *info))
        at, is_last = after, bool(data[at] & 0x80)
    yield Piece(at, len(data), ())


def _frames(data: bytes) -> Iterator[Piece]:
    """MPEG and ADTS frames, found by their first bits; a tag in front is a piece too."""
    at = data.find(b"\xff")
    if at > 0:
        yield Piece(0, at, _row(4, min(at, 40), 1))
    while at >= 0:
        after = data.find(data[at : at + 2], at + 24)
        yield Piece(at, after if after > 0 else len(data), _row(at, at + 8, 2))
        at = after
