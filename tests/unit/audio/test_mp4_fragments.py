"""A fragmented MP4 in windows sounds as FFmpeg lets it sound as a whole, to the last bit."""

from __future__ import annotations

import functools
import io
import random
import struct
from collections.abc import Callable
from fractions import Fraction

import av
import pytest

from consumer.audio import mp4_fragments, opening
from consumer.audio.decoder_process import Decoding
from consumer.audio.mp4_boxes import MAX_COPY_BYTES, Unusual
from consumer.audio.mp4_fragments import FragmentedMp4, _in_fragments
from consumer.audio.positioned import Positioned
from consumer.audio.protocol import CannotDecode, Ending, Order
from consumer.audio.resampling import Resampler
from consumer.audio.sniff import MP4_SOUND
from consumer.audio.source import ReadAhead
from tests import media
from tests.hostile_media import box
from tests.unit.audio.sources import BytesSource
from tests.unit.audio.windows import (
    SECONDS,
    WHOLE,
    Heard,
    assert_the_confined_process_hears_windows_alike,
    but_length,
    sound,
    tags,
)

PLAIN = "+empty_moov+default_base_moof"
EARLIER, ANEW = "some fragments earlier than they should be", "time that begins anew"
TWICE, EDITED = "two recordings one behind the other", "the first second in the head, and an edit"
LATE = "an edit that leaves out the first second"
HEARD_IN_PART = (EARLIER, ANEW, TWICE, EDITED, LATE)
"""FFmpeg leaves out what is earlier than what it has heard, and what its edit leaves out."""


def fragments(
    codec: str = "aac", flags: str = PLAIN, container: str = "mp4", rate_hz: int = 48_000, **more: str
) -> bytes:
    """Of one second, 47 packets of AAC at 48 kHz."""
    return moved(media.encode(sound(rate_hz), rate_hz, container, codec), flags, container, **more)


def moved(data: bytes, flags: str = PLAIN, container: str = "mp4", **more: str) -> bytes:
    """The same packets in fragments."""
    out = io.BytesIO()
    options = {"movflags": flags, "frag_duration": "1000000", **more}
    with av.open(io.BytesIO(data), "r") as source, av.open(out, "w", format=container, options=options) as file:
        streams = [file.add_stream_from_template(one) for one in source.streams]
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                file.mux(packet)
    return out.getvalue()


def boxes(data: bytes) -> list[bytes]:
    """Those of the file, in their order."""
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append(data[at : at + length])
        at += length
    return found


@functools.cache
def plain() -> bytes:
    return fragments()


def with_boxes(change: Callable[[int, bytes], bytes], data: bytes | None = None) -> bytes:
    """Each box changed; boxes 0 and 1 are `ftyp` and `moov`, and then come thirteen times `moof` and `mdat`."""
    return b"".join(change(number, one) for number, one in enumerate(boxes(data or plain())))


def at_times(change: Callable[[int, int], int]) -> bytes:
    """With another time in each fragment, by its number and the one that it has, in ticks."""
    count = 0

    def one(_: int, content: bytes) -> bytes:
        nonlocal count
        if content[4:8] != b"moof":
            return content
        at = content.index(b"tfdt") + 8
        time = change(count, struct.unpack_from(">Q", content, at)[0])
        count += 1
        return content[:at] + struct.pack(">Q", time) + content[at + 8 :]

    return with_boxes(one)


def with_others_between() -> bytes:
    other = box(b"free", bytes(5)) + box(b"styp", b"msdh", bytes(4)) + box(b"emsg", bytes(40))
    return with_boxes(lambda number, one: other + one if number > 3 and one[4:8] == b"moof" else one)


def with_long_sizes() -> bytes:
    """The box of the packets has a size of 64 bits, so they begin 8 bytes later."""

    def one(_: int, content: bytes) -> bytes:
        if content[4:8] == b"mdat":
            return struct.pack(">I4sQ", 1, b"mdat", len(content) + 8) + content[8:]
        if content[4:8] == b"moof":
            at = content.index(b"trun") + 12
            return content[:at] + struct.pack(">I", struct.unpack_from(">I", content, at)[0] + 8) + content[at + 4 :]
        return content

    return with_boxes(one)


def endless() -> bytes:
    """The last box goes on to the end of the file."""
    last = len(boxes(plain())) - 2  # behind it is mfra
    return with_boxes(lambda number, one: bytes(4) + one[4:] if number == last else one if number < last else b"")


def with_priming_in_tags() -> bytes:
    return with_boxes(lambda number, one: box(b"moov", one[8:], tags(2112)) if number == 1 else one)


def edited(ticks: int) -> bytes:
    """With an edit that leaves out so much of the start: FFmpeg's own encoder of AAC writes 1,024."""
    data = fragments(flags=PLAIN + "+delay_moov", use_editlist="1")
    at = data.index(b"elst") + 16
    assert data[at - 12 : at + 4] == struct.pack(">IIII", 0, 1, 0, 0)
    return data[:at] + struct.pack(">I", ticks) + data[at + 4 :]


def in_head(kind: bytes, content: bytes) -> bytes:
    """With the first second in the head, and another content of a box there, behind its version."""

    def one(number: int, moov: bytes) -> bytes:
        if number != 1:
            return moov
        at = moov.index(kind) + 8
        return moov[:at] + content + moov[at + len(content) :]

    return with_boxes(one, fragments(flags="+frag_keyframe"))


def two_tracks(seconds: tuple[float, float] = (SECONDS, 8.0)) -> bytes:
    signals = [sound(16_000, seconds=seconds[0]), sound(16_000, seconds=seconds[1])[:, ::-1]]
    return moved(media.tracks(signals, "mp4", "aac"))


FILES: dict[str, Callable[[], bytes]] = {
    "offsets from the fragment": plain,
    "offsets from the file": lambda: fragments(flags="+empty_moov"),
    "offsets from the packets before": lambda: fragments(flags="+empty_moov+omit_tfhd_offset"),
    "offsets from the packets of the other track": lambda: moved(
        media.tracks([sound(16_000), sound(16_000, seconds=8.0)[:, ::-1]], "mp4", "aac"), "+empty_moov+omit_tfhd_offset"
    ),
    "an edit that leaves out the encoder's delay": lambda: edited(1_024),
    LATE: lambda: edited(50_000),
    "segments of DASH": lambda: fragments(flags="+dash"),
    "CMAF": lambda: fragments(flags="+cmaf"),
    "a fragment for each packet": lambda: fragments(flags="+empty_moov+frag_every_frame"),
    "quicktime": lambda: fragments(container="mov"),
    "the first second in the head": lambda: fragments(flags="+frag_keyframe"),
    EDITED: lambda: fragments(flags="+frag_keyframe", use_editlist="1"),
    "the first second in the head, of a film": lambda: moved(
        media.encode(sound(), 48_000, "mp4", "aac", picture=True), "+frag_keyframe"
    ),
    "beside a picture": lambda: moved(media.encode(sound(), 48_000, "mp4", "aac", picture=True)),
    "apart from a picture": lambda: moved(
        media.encode(sound(), 48_000, "mp4", "aac", picture=True), PLAIN + "+separate_moof"
    ),
    "stereo": lambda: moved(media.encode(sound(44_100, 2), 44_100, "ipod", "aac")),
    "opus": lambda: fragments("libopus"),
    "alac": lambda: fragments("alac", container="ipod"),
    "mp3": lambda: fragments("libmp3lame"),
    "pcm": lambda: fragments("pcm_s16le", container="mov", rate_hz=16_000),
    "two sound tracks": two_tracks,
    "other boxes between": with_others_between,
    "sizes of 64 bits": with_long_sizes,
    "packets to the end of the file": endless,
    "priming in tags": with_priming_in_tags,
    "a live stream from its second hour on": lambda: at_times(lambda _, time: time + 3600 * 48_000),
    "pauses": lambda: at_times(lambda number, time: time + number // 3 * 90_000),
    EARLIER: lambda: at_times(lambda number, time: time - (4_000 if number % 3 else 0)),
    ANEW: lambda: at_times(lambda number, time: time if number < 5 else time - 5 * 48_128),
    TWICE: lambda: plain() * 2,
}


def as_before(monkeypatch: pytest.MonkeyPatch, data: bytes, track: int | None = None) -> Heard:
    """As a whole, all of its fragments left to FFmpeg."""
    with monkeypatch.context() as changed:
        changed.setattr(opening, "in_fragments", lambda *_: None)
        return Heard(data, WHOLE, track)


class Fetched(Positioned, io.BytesIO):  # what FFmpeg is given is a file object
    def __init__(self, ahead: ReadAhead) -> None:
        super().__init__(ahead.size_bytes)
        self._ahead = ahead
        self.read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._ahead.read(self._at, self._left(-1 if size is None else size))
        self._at += len(data)
        self.read_bytes += len(data)
        return data


def taken(data: bytes, at_once: int) -> FragmentedMp4:
    return _in_fragments(io.BytesIO(data), len(data), at_once)


@pytest.mark.parametrize("name", FILES)
def test_windows_sound_as_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES[name]()
    whole = as_before(monkeypatch, data)
    for at_once in (7, 64, 130, WHOLE):
        windows = Heard(data, at_once)
        assert (whole.in_windows, windows.in_windows) == (False, True)
        assert windows.pcm == whole.pcm
        # A length that is known counts what the edit leaves out, as with FFmpeg by itself.
        assert windows.ending == (whole.ending if (name, at_once) == (LATE, WHOLE) else Ending())
        assert but_length(windows.facts) == but_length(whole.facts)
        assert windows.facts.hint_is_exact == (at_once == WHOLE)
        if name not in HEARD_IN_PART:
            apart = 0.02 if at_once == WHOLE else 0.3
            assert windows.facts.duration_hint_s == pytest.approx(len(whole.pcm) / 32_000, rel=apart)
    assert len(whole.pcm) > 8.0 * 32_000


@pytest.mark.parametrize("track", [0, 1])
def test_the_track_that_is_asked_for_is_heard_to_its_end(track: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_tracks()
    windows = Heard(data, 20, track)
    assert windows.in_windows
    assert windows.pcm == as_before(monkeypatch, data, track).pcm
    assert len(windows.pcm) == pytest.approx((SECONDS, 8.0)[track] * 32_000, abs=32_000 * 0.1)


def test_no_window_is_longer_than_it_should_be() -> None:
    """But for the fragment that it ends with; together they are all fragments."""
    long = taken(plain(), 100)
    front = len(boxes(plain())[0] + boxes(plain())[1])
    shown = []
    window = long.first()
    long.choose(0)
    while True:
        show = io.BytesIO(b"".join(iter(functools.partial(window.read, 1 << 12), b"")))
        kinds = [one[4:8] for one in boxes(show.getvalue())]
        assert kinds.count(b"moof") <= 3
        shown += [one for one in boxes(show.getvalue()) if one[4:8] in (b"moof", b"mdat")]
        assert show.getvalue()[:front].replace(b"skip", b"udta") == plain()[:front]
        if not long.has_more:
            break
        window = long.following()
    assert shown == [one for one in boxes(plain()) if one[4:8] in (b"moof", b"mdat")]


def test_a_window_ends_by_its_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4_fragments, "WINDOW_BYTES", 10_000)
    long = taken(plain(), WHOLE)
    long.first()
    assert long.has_more
    assert Heard(plain(), WHOLE).pcm == as_before(monkeypatch, plain()).pcm


def test_fragments_are_followed_by_their_heads_alone() -> None:
    class Counted(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_bytes += len(data)
            return data

    data = fragments("alac", container="ipod")
    file = Counted(data)
    long = _in_fragments(file, len(data), WHOLE)
    long.first()
    assert not long.has_more
    assert file.read_bytes < len(data) / 20


def test_the_bytes_of_a_file_are_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window has room in what the parent keeps at hand, so that going through it twice is no matter to the store."""
    data = fragments("alac", container="ipod")
    monkeypatch.setattr(mp4_fragments, "WINDOW_BYTES", 1 << 17)

    def fetched_bytes() -> int:
        with ReadAhead(BytesSource(data), block_bytes=1 << 16) as ahead:
            order = Order(len(data), 1 << 30, 60)
            container, stream, _, windows = opening.opened(Fetched(ahead), MP4_SOUND, order)
            with container:
                assert sum(map(len, Decoding(container, stream, Resampler(), windows=windows).pcm())) == 384_000
            return ahead.fetched_bytes

    assert fetched_bytes() < 1.1 * len(data)
    monkeypatch.setattr(opening, "in_fragments", lambda *_: None)
    assert fetched_bytes() > 1.5 * len(data)


def test_pictures_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg looks for what they are when it opens a file: once is enough."""
    data = film()
    monkeypatch.setattr(mp4_fragments, "WINDOW_BYTES", 1 << 20)
    with ReadAhead(BytesSource(data)) as ahead:
        file = Fetched(ahead)
        container, stream, _, windows = opening.opened(file, MP4_SOUND, Order(len(data), 1 << 30, 60))
        with container:
            pcm = b"".join(Decoding(container, stream, Resampler(), windows=windows).pcm())
    assert len(pcm) == pytest.approx(SECONDS * 32_000, abs=32_000 * 0.1)
    assert file.read_bytes < len(data) / 2


def film() -> bytes:
    """7 MB of pictures that nobody can look at, and a little sound."""
    out = io.BytesIO()
    options = {"movflags": PLAIN, "frag_duration": "1000000"}
    voice = io.BytesIO(media.encode(sound(), 48_000, "ipod", "aac"))
    with av.open(voice, "r") as source, av.open(out, "w", format="mp4", options=options) as file:
        pictures = file.add_stream("mpeg4", rate=5)
        pictures.width, pictures.height, pictures.pix_fmt = 1920, 1080, "yuv420p"
        heard = file.add_stream_from_template(source.streams.audio[0])
        shown = 0
        for packet in source.demux(audio=0):
            if not packet.size or packet.dts is None:
                continue
            while shown / 5 <= packet.dts / 48_000:
                picture = av.Packet(random.Random(shown).randbytes(120_000))
                picture.stream, picture.time_base, picture.is_keyframe = pictures, Fraction(1, 5), True
                picture.pts = picture.dts = shown
                picture.duration = 1
                file.mux(picture)
                shown += 1
            packet.stream = heard
            file.mux(packet)
    return out.getvalue()


def test_where_time_never_goes_on_there_are_no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = at_times(lambda number, time: time - number * 4_000)
    heard, whole = Heard(data, 7), as_before(monkeypatch, data)
    assert (heard.in_windows, heard.pcm, heard.facts) == (False, whole.pcm, whole.facts)


# ── files that break off, or are damaged ────────────────────────────────────────────────────────────────────────────


def test_a_file_that_breaks_off_is_heard_to_there_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within the head of a fragment, where FFmpeg refuses the whole file; nothing shows a cut between two."""
    pieces = boxes(plain())
    moof = sum(map(len, pieces[:20]))
    mdat = moof + len(pieces[20])
    before = Heard(plain()[:moof], 100)
    assert before.ending == Ending()
    for cut in (moof + 8, moof + 20, moof + 60, moof + 200, mdat, mdat + 8, mdat + 10, mdat + 4_000):
        for at_once in (100, WHOLE):
            windows = Heard(plain()[:cut], at_once)
            assert windows.ending.broken_off, cut
            if cut <= mdat + 8:
                assert windows.pcm == before.pcm
            else:
                assert windows.pcm == as_before(monkeypatch, plain()[:cut]).pcm
    with pytest.raises(CannotDecode, match="Invalid data"):
        as_before(monkeypatch, plain()[: moof + 200])
    cut_size = with_long_sizes()
    cut_size = cut_size[: [at for at in range(len(cut_size)) if cut_size[at : at + 4] == b"mdat"][9] + 8]
    assert (Heard(cut_size, 100).pcm, bool(Heard(cut_size, 100).ending.broken_off)) == (before.pcm, True)


def indexed(timescale: int, count: int) -> bytes:
    """With an index of the whole in front of all fragments, of one row."""
    rest = sum(map(len, boxes(plain())[2:]))
    row = struct.pack(">III", rest, int(SECONDS * 48_000), 0x90000000)
    index = box(b"sidx", struct.pack(">IIIIIHH", 0, 1, timescale, 0, 0, 0, count), row)
    return with_boxes(lambda number, one: one + index if number == 1 else one)


@pytest.mark.parametrize("at_once", [100, WHOLE])
def test_what_an_index_announces_and_is_not_there_is_told(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a recording that was taken from a stream in pieces nothing else shows that one of them is missing."""
    data = indexed(48_000, 1)
    pieces = boxes(data)
    assert Heard(data, at_once).ending == Ending()
    for left in (pieces[:17], pieces[:9] + pieces[15:]):
        windows, whole = Heard(b"".join(left), at_once), as_before(monkeypatch, b"".join(left))
        assert windows.in_windows
        assert windows.pcm == whole.pcm
        assert (windows.ending.broken_off or "").endswith(" s of 12.0 s are there"), windows.ending


def test_an_index_that_is_none_is_left_to_ffmpeg() -> None:
    """Without a timescale, or longer than its box."""
    for data in (indexed(0, 1), indexed(48_000, 2)):
        with pytest.raises(Unusual, match="an index that is none"):
            taken(data, 100)


def test_a_last_fragment_of_nothing_is_no_sign_of_a_cut() -> None:
    mfhd = box(b"mfhd", bytes(8))
    for end in (box(b"moof", mfhd), box(b"moof", mfhd) + box(b"free")):
        data = b"".join(boxes(plain())[:-1]) + end
        assert Heard(data, 100).ending == Ending()
        assert Heard(data, 100).in_windows


def test_a_box_of_the_head_with_a_long_size_is_not_mistaken() -> None:
    """What hides it in further windows would be written over its size."""
    priming = tags(2112)
    long = struct.pack(">I4sQ", 1, b"udta", len(priming) + 8) + priming[8:]
    data = with_boxes(lambda number, one: box(b"moov", one[8:], long) if number == 1 else one)
    assert tags(2112)[4:8] == b"udta"
    with pytest.raises(Unusual, match="64 bits"):
        taken(data, 100)


def late(change: Callable[[bytes], bytes], number: int = 20) -> bytes:
    """With a change in one of the last fragments."""
    return with_boxes(lambda at, one: change(one) if at == number else one)


def with_length(kind: bytes, length: int) -> Callable[[bytes], bytes]:
    def change(moof: bytes) -> bytes:
        at = moof.index(kind) - 4
        return moof[:at] + struct.pack(">I", length) + moof[at + 4 :]

    return change


def without_packets(moof: bytes) -> bytes:
    at = moof.index(b"trun") + 16
    return moof[:at] + bytes(4) + moof[at + 4 :]


def with_behind(moof: bytes, more: bytes) -> bytes:
    """With something behind its packets."""
    at = moof.index(b"traf") - 4
    (length,) = struct.unpack_from(">I", moof, at)
    offset = moof.index(b"trun") + 12
    traf = moof[at + 8 : offset] + struct.pack(">I", struct.unpack_from(">I", moof, offset)[0] + len(more))
    return box(b"moof", moof[8:at], box(b"traf", traf + moof[offset + 4 : at + length] + more))


def of_endless_packets(moof: bytes) -> bytes:
    """All of one size and duration, so that four billion of them have room in a box of 20 bytes."""
    at = moof.index(b"trun") + 4
    return moof[:at] + struct.pack(">II", 1, 0xFFFFFFFF) + moof[at + 8 :]


DAMAGED: dict[str, Callable[[], bytes]] = {
    "a box longer than its fragment": lambda: late(with_length(b"traf", 1 << 20)),
    "a box of no length in a fragment": lambda: late(with_length(b"traf", 0)),
    "a fragment longer than the file": lambda: late(with_length(b"moof", 1 << 30)),
    "more packets than room": lambda: late(lambda moof: moof.replace(b"trun\0\0\2\1\0\0\0", b"trun\0\0\2\1\0\1\0")),
    "a packet of no bytes": lambda: late(without_packets),
    "four billion packets": lambda: late(of_endless_packets),
    "a size below 8": lambda: late(with_length(b"moof", 3)),
    "packets of a track that is not there": lambda: late(lambda moof: moof.replace(b"8\0\0\0\1", b"8\0\0\0\2")),
    "thousands of boxes": lambda: late(lambda moof: with_behind(moof, box(b"free") * 5_000)),
    "bytes of anything": lambda: late(lambda moof: random.Random(1).randbytes(len(moof))),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_heard_to_there_at_least(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg refuses some of these as a whole, since it reads all fragments first; others it goes on behind."""
    data = DAMAGED[name]()
    before = Heard(plain()[: sum(map(len, boxes(plain())[:20]))], 64)
    heard = Heard(data, 64)  # the damaged fragment would be the second one of a window
    assert heard.in_windows
    assert heard.pcm[: len(before.pcm) - 1024] == before.pcm[: len(before.pcm) - 1024]
    try:
        whole = as_before(monkeypatch, data)
    except (CannotDecode, MemoryError):
        assert heard.ending.broken_off
    else:
        assert heard.pcm == whole.pcm


UNUSUAL_LATER: dict[str, Callable[[], bytes]] = {
    "a box of another kind": lambda: late(lambda moof: box(b"abcd", b"?") + moof),
    "a fragment without a time": lambda: late(lambda moof: moof.replace(b"tfdt", b"free")),
    "a fragment that claims the rest of the file and more": lambda: late(with_length(b"moof", 1 << 18)),
    "less than a box behind packets": lambda: late(lambda moof: with_behind(moof, bytes(4))),
    "packets without a fragment": lambda: late(lambda moof: box(b"mdat", b"?") + moof),
    "a fragment in two places": lambda: late(lambda mdat: mdat[:-9] + box(b"mdat", b"?"), 21),
    "seventy boxes between": lambda: late(lambda moof: box(b"free") * 70 + moof),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL_LATER)
def test_from_where_it_is_unusual_a_file_is_left_to_ffmpeg(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = UNUSUAL_LATER[name]()
    windows, whole = Heard(data, 50), as_before(monkeypatch, data)
    assert windows.in_windows
    assert windows.pcm == whole.pcm
    assert len(windows.pcm) > 0.7 * SECONDS * 32_000


UNUSUAL: dict[str, tuple[Callable[[], bytes], str]] = {
    "packets in the head that lie elsewhere": (
        lambda: in_head(b"stco", struct.pack(">II", 1, 9)), "packets of the head that lie elsewhere"
    ),
    "packets in the head that lie nowhere": (
        lambda: with_boxes(lambda at, one: box(b"free") if at == 2 else one, fragments(flags="+frag_keyframe")),
        "packets of the head that do not come next",
    ),
    "more packets in the head than in a window": (
        lambda: in_head(b"stsz", struct.pack(">II", 1, 1 << 12)), "many packets outside of fragments"
    ),
    "packets before the head": (lambda: boxes(plain())[0] + box(b"mdat", b"?") + plain()[28:], "in front of all"),
    "no time": (lambda: fragments(container="ismv"), "without a header or a time"),
    "no fragments": (lambda: media.encode(sound(seconds=1), 48_000, "ipod", "aac"), "in front of all|0 boxes b'mvex'"),
    "no fragment": (lambda: b"".join(boxes(plain())[:2]), "no fragment with sound"),
    "a film without sound": (lambda: moved(media.silent_film()), "none or too many"),
    "a damaged first fragment": (lambda: late(with_length(b"traf", 0), 2), "longer than its place|first window"),
    "less than a box behind the packets of the first fragment": (
        lambda: late(lambda moof: with_behind(moof, bytes(4)), 2), "not one whole fragment"
    ),
    "a damaged second fragment": (lambda: late(with_length(b"traf", 0), 4), "before the end of the first window"),
    "a track that fragments do not name": (
        lambda: plain().replace(b"trex\0\0\0\0\0\0\0\1", b"trex\0\0\0\0\0\0\0\2"), "that fragments do not name"
    ),
    "a track of another kind": (lambda: plain().replace(b"soun", b"sou?"), "which may be sound"),
    "packets outside of their fragment": (
        lambda: late(lambda moof: moof.replace(struct.pack(">I", len(moof) + 8), bytes(4)), 2), "outside of their"
    ),
    "another description": (
        lambda: plain().replace(b"trex\0\0\0\0\0\0\0\1\0\0\0\1", b"trex\0\0\0\0\0\0\0\1\0\0\0\2"), "another description"
    ),
    "a long head": (
        lambda: with_boxes(lambda at, one: one + box(b"free", bytes(MAX_COPY_BYTES)) if at == 0 else one), "a long head"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_from_the_start_is_left_to_ffmpeg(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = UNUSUAL[name]
    data = make()
    with pytest.raises(Unusual, match=reason):
        taken(data, 60).first()
    assert outcome(lambda: Heard(data, 60)) == outcome(lambda: as_before(monkeypatch, data))


def outcome(hear: Callable[[], Heard]) -> object:
    try:
        heard = hear()
    except CannotDecode as exc:
        return exc.verdict
    return heard.pcm, heard.ending, heard.facts


def test_two_sound_tracks_of_which_none_is_marked_are_left_to_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_tracks()
    at = data.index(b"tkhd") + 4
    data = data[:at] + bytes(4) + data[at + 4 :]
    heard, whole = Heard(data, 50), as_before(monkeypatch, data)
    assert (heard.in_windows, heard.pcm, heard.facts) == (False, whole.pcm, whole.facts)


def test_sound_that_ends_before_its_film_is_heard_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    film = media.encode(sound(seconds=3.0), 48_000, "mp4", "aac", picture=True)
    data = moved(film) + b"".join(box(b"moof", box(b"mfhd", bytes(8))) + box(b"mdat") for _ in range(300))
    whole = as_before(monkeypatch, data)
    assert Heard(data, 50).pcm == whole.pcm
    monkeypatch.setattr(mp4_fragments, "MAX_SILENT", 100)
    assert Heard(data, 50).pcm == whole.pcm


def test_fragments_without_sound_are_not_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4_fragments, "MAX_SILENT", 1_000)
    empty = box(b"moof", box(b"mfhd", bytes(8)))
    data = b"".join(boxes(plain())[:2]) + empty * 5_000
    with pytest.raises(Unusual, match="without sound"):
        taken(data, 100).first()


def test_spoiled_fragments_end_in_sound_or_a_verdict() -> None:
    """Beside `make fuzz`: here bits of the heads of fragments alone are turned."""
    turned = random.Random(2)
    data = moved(media.encode(sound(16_000, seconds=4.0), 16_000, "ipod", "aac"), frag_duration="500000")
    heads = [at for at in range(len(data)) if data[at : at + 4] == b"moof"]
    outcomes = {"windows": 0, "broken off": 0, "whole": 0, "verdict": 0}
    for _ in range(150):
        spoiled = bytearray(data)
        for _ in range(turned.choice((1, 2, 4))):
            spoiled[turned.choice(heads) - 4 + turned.randrange(120)] ^= 1 << turned.randrange(8)
        try:
            heard = Heard(bytes(spoiled), 10)
        except (CannotDecode, MemoryError):
            outcomes["verdict"] += 1
        else:
            kind = "windows" if heard.in_windows else "whole"
            outcomes["broken off" if heard.ending.broken_off else kind] += 1
    assert min(outcomes.values()) >= 3, outcomes


def test_the_confined_process_decodes_fragments_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_the_confined_process_hears_windows_alike(FILES["beside a picture"](), monkeypatch)
