"""One fragment of an MP4 after the other, as far as must be known to take them apart: where each ends, what it holds.

What is not plainly understood is Unusual; what ends before its time BreaksOff. Source: ISO/IEC 14496-12, 8.8.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from consumer.audio.mp4_boxes import MAX_BOXES, MAX_COPY_BYTES, Box, Readable, Unusual, read_at

AT_A_TIME_BYTES: Final = 1 << 10
"""Read of a file whose fragments are followed: a moof of 200 packets, or the heads of a few boxes."""
MAX_BETWEEN: Final = 64
"""Boxes side by side that hold no sound."""
MAX_TIME: Final = 1 << 62
ENDLESS: Final = 1 << 63
"""Where a box ends that says that it goes on to the end of the file."""

BETWEEN: Final = (b"styp", b"sidx", b"emsg", b"prft", b"free", b"skip", b"mfra", b"ftyp", b"moov")
"""Beside fragments; a further `moov` means nothing to FFmpeg."""
IN_MOOF: Final = (b"mfhd", b"free", b"skip")
IN_TRAF: Final = (b"free", b"skip", b"sdtp", b"sgpd", b"sbgp", b"subs")

HAS_BASE, HAS_DESCRIPTION, HAS_DURATION, HAS_SIZE, BASE_IS_MOOF = 0x1, 0x2, 0x8, 0x10, 0x20000
"""Flags of tfhd."""
HAS_OFFSET, HAS_FIRST_FLAGS, EACH_DURATION, EACH_SIZE, EACH_FLAGS, EACH_SHIFT = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800
"""Flags of trun."""


class BreaksOff(Exception):
    """The file ends within a fragment, before anything can be heard of it."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What `trex` says of the packets of a track, where their fragment says nothing."""

    description: int
    duration: int
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a fragment holds of a track, in the track's own time."""

    first: int
    """When the first packet begins."""
    last: int
    """When the last one begins."""
    ticks: int
    """How long all of them last."""


@dataclass(frozen=True, slots=True)
class Fragment:
    start: int
    end: int
    """Within the file."""
    parts: dict[int, Part]
    """By the ids of tracks."""
    packets: int
    """Of all tracks."""
    is_cut: bool
    """Whether the file ends before its last packet does."""


class Heads:
    """The file as a row of boxes; only their heads are read, and what is asked for."""

    def __init__(self, file: Readable, size_bytes: int) -> None:
        self._file = file
        self.size_bytes = size_bytes
        self._start = 0
        self._data = b""

    def read(self, start: int, length: int) -> bytes:
        """Raises Unusual where the file ends before."""
        if start < self._start or start + length > self._start + len(self._data):
            left = max(self.size_bytes - start, 0)
            self._data = read_at(self._file, start, max(length, min(AT_A_TIME_BYTES, left)))
            self._start = start
        return self._data[start - self._start : start - self._start + length]

    def box(self, start: int) -> Box | None:
        """The one there, which may end behind the file; None where no box has room."""
        if self.size_bytes - start < 8:
            return None
        size, kind = struct.unpack(">I4s", self.read(start, 8))
        head = 8
        if size == 1:
            if self.size_bytes - start < 16:
                return None
            (size,), head = struct.unpack(">Q", self.read(start + 8, 8)), 16
        elif size == 0:
            return Box(kind, start + 8, ENDLESS)
        if size < head or size >= MAX_TIME:
            raise Unusual("a box without room for its head, or of no honest size")
        return Box(kind, start + head, start + size)


def fragment_at(heads: Heads, at: int, known: dict[int, Defaults]) -> Fragment | None:
    """The next one from there; None at the end of the file. Raises BreaksOff and Unusual."""
    for _ in range(MAX_BETWEEN):
        box = heads.box(at)
        if box is None:
            return None
        if box.kind == b"moof":
            return _fragment(heads, at, box, known)
        if box.kind not in BETWEEN:
            raise Unusual(f"{box.kind!r} between fragments")
        at = box.end
    raise Unusual("too many boxes between fragments")


def _fragment(heads: Heads, at: int, moof: Box, known: dict[int, Defaults]) -> Fragment:
    if moof.size > MAX_COPY_BYTES:
        raise Unusual(f"{moof.size} bytes of moof")
    content = heads.read(moof.start, min(moof.size, heads.size_bytes - moof.start))
    if len(content) < moof.size and _is_cut(content):
        raise BreaksOff("its last fragment is incomplete")
    if len(content) < moof.size:
        raise Unusual("a moof that is longer than the file")
    described = Moof(at, known)
    described.read(content)
    try:
        mdat = _mdat_behind(heads, moof.end)
    except BreaksOff:
        if described.packets:
            raise
        mdat = None
    if described.packets == 0:
        end = moof.end if mdat is None else min(mdat.end, heads.size_bytes)
        return Fragment(at, end, {}, 0, is_cut=False)
    if mdat is None:
        raise Unusual("packets that are not in the box behind their fragment")
    if described.data_start < mdat.start or described.data_end > mdat.end:
        raise Unusual("packets outside of their fragment")
    is_cut = described.data_end > heads.size_bytes
    return Fragment(at, min(mdat.end, heads.size_bytes), described.parts, described.packets, is_cut=is_cut)


def _is_cut(content: bytes) -> bool:
    """Whether what is there of a moof is its first part, and not a moof that claims too much."""
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < 8 or kind not in (b"traf", *IN_MOOF):
            return False
        at += size
    return True


def _mdat_behind(heads: Heads, at: int) -> Box | None:
    """That of the fragment whose moof ends there. Raises BreaksOff where the file ends in between."""
    for _ in range(MAX_BETWEEN):
        box = heads.box(at)
        if box is None:
            raise BreaksOff("its last fragment is incomplete")
        if box.kind == b"mdat":
            return box
        if box.kind not in BETWEEN:
            return None
        at = box.end
    raise Unusual("too many boxes within a fragment")


class Moof:
    """What a moof says of packets: how many, where, and when."""

    def __init__(self, start: int, known: dict[int, Defaults]) -> None:
        self._start = start
        self._known = known
        self._behind = start
        """Of the packets so far, where those begin that do not say where."""
        self.parts: dict[int, Part] = {}
        self.packets = 0
        self.data_start, self.data_end = ENDLESS, 0

    def read(self, content: bytes) -> None:
        for kind, inner in _inner(content):
            if kind == b"traf":
                self._read_traf(list(_inner(inner)))
            elif kind not in IN_MOOF:
                raise Unusual(f"{kind!r} in a fragment")

    def _read_traf(self, boxes: list[tuple[bytes, bytes]]) -> None:
        """The header comes first, then the time, then the packets."""
        if [kind for kind, _ in boxes[:2]] != [b"tfhd", b"tfdt"]:
            raise Unusual("a fragment without a header or a time")
        (_, header), (_, time), *further = boxes
        track, base, defaults = self._header(header)
        (begun,) = struct.unpack_from(">Q" if time[:1] != b"\0" else ">I", time, 4)
        now = begun
        for kind, content in further:
            if kind == b"trun":
                now = self._read_trun(content, track, base, defaults, now)
            elif kind not in IN_TRAF:
                raise Unusual(f"{kind!r} in a fragment")
        if now >= MAX_TIME:
            raise Unusual("a time behind all recordings")

    def _header(self, tfhd: bytes) -> tuple[int, int, Defaults]:
        """The track, where its offsets count from, and what goes for packets that say nothing."""
        flags, track = struct.unpack_from(">II", tfhd)
        defaults = self._known.get(track)
        if defaults is None:
            raise Unusual("a track that is not in the head of the file")
        at, base = 8, self._start if flags & BASE_IS_MOOF else self._behind
        if flags & HAS_BASE:
            (base,), at = struct.unpack_from(">Q", tfhd, at), at + 8
        values = [defaults.description, defaults.duration, defaults.size]
        for number, flag in enumerate((HAS_DESCRIPTION, HAS_DURATION, HAS_SIZE)):
            if flags & flag:
                (values[number],), at = struct.unpack_from(">I", tfhd, at), at + 4
        if values[0] != 1:
            raise Unusual("another description than the first")
        return track, base, Defaults(*values)

    def _read_trun(self, trun: bytes, track: int, base: int, defaults: Defaults, now: int) -> int:
        """When its last packet ends."""
        flags, count = struct.unpack_from(">II", trun)
        at, start = 8, base
        if flags & HAS_OFFSET:
            (offset,) = struct.unpack_from(">i", trun, at)
            at, start = at + 4, base + offset
        at += 4 if flags & HAS_FIRST_FLAGS else 0
        if count == 0:
            return now
        each = [flag for flag in (EACH_DURATION, EACH_SIZE, EACH_FLAGS, EACH_SHIFT) if flags & flag]
        if at + count * 4 * len(each) > len(trun):
            raise Unusual("packets that have no room in their box")
        rows = array("I", trun[at : at + count * 4 * len(each)])
        if sys.byteorder == "little":
            rows.byteswap()
        sizes = rows[each.index(EACH_SIZE) :: len(each)] if flags & EACH_SIZE else None
        if (min(sizes) if sizes else defaults.size) == 0:
            raise Unusual("a packet of no bytes")
        self._behind = start + (sum(sizes) if sizes else count * defaults.size)
        self.data_start, self.data_end = min(self.data_start, start), max(self.data_end, self._behind)
        durations = rows[each.index(EACH_DURATION) :: len(each)] if flags & EACH_DURATION else None
        ticks = sum(durations) if durations else count * defaults.duration
        last = now + ticks - (durations[-1] if durations else defaults.duration)
        before = self.parts.get(track)
        first, ticks_before = (now, 0) if before is None else (before.first, before.ticks)
        self.parts[track] = Part(first, last, ticks_before + ticks)
        self.packets += count
        return now + ticks


def _inner(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and contents of the boxes that a box is made of."""
    at = 0
    for _ in range(MAX_BOXES):
        if at == len(content):
            return
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < 8 or at + size > len(content):
            raise Unusual("a box that is longer than its place")
        yield kind, content[at + 8 : at + size]
        at += size
    raise Unusual("too many boxes")
