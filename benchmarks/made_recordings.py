"""Recordings of any size out of the demo conversation said over and over, made as fast as a disk takes them.

Sound is encoded once and its packets are repeated, so that nothing is encoded for hours. Pictures are filler that no
decoder of ours ever looks at.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

VOICE = Path(__file__).parents[1] / "demo" / "recordings" / "conversation-90s.flac"
RATE_HZ = 16_000
PICTURE_BYTES = 1 << 18
BITS_PER_S = 48_000
SOUND_AT_A_TIME = 60
"""Packets of sound between two pictures of a video, about four seconds."""


def voice() -> NDArray[np.int16]:
    """The conversation, 16 kHz mono."""
    with av.open(str(VOICE)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


class WavStream(io.RawIOBase):
    """A 16 kHz mono WAV of at least `size_bytes`, made while it is read. Beyond 4 GiB it is RF64."""

    def __init__(self, size_bytes: int) -> None:
        self._voice = voice().tobytes()
        self._data_bytes = size_bytes // 2 * 2
        self._head = wav_header(self._data_bytes)
        self.size_bytes = len(self._head) + self._data_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        wanted = self.size_bytes - self._at if size < 0 else min(size, self.size_bytes - self._at)
        parts = []
        while wanted:
            part = self._part(wanted)
            parts.append(part)
            self._at += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def _part(self, most: int) -> bytes:
        if self._at < len(self._head):
            return self._head[self._at : self._at + most]
        start = (self._at - len(self._head)) % len(self._voice)
        return self._voice[start : start + most]


def wav_header(data_bytes: int) -> bytes:
    """RIFF, or RF64 where 32 bits do not hold the size. Source: EBU Tech 3306."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    if data_bytes < (1 << 32) - 100:
        return (
            struct.pack("<4sI4s", b"RIFF", 36 + data_bytes, b"WAVE") + form + struct.pack("<4sI", b"data", data_bytes)
        )
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 72 + data_bytes, data_bytes, data_bytes // 2, 0)
    most = (1 << 32) - 1
    return struct.pack("<4sI4s", b"RF64", most, b"WAVE") + sizes + form + struct.pack("<4sI", b"data", most)


def write_wav(path: Path, size_bytes: int) -> None:
    source = WavStream(size_bytes)
    with path.open("wb") as file:
        while block := source.read(1 << 22):
            file.write(block)


def write_mp3(path: Path, size_bytes: int) -> None:
    """MP3 frames of constant bit rate one after the other, without a Xing header."""
    frames = _encoded("mp3", "libmp3lame")[1]
    once = b"".join(frames)
    with path.open("wb") as file:
        for _ in range(size_bytes // len(once) + 1):
            file.write(once)


def write_m4a(path: Path, size_bytes: int) -> None:
    """AAC with the index at its end, as FFmpeg writes it where nobody asks for more."""
    extradata, packets = _encoded("ipod", "aac")
    with av.open(str(path), "w", format="ipod") as out:
        sound = _sound(out, "aac", extradata)
        written = number = 0
        while written < size_bytes:
            for data in packets:
                out.mux(_packet(sound, data, number * 1024, 1024, Fraction(1, RATE_HZ)))
                number += 1
                written += len(data)


def write_video(path: Path, size_bytes: int, container: str, sound_s: float) -> None:
    """Filler pictures with a little sound among them: `sound_s` seconds in all, spread evenly."""
    extradata, packets = _encoded("ipod", "aac")
    pictures = [random.Random(seed).randbytes(PICTURE_BYTES) for seed in range(8)]
    sounds = int(sound_s * RATE_HZ / 1024)
    per_group = max(size_bytes // PICTURE_BYTES * SOUND_AT_A_TIME // sounds, 1)
    with av.open(str(path), "w", format=container) as out:
        film = out.add_stream("mpeg4", rate=25)
        film.width, film.height, film.pix_fmt = 1920, 1080, "yuv420p"
        sound = _sound(out, "aac", extradata)
        shown = 0
        for number in range(sounds):
            if number % SOUND_AT_A_TIME == 0:
                start = Fraction(number * 1024, RATE_HZ)
                step = Fraction(SOUND_AT_A_TIME * 1024, RATE_HZ * per_group)
                for at in range(per_group):
                    picture = pictures[shown % len(pictures)]
                    pts = int((start + at * step) * 90_000)
                    out.mux(_packet(film, picture, pts, int(step * 90_000), Fraction(1, 90_000)))
                    shown += 1
            data = packets[number % len(packets)]
            out.mux(_packet(sound, data, number * 1024, 1024, Fraction(1, RATE_HZ)))


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "wav": write_wav,
    "mp3": write_mp3,
    "m4a": write_m4a,
    "mkv": lambda path, size: write_video(path, size, "matroska", 7200 * size / 5e9),
    "mp4": lambda path, size: write_video(path, size, "mp4", 7200 * size / 5e9),
}
"""By name; each takes the path and the size in bytes that the file shall have or little more."""


def _sound(out: av.container.OutputContainer, codec: str, extradata: bytes) -> av.AudioStream:
    stream = out.add_stream(codec, rate=RATE_HZ)
    assert isinstance(stream, av.AudioStream)
    stream.codec_context.layout = "mono"
    stream.codec_context.extradata = extradata
    return stream


def _packet(
    stream: av.VideoStream | av.AudioStream, data: bytes, pts: int, duration: int, base: Fraction
) -> av.Packet[Any]:
    packet = av.Packet(data)
    packet.stream, packet.time_base = stream, base
    packet.pts = packet.dts = pts
    packet.duration = duration
    packet.is_keyframe = True
    return packet


def _encoded(container: str, codec: str) -> tuple[bytes, list[bytes]]:
    """The codec's own header, and the conversation as packets."""
    return _header_of(container, codec), list(_packets(container, codec))


def _file(container: str, codec: str) -> io.BytesIO:
    file = io.BytesIO()
    options = {"write_xing": "0", "id3v2_version": "0"} if container == "mp3" else {}
    with av.open(file, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = "mono"
        stream.bit_rate = BITS_PER_S
        frame = av.AudioFrame.from_ndarray(voice()[None], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    return file


def _header_of(container: str, codec: str) -> bytes:
    with av.open(_file(container, codec)) as made:
        return made.streams.audio[0].codec_context.extradata or b""


def _packets(container: str, codec: str) -> Iterator[bytes]:
    with av.open(_file(container, codec), "r") as made:
        for packet in made.demux(audio=0):
            if packet.size:
                yield bytes(packet)
