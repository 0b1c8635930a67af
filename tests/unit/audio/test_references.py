"""A recording is its own bytes: what it names, a file of ours or an address inside our network, is never opened."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from consumer.audio.decode import decode
from consumer.audio.decoders import SHARED, Decoders
from consumer.audio.sniff import ALLOWED, MP3, WAV, MediaType
from consumer.errors import Rejected, UnsupportedMedia
from consumer.settings import LimitSettings
from tests import hostile_media as made
from tests import media
from tests.unit.audio.sources import BytesSource, decode_all, read_out
from tests.watched_places import WatchedPlaces, watched_places
from tests.wrong_decoders import deceived


@pytest.fixture
def places(tmp_path: Path) -> Iterator[WatchedPlaces]:
    """The file is sound, so that whoever follows a reference has no reason to stop."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(media.wav(media.tone(5)))
    with watched_places(secret) as watched:
        yield watched


def test_the_places_notice_whoever_touches_them(places: WatchedPlaces) -> None:
    assert places.touched() == set()
    places.file.read_bytes()
    socket.create_connection(("127.0.0.1", places.port)).close()
    assert places.touched() == {"file", "port"}


@pytest.mark.parametrize("kind", ["a concat script", "a data reference"])
def test_ffmpeg_by_itself_follows_what_we_do_not(places: WatchedPlaces, tmp_path: Path, kind: str) -> None:
    """What we keep from happening does happen elsewhere: without this, the tests below would prove little."""
    if kind == "a concat script":
        data, options = made.playlists(str(places.file))["concat script"], {"safe": "0"}
    else:
        data, options = external_mp4(made.alias_reference(str(places.file))), {"enable_drefs": "1"}
        options["use_absolute_path"] = "1"
    with av.open(str(media.write(tmp_path, "talk", data)), options=options) as container:
        assert next(container.demux(audio=0)).size
    assert places.touched() == {"file"}


def heard_s(data: bytes, decoders: Decoders = SHARED) -> float | str:
    """Seconds that are heard, or the code of the refusal."""
    source = BytesSource(data, name="recordings/talk.wav")
    try:
        with decode(source, LimitSettings(), decoders) as decoding:
            return len(read_out(decoding).samples) / 16_000
    except Rejected as error:
        return error.code


KINDS = tuple(made.playlists(""))


@pytest.mark.parametrize("kind", KINDS)
def test_a_playlist_is_refused_by_its_content_whatever_its_name(places: WatchedPlaces, kind: str) -> None:
    for url in (places.file_url, places.web_url, str(places.file)):
        with pytest.raises(UnsupportedMedia, match=r"recordings/talk\.wav"):
            decode_all(BytesSource(made.playlists(url)[kind], name="recordings/talk.wav"))
    assert places.touched() == set()


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "a WAV header": lambda text: media.wav_header(len(text)) + text,
    "a RIFF header": lambda text: b"RIFF" + len(text).to_bytes(4, "little") + b"WAVE" + text,
    "an ID3 tag": lambda text: made.id3((b"TIT2", b"\0x")) + text,
    "MP3 frames": lambda text: media.FORMATS["mp3-without-id3"](media.tone(1), 16_000) + b"\n" + text,
    "an MP4 beginning": lambda text: made.box(b"ftyp", b"isom", bytes(4), b"isom") + text,
    "a Matroska beginning": lambda text: made.EBML + text,
    "an Ogg page": lambda text: b"OggS" + bytes(23) + text,
    "a FLAC mark": lambda text: b"fLaC" + text,
    "an AMR mark": lambda text: b"#!AMR\n" + text,
    "an AU mark": lambda text: b".snd" + bytes(20) + text,
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_playlist_behind_the_beginning_of_a_sound_file_is_not_followed(places: WatchedPlaces, disguise: str) -> None:
    for kind in ("HLS", "concat script", "DASH", "SDP"):
        for url in (places.file_url, places.web_url):
            heard = heard_s(DISGUISES[disguise](made.playlists(url)[kind]))
            assert isinstance(heard, str) or heard < 4, "the five seconds of the file would be heard"
    assert places.touched() == set()


@pytest.mark.parametrize("media_type", sorted(set(ALLOWED.values()), key=str), ids=lambda one: one.name)
def test_no_demuxer_that_we_use_takes_a_playlist(places: WatchedPlaces, media_type: MediaType) -> None:
    """Even if the sniffing were deceived."""
    with contextlib.closing(Decoders(deceived(media_type))) as decoders:
        for kind in KINDS:
            heard = heard_s(made.playlists(places.file_url)[kind], decoders)
            assert isinstance(heard, str) or heard < 1, kind
    assert places.touched() == set()


def external_mp4(reference: bytes) -> bytes:
    """All samples are elsewhere."""
    return made.mp4(made.Track(references=[reference]), data=b"")


SELF = made.Track().references[0]

REFERENCES: dict[str, Callable[[WatchedPlaces], bytes]] = {
    "an MP4 with a file URL": lambda at: external_mp4(made.url_reference(at.file_url)),
    "an MP4 with a path": lambda at: external_mp4(made.url_reference(str(at.file))),
    "an MP4 with a web address": lambda at: external_mp4(made.url_reference(at.web_url)),
    "an MP4 with an alias": lambda at: external_mp4(made.alias_reference(str(at.file))),
    "an MP4 with an alias to an address": lambda at: external_mp4(made.alias_reference(at.web_url)),
    "an MP4 with two references": lambda at: made.mp4(
        made.Track(references=[SELF, made.url_reference(at.file_url), made.alias_reference(str(at.file))])
    ),
    "an MP4 with a reference movie": lambda at: made.mp4(
        made.Track(),
        extra=made.box(
            b"rmra", made.box(b"rmda", made.full_box(b"rdrf", b"url ", made.table(40), at.web_url.encode() + b"\0"))
        ),
    ),
    "an MP4 with a link in its cover": lambda at: made.mp4(
        made.Track(), extra=made.box(b"udta", made.box(b"\xa9url", b"\0\x40\0\0", at.web_url.encode()))
    ),
    "a Matroska that goes on in another file": lambda at: made.mkv(
        info=made.element(0x73A4, bytes(range(16)))  # SegmentUID
        + made.element(0x3EB923, bytes(range(1, 17)))  # NextUUID
        + made.element(0x3E83BB, at.file.name.encode())  # NextFilename
        + made.element(0x3C83AB, at.file.name.encode())  # PrevFilename
    ),
    "a Matroska with chapters of another file": lambda at: made.mkv(
        extra=made.element(
            0x1043A770,
            made.element(
                0x45B9,
                made.uint(0x45DD, 1)  # ordered
                + made.element(
                    0xB6, made.uint(0x73C4, 1) + made.uint(0x91, 0) + made.element(0x6E67, bytes(range(1, 17)))
                ),
            ),
        )
    ),
    "an MP3 with links in its tag": lambda at: (
        made.id3(
            (b"WXXX", b"\0\0" + at.web_url.encode()),
            (b"WOAF", at.file_url.encode()),
            (b"APIC", b"\0-->\0\3\0" + at.web_url.encode()),
            (b"LINK", b"APIC" + at.file_url.encode() + b"\0"),
        )
        + media.FORMATS["mp3-without-id3"](media.tone(1), 16_000)
    ),
    "a FLAC whose picture is a link": lambda at: made.with_flac_block(
        media.FORMATS["flac"](media.tone(1), 16_000), made.flac_picture_link(at.web_url)
    ),
    "a WAV with a link in its list": lambda at: made.riff(
        made.wav_format(),
        made.chunk(b"LIST", b"INFO" + made.chunk(b"IURL", at.web_url.encode())),
        made.chunk(b"link", f"<LINK><FILE><FILE_NAME>{at.file}</FILE_NAME></FILE></LINK>".encode()),
        made.chunk(b"data", made.SECOND),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_inside_a_sound_file_is_not_followed(places: WatchedPlaces, name: str) -> None:
    heard = heard_s(REFERENCES[name](places))
    assert isinstance(heard, str) or heard < 2, "the five seconds of the file would be heard"
    assert places.touched() == set()


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "/proc/self/environ", "pipe:0", "fd:3", "data:audio/wav;base64,UklGRg==", "concat:a|b"],
)
def test_whatever_a_reference_names_only_bytes_of_the_recording_are_heard(url: str) -> None:
    """FFmpeg looks for the samples in the file itself then, where they are not."""
    data = external_mp4(made.url_reference(url))
    assert decode_all(data).samples.tobytes() in data
    for media_type in (WAV, MP3):
        with contextlib.closing(Decoders(deceived(media_type))) as decoders:
            assert isinstance(heard_s(made.playlists(url)["HLS"], decoders), str)


@pytest.mark.parametrize("container", ["avi", "mpegts", "mpeg", "rm", "tta", "wv", "ac3", "voc", "sox"])
def test_a_container_that_is_not_on_the_list_is_refused_although_ffmpeg_knows_it(container: str) -> None:
    codec = {"tta": "tta", "wv": "wavpack", "voc": "pcm_u8", "sox": "pcm_s32le", "rm": "ac3", "ac3": "ac3"}
    data = media.encode(media.tone(1, 48_000), 48_000, container, codec.get(container, "mp2"))
    with pytest.raises(UnsupportedMedia, match="send WAV, MP3"):
        decode_all(data)
