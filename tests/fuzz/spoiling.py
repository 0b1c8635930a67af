"""Ways to spoil bytes. Each takes the randomness, the bytes and others to take from, and gives other bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from tests.fuzz.pieces import Number, Piece, pieces_of
from tests.hostile_media import with_checksum

MOST_BYTES: Final = 1 << 20
"""Longer ones are cut: what harm a file can do, it can do in a megabyte."""

HEAD_BYTES: Final = 512
REPEATED_BYTES: Final = 1 << 18
OGG_HEAD_BYTES: Final = 26
"""Of a page, up to the end of its checksum."""

Spoil = Callable[[Random, bytes, Sequence[bytes]], bytes]


def spoiled(r: Random, data: bytes, others: Sequence[bytes], ways: Sequence[Spoil]) -> tuple[bytes, tuple[str, ...]]:
    """The bytes after one to four of the ways, and the names of these."""
    chosen = [r.choice(ways) for _ in range(r.choice((1, 1, 1, 2, 2, 3, 4)))]
    for way in chosen:
        data = way(r, data, others)[:MOST_BYTES]
    return data, tuple(way.__name__ for way in chosen)


def flip_bits(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 4, 16, 64)) if out else 0):
        out[_place(r, len(out))] ^= 1 << r.randrange(8)
    return bytes(out)


def cut(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Its end, rarely its beginning, or a part of it is missing."""
    first, second = sorted((_place(r, len(data)), r.randrange(len(data) + 1)))
    return r.choice((data[:second], data[:second], data[:first], data[first:], data[:first] + data[second:]))


def fill(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = _place(r, len(data))
    length = min(r.choice((1, 2, 4, 8, 64, 1024, 65_536)), len(data) - at)
    what = r.choice((bytes(length), b"\xff" * length, r.randbytes(length), b"\x80" * length, b"%s%n" * (length // 4)))
    return data[:at] + what + data[at + length :]


def splice(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The beginning of one with the end of another, or a part of another in its middle."""
    other = r.choice(others)
    at, from_ = _place(r, len(data)), _place(r, len(other))
    part = other[from_ : from_ + r.choice((16, 256, 4_096, 65_536))]
    return r.choice(
        (data[:at] + other[from_:], data[:at] + part + data[at:], data[:at] + part + data[at + len(part) :])
    )


def lie(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Numbers of its head, or any others, say something else: huge, negative, one more, one less."""
    known = [number for piece in pieces_of(data) for number in piece.numbers]
    for _ in range(r.choice((1, 1, 2, 4))):
        if not data:
            break
        number = r.choice(known) if known and r.random() < 0.8 else _any_number(r, len(data))
        data = data[: number.at] + number.written(_odd_value(r, number, data)) + data[number.at + number.width :]
    return data


def remove_piece(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    piece = _piece(r, data)
    return data[: piece.start] + data[piece.end :]


def repeat_piece(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Once more, or until there is a lot of it."""
    piece = _piece(r, data)
    one = data[piece.start : piece.end]
    times = min(r.choice((1, 1, 2, 30, 1_000, 30_000)), REPEATED_BYTES // max(len(one), 1) + 1)
    return data[: piece.start] + one * times + data[piece.start :]


def move_piece(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    piece, to = _piece(r, data), _piece(r, data).start
    one, rest = data[piece.start : piece.end], data[: piece.start] + data[piece.end :]
    return rest[:to] + one + rest[to:]


def nest_piece(r: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A piece takes the place of another one, which may be the folder that it is in, or a piece of a piece."""
    piece, place = _piece(r, data), _piece(r, data)
    return data[: place.start] + data[piece.start : piece.end] + data[place.end :]


RECORDING_WAYS: Final[tuple[Spoil, ...]] = (
    flip_bits, cut, fill, splice, lie, lie, lie, remove_piece, repeat_piece, move_piece, nest_piece,
)  # fmt: skip
EVENT_WAYS: Final[tuple[Spoil, ...]] = (flip_bits, cut, fill, splice)


def with_true_checksums(data: bytes) -> bytes:
    """The pages of an Ogg file with the checksums that they ought to have: else nothing behind them is looked at."""
    if data[:4] != b"OggS":
        return data
    out = bytearray(data)
    for piece in pieces_of(data):
        if piece.end - piece.start >= OGG_HEAD_BYTES:
            out[piece.start : piece.end] = with_checksum(data[piece.start : piece.end])
    return bytes(out)


def _place(r: Random, length: int) -> int:
    """Most of what decides stands in the first bytes."""
    return r.randrange(max(min(length, HEAD_BYTES) if r.random() < 0.6 else length, 1))


def _piece(r: Random, data: bytes) -> Piece:
    """One of its elements; where none is known, any part."""
    known = pieces_of(data)
    if known:
        return r.choice(known)
    start = _place(r, len(data))
    return Piece(start, min(start + r.choice((1, 16, 256, 4_096)), len(data)), ())


def _any_number(r: Random, length: int) -> Number:
    width = r.choice((1, 2, 4, 8))
    return Number(min(_place(r, length), max(length - width, 0)), width, r.random() < 0.5)


def _odd_value(r: Random, number: Number, data: bytes) -> int:
    bits, now, size = 8 * number.width, number.value(data), len(data)
    return r.choice(
        (0, 1, 2, (1 << bits) - 1, (1 << bits) - 2, 1 << bits - 1, (1 << bits - 1) - 1, r.getrandbits(bits),
         size, size + 1, max(size - 1, 0), now + 1, max(now - 1, 0), now * 2, now // 2, 1 << r.randrange(bits))
    )  # fmt: skip
