"""A recording is what its bytes are, whatever its name says."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from consumer.audio.decode import decode
from consumer.audio.decoders import Decoders
from consumer.audio.protocol import CannotDecode
from consumer.audio.sniff import ADTS, ALLOWED, FLAC, HEAD_BYTES, MP3, WAV, MediaType, sniff
from consumer.errors import DecoderCrashed, EmptyRecording, UnsupportedMedia
from consumer.settings import LimitSettings
from tests import media
from tests.unit.audio.sources import BytesSource, decode_all
from tests.wrong_decoders import program_with

DEMUXERS = {
    "wav": "wav", "w64": "w64", "mp3": "mp3", "m4a": "mov", "aac": "aac", "flac": "flac",
    "ogg": "ogg", "webm": "matroska", "mp4": "mov", "mov": "mov", "mkv": "matroska",
}  # fmt: skip


def type_of(data: bytes) -> MediaType:
    return sniff(BytesIO(data), data[:HEAD_BYTES])


@pytest.mark.parametrize("name", media.FORMATS)
def test_every_format_that_we_take_gets_its_demuxer(name: str) -> None:
    assert type_of(media.FORMATS[name](media.tone(1, 48_000), 48_000)).demuxer == DEMUXERS[name.split("-")[0]]


def zip_file() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("talk.mp3", "no sound")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"Dear all,\nplease find the recording attached.\n", "text/plain"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://10.0.0.1/secret\n", "text"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "text/plain"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=audio 5004 RTP/AVP 0\r\n", "text/plain"),
        (b"<html><body>404 Not Found</body></html>", "text/html"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00", "image/png"),
        (b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x00\x60", "audio/midi"),
        (zip_file(), "application/zip"),
        (b"%PDF-1.7\n", "application/pdf"),
        (bytes(range(255, -1, -1)) * 40, ""),
        (b"\xff" * 5000, ""),
        (b"\x00" * 5000, "application/octet-stream"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_with_the_type_that_was_found(data: bytes, found: str) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        decode_all(BytesSource(data, name="recordings/talk.mp3"))
    assert "recordings/talk.mp3" in caught.value.message
    assert str(caught.value.facts["media_type"]).startswith(found)


def test_an_object_without_bytes_is_empty() -> None:
    with pytest.raises(EmptyRecording):
        decode_all(b"")


def test_an_mp3_without_a_tag_is_known_by_its_frames_also_behind_rubbish() -> None:
    frames = media.FORMATS["mp3-without-id3"](media.tone(2), 16_000)
    assert type_of(frames) == MP3
    assert type_of(b"\x00\x17\x80" * 100 + frames) == MP3


def id3(size: int) -> bytes:
    return b"ID3\x04\x00\x00" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)


@pytest.mark.parametrize(("name", "media_type"), [("flac", FLAC), ("aac-adts", ADTS), ("mp3-without-id3", MP3)])
def test_what_stands_behind_an_id3_tag_counts(name: str, media_type: object) -> None:
    """Also behind a cover picture that is longer than what is read at first."""
    data = media.FORMATS[name](media.tone(2), 16_000)
    assert type_of(id3(300) + data) == media_type
    assert type_of(id3(1_500_000) + data) == media_type


def test_of_many_tags_in_a_row_only_a_few_are_stepped_over() -> None:
    """Two thousand made libmagic give up with an error of its own, which ended the planner."""
    frames = media.FORMATS["mp3-without-id3"](media.tone(2), 16_000)
    assert type_of(id3(10) * 2 + frames) == MP3
    with pytest.raises(CannotDecode, match="octet-stream"):
        type_of(id3(2) * 2_000 + frames)


def test_every_type_of_the_allow_list_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "recordings.md").read_text(encoding="utf-8")
    assert {media_type.name for media_type in ALLOWED.values() if f"`{media_type.name}`" not in page} == set()


def test_the_long_variants_of_wav_are_wav() -> None:
    assert type_of(b"BW64\xff\xff\xff\xffWAVEds64" + bytes(100)) == WAV


PLANNING = """
import sys
from consumer.audio.decode import decode
from consumer.settings import LimitSettings
from tests import media
from tests.unit.audio.sources import BytesSource
with decode(BytesSource(media.wav(media.tone(1))), LimitSettings()) as decoding:
    assert decoding.facts.media_type == "audio/wav"
print(*sys.modules)
"""


def test_libmagic_is_not_in_the_process_that_has_the_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", PLANNING], capture_output=True, text=True, check=True)
    assert {"magic", "pylibmagic"}.isdisjoint(done.stdout.split())


def test_libmagic_that_dies_is_a_crash_of_the_decoder() -> None:
    dies = """
import os
from consumer.audio import decoder_process, sniff
known = sniff._named
sniff._named = lambda head: os.abort() if head.startswith(b"Dear") else known(head)
"""
    with (
        contextlib.closing(Decoders(program_with(dies))) as decoders,
        pytest.raises(DecoderCrashed, match="SIGABRT"),
        decode(BytesSource(b"Dear all,"), LimitSettings(), decoders),
    ):
        pass
