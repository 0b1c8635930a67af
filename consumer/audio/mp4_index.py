"""A long MP4 or M4A as a row of short ones, since FFmpeg holds the whole index of a file: 69 bytes for each packet.

    the file:   ftyp │ mdat …………………………………… │ moov (tables of all packets)
    window k:   ftyp │ moov (tables of packets k·n to (k+1)·n) │ mdat: the file, shifted

Only the tables are rewritten, a window at a time, and read where they lie; packets and what describes them are the
file's own. One decoder hears all windows, so there is no seam. What is unusual (fragments, several edits, tables that
contradict each other) is left to FFmpeg, index and all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from consumer.audio.mp4_boxes import (
    Box,
    Readable,
    Table,
    Unusual,
    boxes_in,
    content_of,
    duration_of,
    make_box,
    make_table,
    only,
    read_at,
    span,
    table,
    timescale_of,
    whole,
    within,
)
from consumer.audio.positioned import Positioned

MAX_TRACKS: Final = 64
MAX_RUNS: Final = 1 << 22
"""Entries of a table that is walked through once before it is believed; 43 hours have 155 thousand chunks."""
MAX_OFFSET: Final = 1 << 62
MDAT_HEADER_BYTES: Final = 16

SOUND: Final = b"soun"
OTHERS: Final = (b"vide", b"text", b"sbtl", b"subt", b"subp", b"clcp", b"tmcd", b"hint", b"meta", b"odsm", b"sdsm")
REWRITTEN: Final = (b"stts", b"stsc", b"stsz", b"stco", b"co64")
WITHOUT_EFFECT: Final = (b"sgpd", b"sbgp", b"subs", b"sdtp", b"cslg")
"""Of no matter to sound, and numbered by packets."""
FIRST: Final = (b"edts", b"udta", b"meta")
"""May tell how much of the first packets is no sound: for the first window only. (Those of the whole file come before
the track in further windows, where they say nothing of it.)"""


@dataclass(slots=True)
class Track:
    """A sound track: its boxes, its tables, and how far windows have been made of it."""

    described: dict[bytes, bytes]
    """Its boxes that are taken over, by kind."""
    times: Table
    chunks: Table
    offsets: Table
    sizes: Table
    timescale: int
    packets: int
    start: int
    """Where its edit begins, in its own time; 0 without one."""
    end: int
    """Where it ends: that of the edit, of the last packet, or of the track as it says, whichever comes first."""
    at: int = 0
    """The first packet of the next window."""
    chunk: int = 0
    chunk_packet: int = 0
    """How many packets of that chunk lie before."""
    chunk_bytes: int = 0
    """And how many bytes."""
    chunk_run: int = 0
    time_run: int = 0
    time_used: int = 0

    is_exact: ClassVar = True

    @property
    def duration_s(self) -> float:
        return max(self.end - self.start, 0) / self.timescale


@dataclass(slots=True)
class LongMp4:
    """What `taken_apart` found. Windows are made one after the other."""

    file: Readable
    size_bytes: int
    ftyp: bytes
    boxes: list[bytes | Track]
    """Of the moov box, in their order."""
    at_once: int
    chosen: Track | None = None
    further_track: ClassVar = 0
    """Which one that is among those of further windows."""
    broken_off: ClassVar = None
    """Where the file ends, FFmpeg notices."""

    @property
    def tracks(self) -> list[Track]:
        return [one for one in self.boxes if isinstance(one, Track)]

    def first(self) -> Window:
        """All sound tracks, each as far as a window goes: FFmpeg chooses among them. Raises Unusual."""
        return self._window([one if isinstance(one, bytes) else self._next(one, first=True) for one in self.boxes])

    def choose(self, number: int) -> Track:
        """Further windows have this track alone."""
        self.chosen = self.tracks[number]
        return self.chosen

    @property
    def has_more(self) -> bool:
        """Whether there is a further window, some of which lies within the file."""
        track = self.chosen
        if track is None or track.at >= track.packets:
            return False
        (offset,) = track.offsets.row.unpack(track.offsets.read(track.chunk, 1))
        return bool(offset + track.chunk_bytes < self.size_bytes)

    def following(self) -> Window:
        """The next one. Raises Unusual where a table cannot be read any more."""
        assert self.chosen is not None
        others = [one for one in self.boxes if isinstance(one, bytes)]
        return self._window([*others, self._next(self.chosen, first=False)])

    def _window(self, boxes: list[bytes | tuple[Track, Tables]]) -> Window:
        shift, moov = 0, b""
        for _ in range(2):  # its length does not depend on the offsets in it
            moov = make_box(b"moov", *(one if isinstance(one, bytes) else _track(*one, shift) for one in boxes))
            shift = len(self.ftyp) + len(moov) + MDAT_HEADER_BYTES
        mdat = struct.pack(">I4sQ", 1, b"mdat", MDAT_HEADER_BYTES + self.size_bytes)
        return Window(self.ftyp + moov + mdat, self.file, self.size_bytes)

    def _next(self, track: Track, *, first: bool) -> tuple[Track, Tables]:
        count = min(self.at_once, track.packets - track.at)
        sizes = track.sizes.read(track.at, count)
        times = _timed(track, count)
        if first and track.start >= sum(packets * duration for packets, duration in times):
            raise Unusual("nothing of the first window is heard")
        tables = Tables(sizes, *_placed(track, sizes, count), times, is_first=first)
        track.at += count
        return track, tables


@dataclass(frozen=True, slots=True)
class Tables:
    """Those of one window. Offsets are the file's."""

    sizes: bytes
    offsets: list[int]
    chunks: list[tuple[int, int, int]]
    times: list[tuple[int, int]]
    is_first: bool


class Window(Positioned):
    """A file object: a head of our own, and the file behind it."""

    def __init__(self, head: bytes, file: Readable, size_bytes: int) -> None:
        super().__init__(len(head) + size_bytes)
        self._head = head
        self._file = file
        self.ran_out = False
        """Whether the last read was behind the end: a packet lies there, and FFmpeg takes it for the last."""

    def read(self, length: int = -1) -> bytes:
        self.ran_out = self._at >= self._size_bytes
        length = self._left(length)
        if self._at < len(self._head):
            data = self._head[self._at : self._at + length]
        else:
            self._file.seek(self._at - len(self._head))
            data = self._file.read(length)
        self._at += len(data)
        return data


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def taken_apart(file: Readable, size_bytes: int, at_once: int) -> LongMp4 | None:
    """None for a file whose sound has no more than `at_once` packets, or that is unusual."""
    try:
        return _taken_apart(file, size_bytes, at_once)
    except (Unusual, struct.error):
        return None


def _taken_apart(file: Readable, size_bytes: int, at_once: int) -> LongMp4:
    top = {box.kind: box for box in boxes_in(file, 0, size_bytes, until=b"moov")}
    moov = top.get(b"moov")
    if moov is None:
        raise Unusual("no moov")
    inner = list(boxes_in(file, moov.start, moov.end))
    if any(box.kind in (b"mvex", b"cmov") for box in inner):
        raise Unusual("fragments, or a compressed head")
    movie_timescale = timescale_of(content_of(file, only(inner, b"mvhd")))
    boxes: list[bytes | Track] = []
    for box in inner:
        if box.kind != b"trak":
            boxes.append(whole(file, box))
        elif (track := _sound_track(file, box, movie_timescale)) is not None:
            boxes.append(track)
    tracks = [one for one in boxes if isinstance(one, Track)]
    if not 0 < len(tracks) <= MAX_TRACKS or sum(track.packets for track in tracks) <= at_once:
        raise Unusual("short, or none or too many sound tracks")
    ftyp = whole(file, top[b"ftyp"]) if b"ftyp" in top else b""
    return LongMp4(file, size_bytes, ftyp, boxes, at_once // len(tracks))


def _sound_track(file: Readable, trak: Box, movie_timescale: int) -> Track | None:
    """None for a track of something else."""
    inner = list(boxes_in(file, trak.start, trak.end))
    media = list(boxes_in(file, *span(only(inner, b"mdia"))))
    handler = content_of(file, only(media, b"hdlr"))[8:12]
    if handler in OTHERS:
        return None
    if handler != SOUND:
        raise Unusual("a track of a kind that we do not know, which may be sound to FFmpeg")
    info = list(boxes_in(file, *span(only(media, b"minf"))))
    samples = list(boxes_in(file, *span(only(info, b"stbl"))))
    if any(box.kind not in (b"stsd", *REWRITTEN, *WITHOUT_EFFECT) for box in samples):
        raise Unusual("a table that we do not know")
    description = only(samples, b"stsd")
    if read_at(file, description.start + 4, 4) != b"\0\0\0\1":
        raise Unusual("several descriptions, which change within the track")
    header = content_of(file, only(media, b"mdhd"))
    sizes = only(samples, b"stsz")
    fixed_bytes, packets = struct.unpack(">II", read_at(file, sizes.start + 4, 8))
    offsets = [box for box in samples if box.kind in (b"stco", b"co64")]
    if len(offsets) != 1:
        raise Unusual("no table of offsets, or two")
    track = Track(
        {
            b"trak": b"".join(whole(file, box) for box in inner if box.kind not in (b"mdia", *FIRST)),
            b"first": b"".join(whole(file, box) for box in inner if box.kind in FIRST),
            b"mdia": b"".join(whole(file, box) for box in media if box.kind != b"minf"),
            b"minf": b"".join(whole(file, box) for box in info if box.kind != b"stbl"),
            b"stsd": whole(file, description),
        },
        times=table(file, only(samples, b"stts"), ">II"),
        chunks=table(file, only(samples, b"stsc"), ">III"),
        offsets=table(file, offsets[0], ">I" if offsets[0].kind == b"stco" else ">Q"),
        sizes=Table(
            file, within(sizes, 12, 0 if fixed_bytes else packets * 4), packets, struct.Struct(">I"), fixed_bytes
        ),
        timescale=timescale_of(header),
        packets=packets,
        start=0,
        end=0,
    )
    _check_chunks(track)
    _set_span(track, _edit(file, inner), movie_timescale)
    track.end = min(track.end, track.start + duration_of(header))
    return track


def _check_chunks(track: Track) -> None:
    """The chunks hold at least all packets, and their runs follow each other."""
    if track.chunks.count == 0 or track.chunks.count > MAX_RUNS or track.offsets.count == 0:
        raise Unusual("no chunks, or too many")
    before, per_chunk, held = 0, 0, 0
    for first, count, _ in track.chunks.rows():
        if first <= before or count == 0 or (before == 0 and first != 1) or first > track.offsets.count:
            raise Unusual("chunks in no order")
        held += (first - before) * per_chunk if before else 0
        before, per_chunk = first, count
    held += (track.offsets.count - before + 1) * per_chunk
    if held < track.packets:
        raise Unusual("fewer places than packets")


def _set_span(track: Track, edit: tuple[int, int] | None, movie_timescale: int) -> None:
    """Which packets are heard, as FFmpeg sees it: up to the first that reaches the end of the edit."""
    if track.times.count > MAX_RUNS:
        raise Unusual("too many runs of one duration")
    start, length = edit or (0, 0)
    wanted = start + (length * track.timescale + movie_timescale // 2) // movie_timescale if edit else None
    if wanted == start:
        raise Unusual("an edit of no length")
    packets, now = 0, 0
    for count, duration in track.times.rows():
        if duration == 1:
            raise Unusual("samples as they are, it seems, of which FFmpeg keeps only the chunks")
        count = min(count, track.packets - packets)
        if duration >= 1 << 31 or count == 0:
            raise Unusual("time that goes back, or stands")
        if wanted is not None and now + count * duration >= wanted:
            reached = max(-(-(wanted - now) // duration), 1)
            packets, now = packets + reached, now + reached * duration
            break
        packets, now = packets + count, now + count * duration
        if packets == track.packets:
            break
    else:
        if packets < track.packets:
            raise Unusual("fewer durations than packets")
    track.packets, track.start, track.end = packets, start, now if wanted is None else min(now, wanted)


def _edit(file: Readable, inner: list[Box]) -> tuple[int, int] | None:
    """Where in the track's time its one edit begins, and how long it is in the movie's; None without edits.

    What is empty before it is a pause, which is not heard here. Raises Unusual for several edits.
    """
    if not any(box.kind == b"edts" for box in inner):
        return None
    content = content_of(file, only(list(boxes_in(file, *span(only(inner, b"edts")))), b"elst"))
    (count,) = struct.unpack_from(">I", content, 4)
    row = struct.Struct(">QqI" if content[0] == 1 else ">IiI")
    if count == 0 or count * row.size != len(content) - 8:
        raise Unusual("an edit list of another length")
    *pauses, (length, start, _) = row.iter_unpack(content[8:])
    if start < 0 or any(start >= 0 for _, start, _ in pauses):
        raise Unusual("several edits, or one that is not the last")
    return start, length


# ── making windows ──────────────────────────────────────────────────────────────────────────────────────────────────


def _placed(track: Track, sizes: bytes, count: int) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Offsets of chunks, and their runs, for the next `count` packets; moves on behind them."""
    offsets: list[int] = []
    runs: list[tuple[int, int, int]] = []
    lengths = memoryview(sizes)
    places = track.offsets.rows(track.chunk)
    following = track.chunks.rows(track.chunk_run)
    _, per_chunk, description = next(following)
    next_run = next(following, None)
    taken = 0
    while taken < count:
        (offset,) = next(places)
        if offset >= MAX_OFFSET:
            raise Unusual("a place behind the end of all files")
        take = min(per_chunk - track.chunk_packet, count - taken)
        offsets.append(offset + track.chunk_bytes)
        if not runs or runs[-1][1:] != (take, description):
            runs.append((len(offsets), take, description))
        taken += take
        if track.chunk_packet + take < per_chunk:  # the window ends within the chunk
            track.chunk_packet += take
            track.chunk_bytes += sum(n for (n,) in struct.iter_unpack(">I", lengths[(taken - take) * 4 : taken * 4]))
            break
        track.chunk, track.chunk_packet, track.chunk_bytes = track.chunk + 1, 0, 0
        if next_run is not None and track.chunk + 1 == next_run[0]:
            _, per_chunk, description = next_run
            track.chunk_run, next_run = track.chunk_run + 1, next(following, None)
    return offsets, runs


def _timed(track: Track, count: int) -> list[tuple[int, int]]:
    """Durations of the next `count` packets, in runs; moves on behind them."""
    runs: list[tuple[int, int]] = []
    for packets, duration in track.times.rows(track.time_run):
        take = min(packets - track.time_used, count)
        runs.append((take, duration))
        count -= take
        track.time_used += take
        if track.time_used < packets:
            break
        track.time_run, track.time_used = track.time_run + 1, 0
        if count == 0:
            break
    return runs


def _track(track: Track, tables: Tables, shift: int) -> bytes:
    described = track.described
    samples = make_box(
        b"stbl",
        described[b"stsd"],
        make_table(b"stts", len(tables.times), b"".join(struct.pack(">II", *run) for run in tables.times)),
        make_table(b"stsc", len(tables.chunks), b"".join(struct.pack(">III", *run) for run in tables.chunks)),
        make_box(b"stsz", bytes(8), struct.pack(">I", len(tables.sizes) // 4), tables.sizes),
        make_table(b"co64", len(tables.offsets), b"".join(struct.pack(">Q", one + shift) for one in tables.offsets)),
    )
    media = make_box(b"mdia", described[b"mdia"], make_box(b"minf", described[b"minf"], samples))
    return make_box(b"trak", described[b"trak"], described[b"first"] if tables.is_first else b"", media)
