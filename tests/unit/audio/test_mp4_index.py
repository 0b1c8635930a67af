"""A long MP4 in windows sounds as FFmpeg lets it sound as a whole, to the last bit."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable

import pytest

from consumer.audio import opening
from consumer.audio.mp4_boxes import Unusual
from consumer.audio.mp4_index import _taken_apart
from consumer.audio.protocol import CannotDecode, Ending
from tests import media
from tests.unit.audio.windows import (
    SECONDS,
    WHOLE,
    Heard,
    assert_the_confined_process_hears_windows_alike,
    but_length,
    sound,
    tags,
)


def mp4(codec: str, container: str = "mp4", rate_hz: int = 48_000, channels: int = 1, **options: str) -> bytes:
    return media.encode(sound(rate_hz, channels), rate_hz, container, codec, options=options or None)


FILES: dict[str, Callable[[], bytes]] = {
    "aac, index at the end": lambda: mp4("aac", "ipod"),
    "aac, index in front": lambda: mp4("aac", movflags="+faststart"),
    "aac, stereo": lambda: mp4("aac", rate_hz=44_100, channels=2),
    "aac, quicktime": lambda: mp4("aac", "mov"),
    "aac, no edit list": lambda: mp4("aac", use_editlist="0"),
    "aac, beside a picture": lambda: media.encode(sound(), 48_000, "mp4", "aac", picture=True),
    "alac": lambda: mp4("alac", "ipod"),
    "opus": lambda: mp4("libopus"),
    "mp3": lambda: mp4("libmp3lame"),
    "ac3, packets of one size": lambda: mp4("ac3"),
    "two sound tracks": lambda: media.tracks([sound(16_000), sound(16_000, seconds=8.0)[:, ::-1]], "mp4", "aac"),
    "one chunk for all": lambda: in_one_chunk(mp4("aac", "ipod")),
    "priming in tags": lambda: changed(mp4("aac", "ipod", use_editlist="0"), (b"moov",), lambda moov: moov + tags(704)),
    "priming in the track's tags": lambda: changed(
        mp4("aac", "ipod", use_editlist="0"), (b"moov", b"trak"), lambda trak: trak + tags(704)
    ),
}


def in_one_chunk(data: bytes) -> bytes:
    """The packets lie one behind the other anyway; as the index is at the end, it may be of another length."""
    at = data.rindex(b"stsc") - 4
    (length,) = struct.unpack_from(">I", data, at)
    runs = data[at + 16 : at + length]
    packets = struct.unpack_from(">I", data, data.rindex(b"stsz") + 12)[0]
    one = struct.pack(">III", 1, packets, 1) + runs[12:]  # of the other runs, the count below leaves nothing
    data = data[: at + 12] + struct.pack(">I", 1) + one + data[at + length :]
    chunks = data.rindex(b"stco") + 8
    return data[:chunks] + struct.pack(">I", 1) + data[chunks + 4 :]


@pytest.mark.parametrize("at_once", [7, 64, 130])
@pytest.mark.parametrize("name", FILES)
def test_windows_sound_as_the_whole(name: str, at_once: int) -> None:
    data = FILES[name]()
    whole, windows = Heard(data, WHOLE), Heard(data, at_once)
    assert (whole.in_windows, windows.in_windows) == (False, True)
    assert windows.pcm == whole.pcm
    assert windows.ending == whole.ending == Ending()
    assert but_length(windows.facts) == but_length(whole.facts)
    assert (windows.facts.hint_is_exact, whole.facts.hint_is_exact) == (True, True)
    assert windows.facts.duration_hint_s == pytest.approx(whole.facts.duration_hint_s, abs=0.002)


@pytest.mark.parametrize("track", [0, 1])
def test_the_track_that_is_asked_for_is_heard_to_its_end(track: int) -> None:
    data = FILES["two sound tracks"]()
    windows = Heard(data, 20, track=track)
    assert windows.pcm == Heard(data, WHOLE, track=track).pcm
    assert len(windows.pcm) == pytest.approx((SECONDS, 8.0)[track] * 32_000, abs=32_000 * 0.1)


def test_channels_are_kept_apart_over_windows() -> None:
    data = FILES["aac, stereo"]()
    assert Heard(data, 33, by_channel=True).pcm == Heard(data, WHOLE, by_channel=True).pcm


def test_a_file_that_breaks_off_is_heard_to_there_and_says_so() -> None:
    data = FILES["aac, index in front"]()
    cut = data[: len(data) * 2 // 3]
    whole, windows = Heard(cut, WHOLE), Heard(cut, 50)
    assert windows.in_windows
    assert windows.ending.broken_off
    assert len(windows.pcm) == pytest.approx(len(whole.pcm), abs=2 * 1024)
    assert len(windows.pcm) > 200_000


UNUSUAL: dict[str, tuple[Callable[[], bytes], str]] = {
    "fragments": (lambda: mp4("aac", movflags="+frag_keyframe+empty_moov", frag_duration="1000000"), "fragments"),
    "samples as they are": (lambda: mp4("pcm_s16le", "mov"), "samples as they are"),
    "short": (lambda: media.encode(sound(seconds=0.5), 48_000, "ipod", "aac"), "short"),
    "no sound": (lambda: media.silent_film(), "none or too many sound tracks"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_ffmpeg(name: str) -> None:
    make, reason = UNUSUAL[name]
    data = make()
    with pytest.raises(Unusual, match=reason):
        _taken_apart(io.BytesIO(data), len(data), 50)
    if name != "no sound":
        assert Heard(data, 50).pcm == Heard(data, WHOLE).pcm


SAMPLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def changed(data: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """With another content in the first box of that path; what lies behind the packets may be of another length."""
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == path[0]:
            inner = data[at + 8 : at + length]
            inner = changed(inner, path[1:], change) if path[1:] else change(inner)
            return data[:at] + struct.pack(">I4s", 8 + len(inner), kind) + inner + data[at + length :]
        at += length
    raise AssertionError(f"no {path}")


def edits(*rows: tuple[int, int]) -> bytes:
    """Each with its length in ms and its start in samples."""
    content = bytes(4) + struct.pack(">I", len(rows)) + b"".join(struct.pack(">IiI", *row, 1 << 16) for row in rows)
    return struct.pack(">I4s", 8 + len(content), b"elst") + content


def aac_with(path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    return changed(mp4("aac", "ipod"), path, change)


def in_durations(first: int, then: int) -> bytes:
    """Half of the packets each, without an edit."""

    def durations(stts: bytes) -> bytes:
        count = sum(struct.unpack_from(">I", stts, at)[0] for at in range(8, len(stts), 8))
        return struct.pack(">IIIIII", 0, 2, count // 2, first, count - count // 2, then)

    return changed(mp4("aac", "ipod", use_editlist="0"), (*SAMPLES, b"stts"), durations)


def with_one_sync_packet(tables: bytes) -> bytes:
    return tables + struct.pack(">I4sIII", 20, b"stss", 0, 1, 1)


def shorter_than_a_tick() -> bytes:
    data = aac_with((b"moov", b"trak", b"edts"), lambda _: edits((1, 0)))
    data = changed(data, (b"moov", b"mvhd"), lambda mvhd: mvhd[:12] + struct.pack(">I", 10**9) + mvhd[16:])
    return changed(data, (*SAMPLES, b"stts"), lambda stts: stts[:12] + bytes(4) + stts[16:])


def behind_all_files() -> bytes:
    data = aac_with((*SAMPLES, b"stco"), lambda _: struct.pack(">IIQ", 0, 1, (1 << 64) - 1))
    return data.replace(b"stco", b"co64")


ODD: dict[str, Callable[[], bytes]] = {
    "an edit of no length": lambda: aac_with((b"moov", b"trak", b"edts"), lambda _: edits((0, 1024))),
    "an edit shorter than a tick": shorter_than_a_tick,
    "a pause behind the edit": lambda: aac_with((b"moov", b"trak", b"edts"), lambda _: edits((9000, 0), (500, -1))),
    "an edit list of nothing": lambda: aac_with((b"moov", b"trak", b"edts", b"elst"), lambda _: b""),
    "durations of 1": lambda: in_durations(1, 1),
    "durations of 2, then of 1": lambda: in_durations(2, 1),
    "two descriptions": lambda: aac_with(
        (*SAMPLES, b"stsd"), lambda stsd: stsd[:4] + struct.pack(">I", 2) + stsd[8:] * 2
    ),
    "a place behind all files": behind_all_files,
    "packets that cannot be begun with": lambda: aac_with(SAMPLES, with_one_sync_packet),
    "a sound track that does not say so": lambda: changed(
        FILES["two sound tracks"](), (b"moov", b"trak", b"mdia", b"hdlr"), lambda hdlr: hdlr[:8] + b"????" + hdlr[12:]
    ),
    "two sound tracks, none of them marked": lambda: changed(
        FILES["two sound tracks"](), (b"moov", b"trak", b"tkhd"), lambda tkhd: bytes(4) + tkhd[4:]
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_windows_would_change_is_left_to_ffmpeg(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ODD[name]()
    odd = Heard(data, 50)
    monkeypatch.setattr(opening, "taken_apart", lambda *_: None)
    whole = Heard(data, 50)
    assert (odd.in_windows, odd.pcm, odd.ending, odd.facts) == (False, whole.pcm, whole.ending, whole.facts)


def test_packets_that_claim_to_last_longer_than_they_sound_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = in_durations(1024, 2048)
    windows = Heard(data, 50)
    monkeypatch.setattr(opening, "taken_apart", lambda *_: None)
    whole = Heard(data, 50)
    assert windows.in_windows
    assert (windows.facts, windows.ending) == (whole.facts, Ending())


def test_what_lies_behind_a_place_outside_of_the_file_is_not_heard_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes such a packet for the last: going on with the next window would leave a hole in time."""

    def lead_out(stco: bytes) -> bytes:
        middle = 8 + len(stco) // 8 * 4
        return stco[:middle] + struct.pack(">I", 1 << 30) + stco[middle + 4 :]

    data = changed(FILES["two sound tracks"](), (*SAMPLES, b"stco"), lead_out)
    windows = Heard(data, 300, track=0)
    monkeypatch.setattr(opening, "taken_apart", lambda *_: None)
    whole = Heard(data, 300, track=0)
    assert windows.in_windows
    assert len(whole.pcm) < 0.9 * SECONDS * 32_000
    assert (windows.pcm, windows.ending) == (whole.pcm, whole.ending)


def test_a_spoiled_index_ends_in_sound_or_a_verdict() -> None:
    """Beside `make fuzz`, which has its windows short as well: here bits of the index alone are turned."""
    random_bits = random.Random(1)
    data = media.encode(sound(16_000, seconds=4.0), 16_000, "ipod", "aac")
    index = data.index(b"moov")
    outcomes = {"windows": 0, "whole": 0, "verdict": 0}
    for _ in range(150):
        spoiled = bytearray(data)
        for _ in range(random_bits.choice((1, 2, 4))):
            spoiled[random_bits.randrange(index, len(data))] ^= 1 << random_bits.randrange(8)
        try:
            heard = Heard(bytes(spoiled), 10)
        except CannotDecode:
            outcomes["verdict"] += 1
        except MemoryError:  # to be had without windows too: FFmpeg's word for a table that is too long
            outcomes["verdict"] += 1
        else:
            outcomes["windows" if heard.in_windows else "whole"] += 1
    assert min(outcomes.values()) >= 3, outcomes


def test_the_confined_process_decodes_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_the_confined_process_hears_windows_alike(FILES["aac, beside a picture"](), monkeypatch)
