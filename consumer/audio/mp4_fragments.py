"""A fragmented MP4 in windows, since FFmpeg keeps the index of all that it has read: 36 bytes for each packet.

    the file:   ftyp moov │ moof mdat │ moof mdat │ moof mdat │ moof mdat │ …
    window k:   ftyp moov │ skip ……………………………… │ moof mdat │ moof mdat │ skip …

A window is the file itself, every byte in its place, but for the heads of two boxes that hide what lies before and
behind: what a fragment means is left to FFmpeg. Here fragments are only followed, and held against what a window must
not change. One decoder hears all windows, so there is no seam. From where a file is unusual it is left to FFmpeg, to
its end and with all of its index.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from consumer.audio.mp4_boxes import (
    MAX_COPY_BYTES,
    Box,
    Readable,
    Unusual,
    boxes_in,
    content_of,
    only,
    read_at,
    span,
    table,
    timescale_of,
)
from consumer.audio.mp4_index import FIRST, MAX_TRACKS, OTHERS, SOUND
from consumer.audio.mp4_moof import BETWEEN, MAX_BETWEEN, BreaksOff, Defaults, Fragment, Heads, fragment_at
from consumer.audio.positioned import Positioned

WINDOW_BYTES: Final = 1 << 22
"""After which a window ends. It is gone through twice, for its index and for its sound; the parent has room for it."""
MAX_WINDOWS_IN_ONE: Final = 16
"""How many times its size a window may grow to while there is no place to begin the next one."""
MAX_SILENT: Final = 1 << 16
"""Fragments in a row without sound: 18 hours of a film whose sound has ended, a second each."""

IN_FRONT: Final = (b"ftyp", b"styp", b"free", b"skip", b"pdin", b"moov")
COUNTS: Final = {b"stts": 4, b"stsc": 4, b"stsz": 8, b"stz2": 8, b"stco": 4, b"co64": 4, b"ctts": 4, b"stss": 4}
"""Where in the tables of packets their number stands."""


@dataclass(slots=True)
class Track:
    """A sound track, and how far it was followed."""

    number: int
    """As its fragments name it."""
    timescale: int
    last: int | None = None
    """When the last packet so far begins, in its own time."""
    ticks: int = 0
    """How long all packets so far last."""


@dataclass(slots=True)
class FragmentedMp4:
    """What `in_fragments` found. Windows are made one after the other."""

    size_bytes: int
    at_once: int
    file: Readable
    front: bytes
    """What every window begins with."""
    once: list[tuple[int, bytes]]
    """What further windows have in place of that which goes for the first alone."""
    known: dict[int, Defaults]
    """All tracks, by what fragments name them."""
    tracks: list[Track]
    """Those of sound, in their order."""
    heads: Heads
    at: int
    """Where the file goes on."""
    heard: list[Track] = field(default_factory=list)
    """Those of them that matter."""
    waiting: Fragment | None = None
    """The first one of the next window."""
    packets: int = 0
    """Of the window that is made."""
    is_unusual: bool = False
    """Whether from `at` on the file is left to FFmpeg."""
    cut: str | None = None
    """How the file ends before its time."""
    announced_s: dict[int, float] = field(default_factory=dict)
    """How long an index in front of all fragments says that tracks are, by what fragments name them."""
    duration_s: float = 0.0
    is_exact: bool = False
    """Whether the duration is that of all packets, or a guess from those of the first window."""
    further_track: int = 0
    head_packets: int = 0
    """Packets that are listed in the head, and come before all fragments."""

    def first(self) -> FragmentWindow:
        """All sound tracks, as far as a window goes: FFmpeg chooses among them. Raises Unusual."""
        self.heard = self.tracks
        try:
            self.waiting = self._next()
        except (BreaksOff, struct.error) as exc:
            raise Unusual("not one whole fragment") from exc
        if self.waiting is None:
            raise Unusual("no fragment with sound")
        start = len(self.front) if self.head_packets else self.waiting.start
        window = self._window(start, is_first=True)
        if self.is_unusual:
            raise Unusual("before the end of the first window")
        self.is_exact = self.waiting is None
        ends = self.size_bytes if self.waiting is None else self.waiting.start
        self.duration_s = (self.size_bytes - start) / (ends - start)
        return window

    def choose(self, number: int) -> FragmentedMp4:
        """Further windows mind this track alone."""
        track = self.tracks[number]
        self.heard, self.further_track = [track], number
        self.duration_s *= track.ticks / track.timescale
        return self

    @property
    def has_more(self) -> bool:
        return self.waiting is not None or self.is_unusual

    @property
    def broken_off(self) -> str | None:
        return self.cut or self._missing()

    def _missing(self) -> str | None:
        """More than a second, and more than a hundredth, less than an index says: some fragments are not there."""
        (track,) = self.heard
        followed_s, announced_s = track.ticks / track.timescale, self.announced_s.get(track.number, 0.0)
        if announced_s - followed_s > max(1.0, announced_s / 100):
            return f"{followed_s:.1f} s of {announced_s:.1f} s are there"
        return None

    def following(self) -> FragmentWindow:
        if self.waiting is not None:
            return self._window(self.waiting.start, is_first=False)
        self.is_unusual = False
        self.announced_s.clear()  # how much there is of the rest is not followed
        return self._shown(self.at, self.size_bytes, is_first=False)

    def _window(self, start: int, *, is_first: bool) -> FragmentWindow:
        one = self.waiting
        assert one is not None
        self.packets = one.packets + (self.head_packets if is_first else 0)
        while True:
            end = one.end
            for track in self.heard:
                if (part := one.parts.get(track.number)) is not None:
                    track.last, track.ticks = part.last, track.ticks + part.ticks
            size = max(self.packets / self.at_once, (end - start) / WINDOW_BYTES)
            following = self._next_if_usual()
            if following is None or (size >= 1 and self._goes_on(following)):
                break
            if size >= MAX_WINDOWS_IN_ONE:
                self.at, self.is_unusual, following = following.start, True, None
                break
            one = following
        self.waiting = following
        return self._shown(start, end, is_first=is_first)

    def _goes_on(self, following: Fragment) -> bool:
        """Whether time goes on there: where it goes back, FFmpeg leaves out what it has heard already, but not across
        windows."""
        parts = [(track.last, following.parts.get(track.number)) for track in self.heard]
        return all(last is None or (part is not None and part.first > last) for last, part in parts)

    def _next_if_usual(self) -> Fragment | None:
        try:
            return self._next()
        except BreaksOff as exc:
            self.cut = str(exc)
        except (Unusual, struct.error):
            self.is_unusual = True
        return None

    def _next(self) -> Fragment | None:
        """With sound; None at the end. Raises BreaksOff and Unusual."""
        for _ in range(MAX_SILENT):
            one = fragment_at(self.heads, self.at, self.known)
            if one is None:
                return None
            if one.packets > self.at_once * MAX_WINDOWS_IN_ONE:
                raise Unusual("too many packets in one fragment")
            self.packets += one.packets + 1
            self.at = one.end
            if one.is_cut:
                self.cut = "its last fragment is incomplete"
            if any(track.number in one.parts for track in self.heard):
                return one
        raise Unusual("too many fragments without sound")

    def _shown(self, start: int, end: int, *, is_first: bool) -> FragmentWindow:
        front = bytearray(self.front)
        for at, other in () if is_first else self.once:
            front[at : at + len(other)] = other
        front += _hidden(start - len(front))
        return FragmentWindow(self.file, self.size_bytes, [(0, bytes(front)), (end, _hidden(self.size_bytes - end))])


class FragmentWindow(Positioned):
    """A file object: the file with other bytes in two places."""

    ran_out: Final = False
    """That there are packets behind the end of the file is known from their fragment."""

    def __init__(self, file: Readable, size_bytes: int, other: list[tuple[int, bytes]]) -> None:
        super().__init__(size_bytes)
        self._file = file
        self._other = other

    def read(self, length: int = -1) -> bytes:
        length = self._left(length)
        for start, data in self._other:
            if start <= self._at < start + len(data):
                read = data[self._at - start :][:length]
                break
            if self._at < start:
                length = min(length, start - self._at)
        else:
            self._file.seek(self._at)
            read = self._file.read(length)
        self._at += len(read)
        return read


def _hidden(length: int) -> bytes:
    """The head of a box that nobody looks into; none where nothing or no box is to be hidden."""
    if length < 8:
        return b""
    return struct.pack(">I4s", length, b"skip") if length < 1 << 32 else struct.pack(">I4sQ", 1, b"skip", length)


# ── the head of the file ────────────────────────────────────────────────────────────────────────────────────────────


def in_fragments(file: Readable, size_bytes: int, at_once: int) -> FragmentedMp4 | None:
    """None for a file without fragments, or that is unusual."""
    try:
        return _in_fragments(file, size_bytes, at_once)
    except (Unusual, struct.error):
        return None


def _in_fragments(file: Readable, size_bytes: int, at_once: int) -> FragmentedMp4:
    top = list(boxes_in(file, 0, size_bytes, until=b"moov"))
    moov = top[-1] if top else None
    if moov is None or moov.kind != b"moov" or any(box.kind not in IN_FRONT for box in top):
        raise Unusual("no moov in front of all sound")
    if moov.end > MAX_COPY_BYTES:
        raise Unusual("a long head")
    inner = list(boxes_in(file, moov.start, moov.end))
    extends = list(boxes_in(file, *span(only(inner, b"mvex"))))
    known = dict(_defaults(content_of(file, box)) for box in extends if box.kind == b"trex")
    if any(box.kind == b"cmov" for box in inner):
        raise Unusual("a compressed head")
    heads = [_head(file, box) for box in inner if box.kind == b"trak"]
    tracks = [Track(one.number, one.timescale, ticks=one.ticks) for one in heads if one.is_sound]
    if sorted(one.number for one in heads) != sorted(known) or not 0 < len(tracks) <= MAX_TRACKS:
        raise Unusual("tracks that fragments do not name, or none or too many of sound")
    once = [_skipped(file, box) for box in inner if box.kind in FIRST]
    once += [patch for one in heads for patch in one.once]
    found = FragmentedMp4(
        size_bytes, at_once, file, read_at(file, 0, moov.end), once, known, tracks, Heads(file, size_bytes), moov.end
    )
    found.head_packets = sum(one.packets for one in heads)
    if found.head_packets > at_once * MAX_WINDOWS_IN_ONE:
        raise Unusual("many packets outside of fragments")
    if found.head_packets:
        found.at = _behind_packets(found.heads, moov.end, [one.chunks for one in heads if one.chunks])
    found.announced_s = _announced_s(found.heads, found.at)
    return found


def _skipped(file: Readable, box: Box) -> tuple[int, bytes]:
    """What hides a box."""
    if read_at(file, box.start - 4, 4) != box.kind:
        raise Unusual("a box of the head with a size of 64 bits")
    return box.start - 4, b"skip"


def _announced_s(heads: Heads, at: int) -> dict[int, float]:
    """What the indexes (`sidx`) in front of the first fragment say of their tracks: in a file that was taken from a
    stream in pieces, the only sign of a piece that is not there."""
    found: dict[int, float] = {}
    for _ in range(MAX_BETWEEN):
        box = heads.box(at)
        if box is None or box.kind not in BETWEEN:
            break
        if box.kind == b"sidx" and box.size <= MAX_COPY_BYTES:
            track, length_s = _length_s(heads.read(box.start, box.size))
            found.setdefault(track, length_s)
        at = box.end
    return found


def _length_s(sidx: bytes) -> tuple[int, float]:
    """Of which track, and how long all that it lists lasts."""
    track, timescale = struct.unpack_from(">II", sidx, 4)
    at = 20 if sidx[:1] == b"\0" else 28
    (count,) = struct.unpack_from(">H", sidx, at + 2)
    rows = sidx[at + 4 : at + 4 + 12 * count]
    if timescale == 0 or len(rows) < 12 * count:
        raise Unusual("an index that is none")
    return track, sum(duration for _, duration, _ in struct.iter_unpack(">III", rows)) / timescale


def _defaults(trex: bytes) -> tuple[int, Defaults]:
    _, number, description, duration, size = struct.unpack_from(">IIIII", trex)
    return number, Defaults(description, duration, size)


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of the file says of a track; some writers list the packets of the first seconds there."""

    number: int
    timescale: int
    is_sound: bool
    packets: int
    ticks: int
    chunks: tuple[int, int] | None
    """Where the first and the last of these packets lie, about."""
    once: list[tuple[int, bytes]]
    """What further windows have in its place."""


def _head(file: Readable, trak: Box) -> Head:
    inner = list(boxes_in(file, *span(trak)))
    media = list(boxes_in(file, *span(only(inner, b"mdia"))))
    info = list(boxes_in(file, *span(only(media, b"minf"))))
    samples = list(boxes_in(file, *span(only(info, b"stbl"))))
    handler = content_of(file, only(media, b"hdlr"))[8:12]
    if handler != SOUND and handler not in OTHERS:
        raise Unusual("a track of a kind that we do not know, which may be sound to FFmpeg")
    description = only(samples, b"stsd")
    if handler == SOUND and read_at(file, description.start + 4, 4) != b"\0\0\0\1":
        raise Unusual("several descriptions, which change within the track")
    header = content_of(file, only(inner, b"tkhd"))
    once = [_skipped(file, box) for box in inner if box.kind in FIRST]
    once += [(box.start + COUNTS[box.kind], bytes(4)) for box in samples if box.kind in COUNTS]
    packets, ticks, chunks = _packets_in(file, samples)
    return Head(
        number=struct.unpack_from(">I", header, 20 if header[:1] == b"\1" else 12)[0],
        timescale=timescale_of(content_of(file, only(media, b"mdhd"))),
        is_sound=handler == SOUND,
        packets=packets,
        ticks=ticks,
        chunks=chunks,
        once=once,
    )


def _packets_in(file: Readable, samples: list[Box]) -> tuple[int, int, tuple[int, int] | None]:
    """How many packets the tables of a head list, how long they last, and where the first and the last chunk begin."""
    sizes = [read_at(file, box.start + 8, 4) for box in samples if box.kind in (b"stsz", b"stz2")]
    packets = sum(struct.unpack(">I", count)[0] for count in sizes)
    if packets == 0:
        return 0, 0, None
    ticks = sum(count * duration for count, duration in table(file, only(samples, b"stts"), ">II").rows())
    boxes = [box for box in samples if box.kind in (b"stco", b"co64")]
    offsets = [at for box in boxes for (at,) in table(file, box, ">I" if box.kind == b"stco" else ">Q").rows()]
    if not offsets:
        raise Unusual("packets without a place")
    return packets, ticks, (min(offsets), max(offsets))


def _behind_packets(heads: Heads, at: int, chunks: list[tuple[int, int]]) -> int:
    """Where the file goes on behind the packets of its head, which come next."""
    mdat = heads.box(at)
    if mdat is None or mdat.kind != b"mdat" or mdat.end >= heads.size_bytes:
        raise Unusual("packets of the head that do not come next")
    if any(first < mdat.start or last >= mdat.end for first, last in chunks):
        raise Unusual("packets of the head that lie elsewhere")
    return mdat.end
