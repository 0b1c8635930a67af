"""A fragmented MP4 of any length out of the demo conversation, made while it is read: no disk, no encoding for hours.

    ftyp │ moov without packets │ (sidx …) │ moof mdat │ moof mdat │ … │ (mfra)

The fragments of the conversation are repeated, with their number and time written anew.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np

from benchmarks.made_recordings import RATE_HZ as VOICE_HZ
from benchmarks.made_recordings import voice

RATE_HZ = 48_000
MAX_REFERENCES = 0xFFFF
"""Of one sidx."""


@dataclass(frozen=True)
class Fragment:
    start: int
    """Of its moof, in the round."""
    size: int
    ticks: int
    """When it begins, in the round."""


class FragmentedM4a:
    """AAC at 48 kHz, mono, in fragments of `fragment_s`; where they lie is in no table, in `sidx` or in `mfra`."""

    def __init__(self, seconds: float, fragment_s: float, index: str = "none") -> None:
        self.name = f"fragments of {fragment_s:g} s, index {index}"
        self._head, self._round, self._fragments, self._round_ticks = _made(fragment_s)
        self._rounds = max(round(seconds * RATE_HZ / self._round_ticks), 1)
        sizes = len(self._round) * self._rounds
        self._index = b"".join(self._sidx()) if index == "sidx" else b""
        self._start = len(self._head) + len(self._index)
        self._tail = self._mfra(self._start) if index == "mfra" else b""
        self.size_bytes = self._start + sizes + len(self._tail)
        self.seconds = self._rounds * self._round_ticks / RATE_HZ
        self._at_round = lru_cache(4)(self._made_round)

    def read(self, offset: int, length: int) -> bytes:
        parts, end = [], min(offset + length, self.size_bytes)
        while offset < end:
            part = self._part(offset)[: end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _part(self, offset: int) -> bytes:
        if offset < self._start:
            return (self._head + self._index)[offset:]
        number, at = divmod(offset - self._start, len(self._round))
        if number < self._rounds:
            return self._at_round(number)[at:]
        return self._tail[offset - self._start - self._rounds * len(self._round) :]

    def _made_round(self, number: int) -> bytes:
        data = bytearray(self._round)
        for at, fragment in enumerate(self._fragments):
            moof = fragment.start
            struct.pack_into(">I", data, moof + 20, number * len(self._fragments) + at + 1)
            header = moof + 32  # of tfhd, in which nothing counts from the start of the file
            time = header + struct.unpack_from(">I", data, header)[0]
            struct.pack_into(">Q", data, time + 12, number * self._round_ticks + fragment.ticks)
        return bytes(data)

    def _all(self) -> Iterator[tuple[int, int, int, int]]:
        """Place behind the head, size, start and length in time, of every fragment."""
        ends = [*(one.ticks for one in self._fragments[1:]), self._round_ticks]
        for number in range(self._rounds):
            for one, end in zip(self._fragments, ends, strict=True):
                place = number * len(self._round) + one.start
                yield place, one.size, number * self._round_ticks + one.ticks, end - one.ticks

    def _sidx(self) -> Iterator[bytes]:
        rows = list(self._all())
        parts = [rows[at : at + MAX_REFERENCES] for at in range(0, len(rows), MAX_REFERENCES)]
        sizes = [40 + 12 * len(part) for part in parts]
        for number, part in enumerate(parts):
            references = b"".join(struct.pack(">III", size, ticks, 0x90000000) for _, size, _, ticks in part)
            ahead = sum(sizes[number + 1 :]) + part[0][0]
            head = struct.pack(">IIIQQHH", 1 << 24, 1, RATE_HZ, part[0][2], ahead, 0, len(part))
            yield struct.pack(">I4s", sizes[number], b"sidx") + head + references

    def _mfra(self, start: int) -> bytes:
        rows = b"".join(struct.pack(">QQBBB", ticks, start + place, 1, 1, 1) for place, _, ticks, _ in self._all())
        tfra = struct.pack(">IIII", 1 << 24, 1, 0, len(rows) // 19) + rows
        size = 8 + 8 + len(tfra) + 16
        return b"".join(
            (
                struct.pack(">I4sI4s", size, b"mfra", 8 + len(tfra), b"tfra"),
                tfra,
                struct.pack(">I4sII", 16, b"mfro", 0, size),
            )
        )


def _made(fragment_s: float) -> tuple[bytes, bytes, list[Fragment], int]:
    """The head, all fragments, what they are, and how long they last."""
    out = io.BytesIO()
    options = {
        "movflags": "+empty_moov+default_base_moof",
        "frag_duration": str(int(fragment_s * 1e6)),
        "use_editlist": "0",
    }
    with av.open(out, "w", format="mp4", options=options) as file:
        stream = file.add_stream("aac", rate=RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = "mono"
        stream.bit_rate = 48_000
        frame = av.AudioFrame.from_ndarray(voice()[None].astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = VOICE_HZ
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=RATE_HZ, frame_size=1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    data = out.getvalue()
    start, fragments, at, ticks = None, [], 0, 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"moof":
            start = at if start is None else start
            (begun,) = struct.unpack_from(">Q", data, data.index(b"tfdt", at) + 8)
            run = data.index(b"trun", at)
            (packets,) = struct.unpack_from(">I", data, run + 8)
            following = at + size + struct.unpack_from(">I", data, at + size)[0]
            fragments.append(Fragment(at - start, following - at, begun))
            ticks = begun + packets * 1024
        at += size
        if kind == b"mdat":
            end = at
    assert start is not None
    return data[:start], data[start:end], fragments, ticks
