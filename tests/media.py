"""Test recordings in every container that we take, made with PyAV: real files, no fixtures to keep."""

from __future__ import annotations

import io
import struct
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

import av
import av.audio.frame
import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]
"""Samples between -1 and 1, shape (channels, n_samples)."""

LAYOUTS = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1"}
"""FFmpeg's names for numbers of channels."""


def tone(seconds: float, rate_hz: int = 16_000, channels: int = 1, hz: float = 440.0) -> Signal:
    """A sine with a slow swell, so that a shift in time shows; each further channel is an octave higher."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    swell = 0.5 + 0.4 * np.sin(2 * np.pi * 0.7 * t)
    return np.stack([0.5 * swell * np.sin(2 * np.pi * hz * 2**c * t) for c in range(channels)]).astype(np.float32)


def silence(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> Signal:
    return np.zeros((channels, int(seconds * rate_hz)), dtype=np.float32)


def buzz(spans_s: list[tuple[float, float]], seconds: float, rate_hz: int = 16_000) -> Signal:
    """Silence with voice-like bursts: harmonics of 120 Hz through two formants, in syllables of a fifth of a second."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.8 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    formants = (600 + 250 * np.sin(2 * np.pi * 1.3 * t), 1500 + 500 * np.sin(2 * np.pi * 0.9 * t))
    voice = np.zeros_like(t)
    for harmonic in range(1, 30):
        gain = sum(1 / (1 + ((harmonic * pitch - formant) / 120) ** 2) for formant in formants)
        voice += gain * np.sin(harmonic * phase)
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4.5 * t)
    heard = np.zeros_like(t)
    for start_s, end_s in spans_s:
        heard[int(start_s * rate_hz) : int(end_s * rate_hz)] = 1
    noise = np.random.default_rng(1).standard_normal(len(t)) * 1e-4
    return (0.1 * voice * syllables * heard + noise)[None].clip(-1, 1).astype(np.float32)


def s16(signal: Signal) -> NDArray[np.int16]:
    """(n_samples, channels) as WAV interleaves them."""
    return (signal.T * 32767).round().astype("<i2")


def wav(signal: Signal, rate_hz: int = 16_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(len(signal))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(s16(signal).tobytes())
    return out.getvalue()


def wav_header(data_bytes: int, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    """44 bytes that announce `data_bytes` of 16-bit samples."""
    block = 2 * channels
    return (
        b"RIFF" + struct.pack("<I", 36 + data_bytes) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate_hz, rate_hz * block, block, 16)
        + b"data" + struct.pack("<I", data_bytes)
    )  # fmt: skip


def encode(
    signal: Signal,
    rate_hz: int,
    container: str,
    codec: str,
    *,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    picture: bool = False,
) -> bytes:
    """`signal` in the given container and codec; `picture` adds a small video track."""
    with tempfile.TemporaryDirectory() as folder:  # a path, because an index in front is written by opening it again
        path = Path(folder) / "recording"
        _encode_to(path, signal, rate_hz, container, codec, bit_rate, options or {}, codec_options or {}, picture)
        return path.read_bytes()


def _encode_to(
    path: Path,
    signal: Signal,
    rate_hz: int,
    container: str,
    codec: str,
    bit_rate: int | None,
    options: dict[str, str],
    codec_options: dict[str, str],
    picture: bool,
) -> None:
    with av.open(str(path), "w", format=container, options=options) as file:
        video = _video(file) if picture else None
        stream = file.add_stream(codec, rate=rate_hz, layout=LAYOUTS[len(signal)], options=codec_options)
        assert isinstance(stream, av.AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        if video is not None:
            _show(file, video, signal.shape[1] / rate_hz)
        add_sound(file, stream, signal, rate_hz)


def tracks(
    signals: list[Signal], container: str = "matroska", codec: str = "pcm_s16le", rate_hz: int = 16_000
) -> bytes:
    """A file with one sound track for each signal, in this order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        with av.open(str(path), "w", format=container) as file:
            streams = [file.add_stream(codec, rate=rate_hz, layout=LAYOUTS[len(signal)]) for signal in signals]
            for stream, signal in zip(streams, signals, strict=True):
                assert isinstance(stream, av.AudioStream)
                add_sound(file, stream, signal, rate_hz)
        return path.read_bytes()


def add_sound(file: av.container.OutputContainer, stream: av.AudioStream, signal: Signal, rate_hz: int) -> None:
    """Encode the signal into a stream that has its layout and rate."""
    layout = LAYOUTS[len(signal)]
    frame = av.audio.frame.AudioFrame.from_ndarray(np.ascontiguousarray(signal), format="fltp", layout=layout)
    frame.sample_rate = rate_hz
    resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate_hz, frame_size=stream.frame_size)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        if part is not None:
            file.mux(stream.encode(part))
    file.mux(stream.encode(None))


def _video(file: av.container.OutputContainer) -> av.video.stream.VideoStream:
    stream = file.add_stream("mpeg4", rate=5)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    return stream


def _show(file: av.container.OutputContainer, stream: av.video.stream.VideoStream, seconds: float) -> None:
    for _ in range(max(int(seconds * 5), 1)):
        file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
    file.mux(stream.encode(None))


def silent_film(seconds: float = 2.0) -> bytes:
    """An MP4 with a video track and nothing to hear."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        _show(file, _video(file), seconds)
    return out.getvalue()


def without_id3(mp3: bytes) -> bytes:
    """An MP3 without its ID3v2 tag and without the Xing frame, as a recorder or a stream gives it."""
    start = 10 + sum((mp3[6 + i] & 0x7F) << (7 * (3 - i)) for i in range(4)) if mp3[:3] == b"ID3" else 0
    second = mp3.index(mp3[start : start + 2], start + 4)
    return mp3[second:]


Maker = Callable[[Signal, int], bytes]

FORMATS: dict[str, Maker] = {
    "wav-s16": lambda x, hz: wav(x, hz),
    "wav-s24": lambda x, hz: encode(x, hz, "wav", "pcm_s24le"),
    "wav-float": lambda x, hz: encode(x, hz, "wav", "pcm_f32le"),
    "wav-u8": lambda x, hz: encode(x, hz, "wav", "pcm_u8"),
    "wav-rf64": lambda x, hz: encode(x, hz, "wav", "pcm_s16le", options={"rf64": "always"}),
    "w64": lambda x, hz: encode(x, hz, "w64", "pcm_s16le"),
    "mp3-cbr": lambda x, hz: encode(x, hz, "mp3", "libmp3lame", bit_rate=64_000),
    "mp3-vbr": lambda x, hz: encode(x, hz, "mp3", "libmp3lame", codec_options={"q": "4", "flags": "+qscale"}),
    "mp3-without-id3": lambda x, hz: without_id3(encode(x, hz, "mp3", "libmp3lame", bit_rate=64_000)),
    "m4a-index-at-end": lambda x, hz: encode(x, hz, "ipod", "aac", bit_rate=64_000),
    "m4a-index-in-front": lambda x, hz: encode(x, hz, "ipod", "aac", options={"movflags": "+faststart"}),
    "aac-adts": lambda x, hz: encode(x, hz, "adts", "aac", bit_rate=64_000),
    "flac": lambda x, hz: encode(x, hz, "flac", "flac"),
    "ogg-vorbis": lambda x, hz: encode(
        np.repeat(x, 3 - len(x), 0), hz, "ogg", "vorbis", codec_options={"strict": "experimental"}
    ),
    "ogg-opus": lambda x, hz: encode(x, hz, "ogg", "libopus"),
    "webm-opus": lambda x, hz: encode(x, hz, "webm", "libopus"),
    "mp4-with-video": lambda x, hz: encode(x, hz, "mp4", "aac", picture=True),
    "mov-with-video": lambda x, hz: encode(x, hz, "mov", "aac", picture=True),
    "mkv-with-video": lambda x, hz: encode(x, hz, "matroska", "pcm_s16le", picture=True),
}
"""Every way in which recordings come; Opus wants 48 kHz (or 16), the rest takes any rate."""


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
