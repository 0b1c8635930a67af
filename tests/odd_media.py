"""Every container, codec and oddity that recordings come in, as generated files with what is heard of each.

Made with PyAV, so that no other program is needed; where ffmpeg's command line is at hand, it is the oracle.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import av
import numpy as np

from tests import hostile_media as made
from tests import media

SECONDS = 5.0
TIGHT, LOSSY = 4, 16
"""Most that a sample may differ from ffmpeg's, of 32,768: another version's resampler, and another decoder."""


LENGTH_ONLY = 1 << 16


@dataclass(frozen=True)
class Recording:
    """A file and what is heard of it. `tolerance` is None where ffmpeg's version decides, and `oracle` says why."""

    make: Callable[[], bytes]
    codec: str
    rate_hz: int = 16_000
    channels: int = 1
    seconds: float = SECONDS
    tolerance: int | None = TIGHT
    oracle: str = ""
    warnings: tuple[str, ...] = ()


def of(container: str, codec: str, rate_hz: int = 16_000, channels: int = 1, **more: object) -> Callable[[], bytes]:
    """Five seconds of tone in a container."""
    return lambda: media.encode(media.tone(SECONDS, rate_hz, channels), rate_hz, container, codec, **more)  # type: ignore[arg-type]


def plain(name: str, rate_hz: int, channels: int = 2) -> Callable[[], bytes]:
    return lambda: media.FORMATS[name](media.tone(SECONDS, rate_hz, channels), rate_hz)


def streamed(container: str, codec: str, rate_hz: int, **options: str) -> bytes:
    """Into a file that cannot be gone back in, as a live stream is written."""
    out = Unseekable()
    with av.open(out, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate_hz, layout="mono")
        assert isinstance(stream, av.AudioStream)
        media.add_sound(file, stream, media.tone(SECONDS, rate_hz), rate_hz)
    return out.getvalue()


def an_hour_later(fragments: bytes) -> bytes:
    """The times of all fragments of a recording of 48 kHz, which need not begin at 0."""
    parts = fragments.split(b"tfdt\1\0\0\0")
    times = [struct.pack(">Q", struct.unpack_from(">Q", part)[0] + 3600 * 48_000) for part in parts[1:]]
    return parts[0] + b"".join(b"tfdt\1\0\0\0" + time + part[8:] for time, part in zip(times, parts[1:], strict=True))


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


def flac_24() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="flac") as file:
        stream = file.add_stream("flac", rate=48_000, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.format = "s32"  # FLAC keeps 24 of them
        media.add_sound(file, stream, media.tone(SECONDS, 48_000, 2), 48_000)
    return out.getvalue()


def moved(data: bytes, container: str) -> bytes:
    """The same packets in another container."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(out, "w", format=container) as file:
        stream = file.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    return out.getvalue()


def three_tracks(container: str) -> bytes:
    """The second has more channels: FFmpeg takes it, unless the file names a default."""
    return media.tracks(
        [media.tone(SECONDS, hz=880), media.tone(SECONDS, channels=2), media.tone(SECONDS, hz=880)], container
    )


def with_latin1_title(wav: bytes) -> bytes:
    """As most programs on Windows write it: no UTF-8."""
    title = made.chunk(b"LIST", b"INFO" + made.chunk(b"INAM", "Gespräch mit Jörg\0".encode("latin-1")))
    return made.riff(wav[12:36], title, wav[36:])


def with_sizes(wav: bytes, size: int) -> bytes:
    """A WAV whose writer did not know its length yet."""
    return made.riff(wav[12:36], made.chunk(b"data", wav[44:], size), size=size)


def amr_wb_silence() -> bytes:
    """Frames without data, 20 ms each, as a transmission pauses; there is no free encoder."""
    return b"#!AMR-WB\n" + b"\x7c" * round(SECONDS * 50)


WAV: Mapping[str, Recording] = {
    **{
        f"WAV {codec}": Recording(of("wav", codec), codec)
        for codec in (
            *("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_s64le", "pcm_f32le", "pcm_f64le"),
            *("pcm_alaw", "pcm_mulaw", "g722"),
        )
    },
    "WAV adpcm_ms": Recording(of("wav", "adpcm_ms"), "adpcm_ms", seconds=5.09),
    "WAV adpcm_ima_wav": Recording(
        of("wav", "adpcm_ima_wav"), "adpcm_ima_wav", seconds=5.10, tolerance=64, oracle="rounds otherwise in 5.1"
    ),
    "WAV MP3": Recording(of("wav", "libmp3lame"), "mp3float", seconds=5.08, tolerance=LOSSY),
    "RF64": Recording(of("wav", "pcm_s16le", options={"rf64": "always"}), "pcm_s16le"),
    "RF64 as BW64": Recording(
        lambda: b"BW64" + of("wav", "pcm_s16le", options={"rf64": "always"})()[4:], "pcm_s16le"
    ),
    "W64": Recording(of("w64", "pcm_s16le"), "pcm_s16le"),
    "WAV with a size of 0": Recording(
        lambda: with_sizes(media.wav(media.tone(SECONDS)), 0), "pcm_s16le"
    ),
    "WAV with a size of 2^32 - 1": Recording(
        lambda: with_sizes(media.wav(media.tone(SECONDS)), 0xFFFFFFFF), "pcm_s16le"
    ),
    "WAV with a title in Latin-1": Recording(
        lambda: with_latin1_title(media.wav(media.tone(SECONDS))), "pcm_s16le"
    ),
    "WAV 5.1": Recording(of("wav", "pcm_s16le", 48_000, 6), "pcm_s16le", 48_000, 6),
    "WAV 7.1": Recording(lambda: media.wav(media.tone(SECONDS, channels=8, hz=55), 16_000), "pcm_s16le", 16_000, 8),
    "WAV of three channels": Recording(
        lambda: media.wav(media.tone(SECONDS, channels=3, hz=220), 16_000), "pcm_s16le", 16_000, 3
    ),
    "WAV of 16 channels": Recording(
        lambda: media.wav(np.repeat(media.tone(SECONDS), 16, 0)), "pcm_s16le", 16_000, 16
    ),
    **{
        f"WAV {rate_hz} Hz": Recording(of("wav", "pcm_s16le", rate_hz, 2), "pcm_s16le", rate_hz, 2)
        for rate_hz in (8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000)
    },
}  # fmt: skip

MP3: Mapping[str, Recording] = {
    "MP3 CBR": Recording(plain("mp3-cbr", 44_100), "mp3float", 44_100, 2),
    "MP3 VBR": Recording(plain("mp3-vbr", 44_100), "mp3float", 44_100, 2),
    "MP3 without a header": Recording(plain("mp3-without-id3", 44_100), "mp3float", 44_100, 2, seconds=5.04),
    "MP3 behind a tag with a picture": Recording(
        lambda: made.id3((b"APIC", b"\0image/png\0\3\0" + bytes(70_000))) + plain("mp3-without-id3", 44_100)(),
        "mp3float", 44_100, 2, seconds=5.04,
    ),
    "MP3 with a title in Latin-1 that says UTF-8": Recording(
        lambda: made.id3((b"TIT2", b"\3Gespr\xe4ch")) + plain("mp3-without-id3", 44_100)(),
        "mp3float", 44_100, 2, seconds=5.04,
    ),
    "MP3 from mono to stereo": Recording(
        lambda: plain("mp3-without-id3", 44_100, 1)() + plain("mp3-without-id3", 44_100, 2)(),
        "mp3float", 44_100, 1, seconds=10.08, tolerance=LENGTH_ONLY, oracle="then ffmpeg 5.1 is 1 ms ahead",
    ),
    "MP3 from 44.1 to 22.05 kHz": Recording(
        lambda: plain("mp3-without-id3", 44_100, 1)() + plain("mp3-without-id3", 22_050, 1)(),
        "mp3float", 44_100, 1, seconds=10.1, tolerance=LENGTH_ONLY, oracle="then ffmpeg 5.1 is 1 ms ahead",
    ),
    "MP2": Recording(of("mp2", "mp2", 48_000, 2), "mp2", 48_000, 2, tolerance=LOSSY),
}  # fmt: skip

AAC: Mapping[str, Recording] = {
    "ADTS": Recording(plain("aac-adts", 44_100), "aac", 44_100, 2, seconds=5.04, tolerance=LOSSY),
    "ADTS from 44.1 to 22.05 kHz": Recording(
        lambda: plain("aac-adts", 44_100, 1)() + plain("aac-adts", 22_050, 1)(),
        "aac", 44_100, 1, seconds=10.12, tolerance=LENGTH_ONLY, oracle="then ffmpeg 5.1 is 1 ms ahead",
    ),
    "M4A with its index at the end": Recording(plain("m4a-index-at-end", 44_100), "aac", 44_100, 2, tolerance=LOSSY),
    "M4A with its index in front": Recording(plain("m4a-index-in-front", 44_100), "aac", 44_100, 2, tolerance=LOSSY),
    "M4A ALAC": Recording(of("ipod", "alac", 44_100, 2), "alac", 44_100, 2),
    "M4A 5.1": Recording(of("ipod", "aac", 48_000, 6), "aac", 48_000, 6, tolerance=LOSSY),
    "MP4 in fragments": Recording(
        of("mp4", "aac", 48_000, options={"movflags": "frag_keyframe+empty_moov"}), "aac", 48_000, tolerance=LOSSY
    ),
    "MP4 of a live stream": Recording(
        lambda: streamed("mp4", "aac", 48_000, movflags="frag_keyframe+empty_moov+default_base_moof"),
        "aac", 48_000, tolerance=LOSSY,
    ),
    "MP4 with its first second in its head, then in fragments": Recording(
        of("mp4", "aac", 48_000, options={"movflags": "frag_keyframe", "frag_duration": "1000000"}),
        "aac", 48_000, tolerance=LOSSY,
    ),
    "MP4 of the second hour of a live stream": Recording(
        lambda: an_hour_later(streamed("mp4", "aac", 48_000, movflags="frag_keyframe+empty_moov+default_base_moof")),
        "aac", 48_000, tolerance=LOSSY,
    ),
    "MP4 with pictures": Recording(plain("mp4-with-video", 44_100), "aac", 44_100, 2, tolerance=LOSSY),
    "MOV with pictures": Recording(plain("mov-with-video", 44_100), "aac", 44_100, 2, tolerance=LOSSY),
    "MOV with a little sound": Recording(
        lambda: media.encode(media.tone(0.25, 16_000), 16_000, "mov", "pcm_s16le", picture=True),
        "pcm_s16le", seconds=0.25,
    ),
    **{
        f"MOV {codec}": Recording(of("mov", codec), codec)
        for codec in ("pcm_s16be", "pcm_s24le", "pcm_f32le", "pcm_mulaw", "adpcm_ima_qt", "alac")
    },
    "MP4 Opus": Recording(of("mp4", "libopus", 48_000, 2), "opus", 48_000, 2, tolerance=LOSSY),
    "MP4 MP3": Recording(of("mp4", "libmp3lame", 44_100, 2), "mp3float", 44_100, 2, tolerance=LOSSY),
    "MP4 AC-3": Recording(of("mp4", "ac3", 48_000, 2), "ac3", 48_000, 2, tolerance=LOSSY),
    "3GP AMR": Recording(
        of("3gp", "libopencore_amrnb", 8_000, bit_rate=12_200), "amrnb", 8_000, tolerance=LOSSY
    ),
    "3GP AAC": Recording(of("3gp", "aac"), "aac", seconds=5.12, tolerance=LOSSY),
}  # fmt: skip

LOSSLESS_AND_OGG: Mapping[str, Recording] = {
    "FLAC 16": Recording(plain("flac", 44_100), "flac", 44_100, 2),
    "FLAC 24": Recording(flac_24, "flac", 48_000, 2),
    "FLAC 5.1": Recording(of("flac", "flac", 48_000, 6), "flac", 48_000, 6),
    "FLAC behind a tag": Recording(lambda: made.id3((b"TIT2", b"\0x")) + plain("flac", 44_100)(), "flac", 44_100, 2),
    "Ogg Vorbis": Recording(
        plain("ogg-vorbis", 44_100), "vorbis", 44_100, 2, tolerance=None,
        oracle="PyAV's encoder is experimental, and decoders differ over its work",
    ),
    "Ogg Opus": Recording(plain("ogg-opus", 48_000), "opus", 48_000, 2, tolerance=LOSSY),
    "Ogg Opus of 16 kHz": Recording(plain("ogg-opus", 16_000, 1), "opus", 48_000, tolerance=LOSSY),
    "Ogg FLAC": Recording(lambda: moved(plain("flac", 44_100)(), "ogg"), "flac", 44_100, 2),
    "Ogg of two recordings": Recording(
        lambda: plain("ogg-opus", 48_000, 1)() + plain("ogg-opus", 48_000, 1)(),
        "opus", 48_000, seconds=10, tolerance=LOSSY,
    ),
}  # fmt: skip

MATROSKA: Mapping[str, Recording] = {
    "WebM Opus": Recording(plain("webm-opus", 48_000), "opus", 48_000, 2, tolerance=LOSSY),
    "WebM of a live stream": Recording(
        lambda: streamed("webm", "libopus", 48_000, live="1"), "opus", 48_000, tolerance=LOSSY
    ),
    "Matroska with pictures": Recording(plain("mkv-with-video", 44_100), "pcm_s16le", 44_100, 2),
    "Matroska without a length": Recording(lambda: made.mkv([], [made.cluster(made.SECOND)]), "pcm_s16le", seconds=1),
    "Matroska of unknown sizes": Recording(
        lambda: streamed("matroska", "pcm_s16le", 16_000, live="1"), "pcm_s16le", 16_000
    ),
    "Matroska AAC": Recording(
        of("matroska", "aac", 48_000), "aac", 48_000, seconds=5.01, tolerance=None,
        oracle="ffmpeg 5.1 does not leave out what the file says is no sound",
    ),
    "Matroska FLAC": Recording(lambda: moved(plain("flac", 44_100)(), "matroska"), "flac", 44_100, 2),
    "Matroska ALAC": Recording(of("matroska", "alac", 44_100, 2), "alac", 44_100, 2),
    "Matroska with three tracks": Recording(lambda: three_tracks("matroska"), "pcm_s16le", 16_000, 2),
    "MOV with three tracks": Recording(lambda: three_tracks("mov"), "pcm_s16le", 16_000, 1),
}  # fmt: skip

OTHERS: Mapping[str, Recording] = {
    **{
        f"AIFF {codec}": Recording(of("aiff", codec), codec)
        for codec in (
            *("pcm_s8", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s32be", "pcm_f32be"),
            *("pcm_alaw", "pcm_mulaw", "adpcm_ima_qt"),
        )
    },
    **{
        f"CAF {codec}": Recording(of("caf", codec), codec)
        for codec in ("pcm_s16be", "pcm_s16le", "pcm_f32be", "pcm_mulaw")
    },
    "CAF alac": Recording(
        of("caf", "alac"), "alac", seconds=4.88, tolerance=None,
        oracle="FFmpeg 8 cuts what is too much off the last packet twice, ffmpeg 5.1 once",
    ),
    **{
        f"AU {codec}": Recording(of("au", codec), codec)
        for codec in ("pcm_s8", "pcm_s16be", "pcm_f32be", "pcm_mulaw", "pcm_alaw")
    },
    "AMR": Recording(of("amr", "libopencore_amrnb", 8_000, bit_rate=12_200), "amrnb", 8_000, tolerance=LOSSY),
    "AMR-WB of a pause": Recording(amr_wb_silence, "amrwb", 16_000),
}  # fmt: skip

RECORDINGS: Mapping[str, Recording] = {**WAV, **MP3, **AAC, **LOSSLESS_AND_OGG, **MATROSKA, **OTHERS}
