"""Every hostile recording that we know by name, and what becomes of it: the code of the refusal, or the seconds heard.

A lie in a header that does no harm is no reason to refuse: what is there is transcribed, and a length that is not there
is a warning. `python -m benchmarks.hostile_recordings` says how long each of them takes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from tests import media
from tests.hostile_media import (
    SECOND,
    UNKNOWN_SIZE,
    YEARS_100_S,
    Track,
    box,
    chunk,
    cluster,
    compression,
    element,
    flac_bomb,
    full_box,
    id3,
    long_box,
    mkv,
    mkv_track,
    mp4,
    nested_boxes,
    nested_lists,
    ogg_page,
    rf64,
    riff,
    table,
    uint,
    wav,
    wav_format,
    wave64,
    with_flac_info,
    with_last_granule,
    with_xing,
    zlib_mkv,
)

TOO_LONG = "RECORDING_TOO_LONG"
LIMIT = "DECODER_LIMIT"
UNREADABLE = "AUDIO_UNREADABLE"
UNSUPPORTED = "MEDIA_UNSUPPORTED"
EMPTY = "RECORDING_EMPTY"


@dataclass(frozen=True)
class Case:
    """`outcome` is a code, or the seconds that are heard; `truncated` says whether more was announced."""

    make: Callable[[], bytes]
    outcome: str | float
    truncated: bool = False


@cache
def _flac() -> bytes:
    return media.FORMATS["flac"](media.tone(3), 16_000)


@cache
def _mp3() -> bytes:
    return media.FORMATS["mp3-without-id3"](media.tone(3), 16_000)


@cache
def _opus() -> bytes:
    return media.FORMATS["ogg-opus"](media.tone(3, 48_000), 48_000)


def _samples(count: int, codec: bytes = b".mp3") -> bytes:
    """An index of so many samples of one byte, none of which it spells out."""
    stts, stsc = full_box(b"stts", table(1, count, 1)), full_box(b"stsc", table(1, 1, count, 1))
    return mp4(Track(codec=codec, stsz=full_box(b"stsz", table(1, count)), stts=stts, stsc=stsc))


def _deep_tags(depth: int) -> bytes:
    tag = b""
    for _ in range(depth):
        tag = element(0x67C8, tag)
    return element(0x1254C367, element(0x7373, tag))


WAVES: Mapping[str, Case] = {
    "10,000 channels": Case(lambda: wav(channels=10_000), UNSUPPORTED),
    "65,535 channels": Case(lambda: wav(channels=65_535, block=65_534, data=SECOND * 10), UNSUPPORTED),
    "no channels": Case(lambda: wav(channels=0), UNSUPPORTED),
    "33 channels": Case(lambda: wav(channels=33), UNSUPPORTED),
    "a sample rate of 0": Case(lambda: wav(rate_hz=0), UNREADABLE),
    "a sample rate of 1": Case(lambda: wav(rate_hz=1), UNSUPPORTED),
    "a sample rate of 2^31": Case(lambda: wav(rate_hz=1 << 31), UNREADABLE),
    "a sample rate of 2^32 - 1": Case(lambda: wav(rate_hz=(1 << 32) - 1), UNREADABLE),
    "a sample rate over the limit": Case(lambda: wav(rate_hz=384_001), UNSUPPORTED),
    "samples of no bits": Case(lambda: wav(bits=0), UNSUPPORTED),
    "samples of 65,535 bits": Case(lambda: wav(bits=65_535, block=2), UNSUPPORTED),
    "a block of 0": Case(lambda: wav(block=0), 1.0),
    "a block of 65,535": Case(lambda: wav(block=65_535), 1.0),
    "one sample": Case(lambda: wav(data=SECOND[:2]), 1 / 16_000),
    "half a sample": Case(lambda: wav(data=SECOND[:1]), UNREADABLE),
    "no data": Case(lambda: wav(data=b""), EMPTY),
    "no data chunk": Case(lambda: riff(wav_format()), UNREADABLE),
    "no format": Case(lambda: riff(chunk(b"data", SECOND)), UNREADABLE),
    "a format of 4 GB": Case(
        lambda: riff(chunk(b"fmt ", wav_format()[8:], 0xFFFFFFF0), chunk(b"data", SECOND)), UNREADABLE
    ),
    "two formats": Case(lambda: riff(wav_format(), wav_format(rate_hz=8_000), chunk(b"data", SECOND)), 1.0),
    "data that says 2 bytes": Case(lambda: riff(wav_format(), chunk(b"data", SECOND, 2)), 1 / 16_000),
    "data that says 4 GB": Case(lambda: riff(wav_format(), chunk(b"data", SECOND, 0xFFFFFFFE)), 1.0, truncated=True),
    "49 days at 1 kHz": Case(
        lambda: riff(wav_format(1_000, bits=8), chunk(b"data", SECOND, 0xFFFFFFFE)), 32.0, truncated=True
    ),
    "a list of 4 GB": Case(lambda: riff(wav_format(), chunk(b"LIST", b"INFO", 0xFFFFFFF0)), UNREADABLE),
    "2,000 nested lists": Case(lambda: riff(wav_format(), nested_lists(2_000), chunk(b"data", SECOND)), 1.0),
    "100,000 chunks": Case(lambda: riff(wav_format(), chunk(b"junk", b"") * 100_000, chunk(b"data", SECOND)), 1.0),
    "20,000 lists": Case(
        lambda: riff(
            wav_format(), chunk(b"LIST", b"INFO" + chunk(b"INAM", b"x" * 10)) * 20_000, chunk(b"data", SECOND)
        ),
        1.0,
    ),
    "a description of 2 GB": Case(
        lambda: riff(chunk(b"bext", b"", 0x7FFFFFF0), wav_format(), chunk(b"data", SECOND)), LIMIT
    ),
    "an ID3 chunk of 256 MB": Case(
        lambda: riff(wav_format(), chunk(b"id3 ", id3(size=(1 << 28) - 1)), chunk(b"data", SECOND)), 1.0
    ),
    "RF64 of 100 years": Case(lambda: rf64(YEARS_100_S * 32_000, YEARS_100_S * 16_000), TOO_LONG),
    "RF64 of 2^63 bytes": Case(lambda: rf64(1 << 63, 1 << 62), UNREADABLE),
    "RF64 of 2^64 - 1 bytes": Case(lambda: rf64((1 << 64) - 1, (1 << 64) - 1), UNREADABLE),
    "RF64 of no bytes": Case(lambda: rf64(0, 0), EMPTY),
    "RF64 with a table of 2^32 - 1": Case(lambda: rf64(32_000, 16_000, table_entries=(1 << 32) - 1), 1.0),
    "W64 of 100 years": Case(lambda: wave64(24 + YEARS_100_S * 32_000), 1.0, truncated=True),
    "W64 of no bytes": Case(lambda: wave64(0), UNREADABLE),
    "W64 of 2^63 bytes": Case(lambda: wave64(1 << 63), UNREADABLE),
}

MP4S: Mapping[str, Case] = {
    "10,000 tracks": Case(lambda: mp4(*[Track()] * 10_000), LIMIT),
    "257 tracks": Case(lambda: mp4(*[Track()] * 257), LIMIT),
    "1 tick": Case(lambda: mp4(Track(duration=1), duration=1), 1.0),
    "136 years": Case(lambda: mp4(Track(duration=(1 << 32) - 1), duration=(1 << 32) - 1), 1.0),
    "a sample rate of 0": Case(lambda: mp4(Track(rate_hz=0)), UNSUPPORTED),
    "65,535 channels": Case(lambda: mp4(Track(channels=65_535)), UNSUPPORTED),
    "2^31 times": Case(lambda: mp4(Track(stts=full_box(b"stts", table(1 << 31, 16_000, 1)))), LIMIT),
    "2^31 times in a box of 4 GB": Case(
        lambda: mp4(Track(stts=full_box(b"stts", table(1 << 31, 16_000, 1), size=0xFFFFFFF0))), LIMIT
    ),
    "one time for 2^32 samples": Case(
        lambda: mp4(Track(stts=full_box(b"stts", table(1, (1 << 32) - 1, (1 << 32) - 1)))), 1.0
    ),
    "2^31 samples of one byte": Case(lambda: _samples(1 << 31), UNREADABLE),
    "2^28 samples of one byte": Case(lambda: _samples(1 << 28), UNREADABLE),
    "2^24 samples of one byte": Case(lambda: _samples(1 << 24), UNREADABLE),
    "2^31 samples of AAC": Case(lambda: _samples(1 << 31, b"mp4a"), UNREADABLE),
    "2^30 chunk offsets": Case(lambda: mp4(Track(stco=full_box(b"stco", table(1 << 30, 48)))), 1.0),
    "2^31 runs of chunks": Case(lambda: mp4(Track(stsc=full_box(b"stsc", table(1 << 31, 1, 1, 1)))), UNREADABLE),
    "the same second a quarter of a million times": Case(
        lambda: mp4(Track(samples=16_000 * 250_000, chunks=[48] * 250_000, duration=(1 << 32) - 1)), LIMIT
    ),
    "the same second 20,000 times, of which it says one": Case(
        lambda: mp4(Track(samples=16_000 * 20_000, chunks=[48] * 20_000)), LIMIT
    ),
    "5,000 boxes in each other": Case(lambda: mp4(Track(), extra=nested_boxes(5_000)), UNREADABLE),
    "3,000 movies in each other": Case(lambda: mp4(Track(), extra=nested_boxes(3_000, b"moov")), UNREADABLE),
    "100,000 boxes": Case(lambda: mp4(Track(), extra=box(b"udta") * 100_000), 1.0),
    "a box of 2^63 bytes": Case(lambda: mp4(Track(), extra=long_box(b"udta", b"x", 1 << 63)), 1.0),
    "a box of 4 bytes": Case(lambda: mp4(Track(), extra=box(b"udta", size=4)), 1.0),
    "data of 2^63 bytes in front": Case(
        lambda: box(b"ftyp", b"isom", bytes(4)) + long_box(b"mdat", SECOND, (1 << 63) - 1), UNREADABLE
    ),
    "a name of 2 GB": Case(lambda: mp4(Track(), extra=box(b"udta", box(b"\xa9nam", b"x", size=0x7FFFFFFF))), 1.0),
}

MATROSKAS: Mapping[str, Case] = {
    "10,000 tracks": Case(lambda: mkv([mkv_track(number + 1) for number in range(10_000)]), LIMIT),
    "257 tracks": Case(lambda: mkv([mkv_track(number + 1) for number in range(257)]), LIMIT),
    "1 µs": Case(lambda: mkv(duration=0.001), 1.0),
    "100 years": Case(lambda: mkv(duration=YEARS_100_S * 1_000.0), TOO_LONG),
    "not a number": Case(lambda: mkv(duration=float("nan")), 1.0),
    "an infinite length": Case(lambda: mkv(duration=float("inf")), 1.0),
    "a length below zero": Case(lambda: mkv(duration=-1.0), 1.0),
    "an unknown size": Case(lambda: mkv(size=UNKNOWN_SIZE), 1.0),
    "an hour of zlib": Case(lambda: zlib_mkv(3_600), LIMIT),
    "200 MB in one block": Case(
        lambda: mkv([mkv_track(encoding=compression(0))], [cluster(zlib.compress(bytes(200_000_000), 9))]), UNREADABLE
    ),
    "headers stripped off blocks of 100 bytes": Case(
        lambda: mkv([mkv_track(encoding=compression(3, b"\x01\x02" * 50))], [cluster(*[SECOND[:100]] * 100)]), 0.625
    ),
    "an element of 2^55 bytes": Case(lambda: mkv(extra=element(0x1254C367, b"x", b"\x01" + b"\x7f" * 7)), UNREADABLE),
    "2,000 tags in each other": Case(lambda: mkv(extra=_deep_tags(2_000)), 1.0),
    "an attachment that is named like a path": Case(
        lambda: mkv(
            extra=element(
                0x1941A469,
                element(
                    0x61A7,
                    element(0x466E, b"../../../tmp/x")
                    + element(0x4660, b"text/plain")
                    + element(0x465C, b"x")
                    + uint(0x46AE, 1),
                ),
            )
        ),
        1.0,
    ),
}

STREAMS: Mapping[str, Case] = {
    "Ogg of 100 years": Case(lambda: with_last_granule(_opus(), YEARS_100_S * 48_000), TOO_LONG),
    "Ogg of 2^63 - 1 samples": Case(lambda: with_last_granule(_opus(), (1 << 63) - 1), TOO_LONG),
    "Ogg of one sample": Case(lambda: with_last_granule(_opus(), 1), 3.0),
    "Ogg of less than no samples": Case(lambda: with_last_granule(_opus(), -5), 3.0, truncated=True),
    "Ogg with half a million empty packets": Case(
        lambda: (
            _opus()
            + b"".join(
                ogg_page(bytes(255), b"", serial=int.from_bytes(_opus()[14:18], "little"), sequence=100 + number)
                for number in range(2_000)
            )
        ),
        3.0,
        truncated=True,
    ),
    "Ogg with 10,000 streams": Case(
        lambda: b"".join(ogg_page(bytes([19]), _opus()[28:47], serial=number, flags=2) for number in range(10_000)),
        LIMIT,
    ),
    "FLAC of 50 days": Case(lambda: with_flac_info(_flac(), samples=(1 << 36) - 1), TOO_LONG),
    "FLAC of one sample": Case(lambda: with_flac_info(_flac(), samples=1), 3.0),
    "FLAC at 1 Hz by its header": Case(lambda: with_flac_info(_flac(), rate_hz=1), LIMIT),
    "FLAC at 0 Hz by its header": Case(lambda: with_flac_info(_flac(), rate_hz=0), 3.0),
    "FLAC with 10,000 empty blocks": Case(lambda: _flac()[:42] + bytes([1, 0, 0, 0]) * 10_000 + _flac()[42:], 3.0),
    "FLAC of 13 hours in 90 kB": Case(lambda: flac_bomb(6_000), LIMIT),
    "FLAC that says so": Case(lambda: with_flac_info(flac_bomb(6_000), samples=6_000 * 65_535), LIMIT),
    "MP3 with 2^32 - 1 frames": Case(lambda: with_xing(_mp3(), (1 << 32) - 1), TOO_LONG),
    "MP3 with one frame": Case(lambda: with_xing(_mp3(), 1), 3.1),
    "MP3 behind a tag of 256 MB": Case(lambda: id3(size=(1 << 28) - 1) + _mp3(), UNREADABLE),
    "MP3 behind 2,000 tags": Case(lambda: id3((b"TIT2", b"\0x")) * 2_000 + _mp3(), UNSUPPORTED),
    "MP3 behind two tags": Case(lambda: id3((b"TIT2", b"\0x")) * 2 + _mp3(), 3.1),
    "MP3 behind a picture of 20 MB": Case(
        lambda: id3((b"APIC", b"\0image/png\0\3\0" + bytes(20_000_000))) + _mp3(), 3.1
    ),
    "MP3 behind 50,000 frames of a tag": Case(lambda: id3(*[(b"TXXX", b"\0a\0b")] * 50_000) + _mp3(), 3.1),
}

CASES: Mapping[str, Case] = {
    **{f"WAV with {name}": case for name, case in WAVES.items()},
    **{f"MP4 with {name}": case for name, case in MP4S.items()},
    **{f"Matroska with {name}": case for name, case in MATROSKAS.items()},
    **STREAMS,
}
