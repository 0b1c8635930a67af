"""Every container, codec and oddity that we take decodes to its length and its tone, and to what ffmpeg gives."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.errors import UnsupportedMedia
from tests import media
from tests.odd_media import LOSSY, RECORDINGS, TIGHT, Recording
from tests.unit.audio.sources import Decoded, decode_all

APART_S = 0.02
"""Most that a length may differ from ffmpeg's, in seconds."""

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with ffmpeg's command line")


def ffmpeg(data: bytes, folder: Path) -> NDArray[np.int16]:
    """What whisperx decodes: the arguments of `whisperx.audio.load_audio`."""
    path = media.write(folder, "recording", data)
    command = ["ffmpeg", "-nostdin", "-threads", "0", "-i", str(path)]
    command += ["-f", "s16le", "-ac", "1", "-acodec", "pcm_s16le", "-ar", "16000", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, dtype=np.int16)


@dataclass(frozen=True)
class Heard:
    name: str
    recording: Recording
    data: bytes
    decoded: Decoded


@pytest.fixture(scope="module", params=list(RECORDINGS))
def heard(request: pytest.FixtureRequest) -> Heard:
    recording = RECORDINGS[request.param]
    data = recording.make()
    return Heard(request.param, recording, data, decode_all(data))


def test_a_recording_is_heard_as_the_table_says(heard: Heard) -> None:
    recording, decoded = heard.recording, heard.decoded
    found = (decoded.codec, decoded.sample_rate_hz, decoded.channels)
    assert found == (recording.codec, recording.rate_hz, recording.channels)
    assert len(decoded.samples) / 16_000 == pytest.approx(recording.seconds, abs=0.05)
    assert tuple(warning.code for warning in decoded.warnings) == recording.warnings
    loudest = np.abs(decoded.samples[1_000:-500].astype(int)).max()
    assert (loudest > 2_000) is not ("pause" in heard.name), "the tone"


@needs_ffmpeg
def test_a_recording_is_heard_as_ffmpeg_hears_it(heard: Heard, tmp_path: Path) -> None:
    """Within 20 ms of length, and within the last bits of another version's resampler and decoder."""
    if heard.recording.tolerance is None:
        pytest.skip(heard.recording.oracle)
    ours, theirs = heard.decoded.samples, ffmpeg(heard.data, tmp_path)
    assert abs(len(ours) - len(theirs)) <= APART_S * 16_000
    both = min(len(ours), len(theirs))
    assert np.abs(ours[:both].astype(int) - theirs[:both].astype(int)).max() <= heard.recording.tolerance


@needs_ffmpeg
@pytest.mark.parametrize("name", ["wav-s16", "flac", "mkv-with-video"])
def test_what_is_16_khz_mono_already_is_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    data = media.FORMATS[name](media.tone(5), 16_000)
    assert np.array_equal(decode_all(data).samples, ffmpeg(data, tmp_path))


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [("talk.ogg", ["-c:a", "libvorbis"]), ("talk.webm", ["-c:a", "libvorbis"]), ("talk.mkv", ["-c:a", "aac"])],
)
def test_what_ffmpeg_itself_wrote_is_heard_as_it_hears_it(name: str, options: list[str], tmp_path: Path) -> None:
    """Where the table leaves it out: PyAV's Vorbis is experimental, and its Matroska newer than this ffmpeg."""
    wav = media.write(tmp_path, "talk.wav", media.wav(media.tone(5, 44_100, 2), 44_100))
    made = tmp_path / name
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", str(wav), *options, str(made)], check=False)
    if done.returncode:
        pytest.skip("this ffmpeg cannot write it")
    ours, theirs = decode_all(made.read_bytes()).samples, ffmpeg(made.read_bytes(), tmp_path)
    assert abs(len(ours) - len(theirs)) <= APART_S * 16_000
    both = min(len(ours), len(theirs))
    assert np.abs(ours[:both].astype(int) - theirs[:both].astype(int)).max() <= LOSSY


@pytest.mark.parametrize("channels", [9, 17, 32])
def test_channels_that_ffmpeg_cannot_mix_are_refused_and_not_tried_again(channels: int) -> None:
    with pytest.raises(UnsupportedMedia, match=f"{channels} channels"):
        decode_all(media.wav(np.repeat(media.tone(0.5), channels, 0)))


def test_whoever_is_left_out_of_the_comparison_has_a_reason() -> None:
    assert all(one.oracle for one in RECORDINGS.values() if one.tolerance not in (TIGHT, LOSSY))
