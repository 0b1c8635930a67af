"""Sound tracks and channels: the one that is asked for, each channel by itself, also where a stream changes midway."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.audio.chained import next_link
from consumer.audio.decode import decode
from consumer.audio.decoder_process import gathered
from consumer.audio.protocol import MAX_FRAME_BYTES, PCM_BLOCK_BYTES, Facts
from consumer.audio.resampling import with_silent_channels
from consumer.errors import EmptyRecording, MissingTrack, NoSoundTrack, RecordingTooLong, TooManyChannels
from consumer.settings import LimitSettings
from tests import media
from tests.unit.audio.sources import BytesSource, decode_all

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with ffmpeg's command line")

Samples = NDArray[np.int16]


class Heard:
    """All that comes out of a recording, (streams, n_samples)."""

    def __init__(
        self, data: bytes, *, track: int | None = None, by_channel: bool = True, limits: LimitSettings | None = None
    ) -> None:
        source = BytesSource(data)
        with decode(source, limits or LimitSettings(), track=track, by_channel=by_channel) as decoding:
            blocks = list(decoding.channels())
            self.facts: Facts = decoding.facts
            self.streams = decoding.streams
        self.longest_bytes = max(block.nbytes for block in blocks)
        self.samples: Samples = np.concatenate(blocks, axis=1)
        self.warnings = [warning.code for warning in decoding.warnings]


def ffmpeg(data: bytes, folder: Path, channel: int | None = None, track: int = 0) -> Samples:
    path = media.write(folder, "recording", data)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-map", f"0:a:{track}"]
    if channel is not None:
        command += ["-af", f"pan=mono|c0=c{channel}"]
    command += ["-f", "s16le", "-ac", "1", "-acodec", "pcm_s16le", "-ar", "16000", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, dtype=np.int16)


def loudest_hz(samples: Samples) -> int:
    spectrum = np.abs(np.fft.rfft(samples.astype(np.float64)))
    return round(int(np.argmax(spectrum)) * 16_000 / len(samples))


def pitch(samples: Samples) -> int | None:
    """The tone in the middle of the samples to the nearest 10 Hz; None where there is silence."""
    middle = samples[len(samples) // 4 : 3 * len(samples) // 4]
    return round(loudest_hz(middle), -1) if np.abs(middle.astype(int)).max() > 500 else None


def assert_close(ours: Samples, theirs: Samples, most: int = 4) -> None:
    assert len(ours) == pytest.approx(len(theirs), abs=320)
    both = min(len(ours), len(theirs))
    assert np.abs(ours[:both].astype(int) - theirs[:both].astype(int)).max() <= most


def adts(signal: media.Signal, hz: int) -> bytes:
    return media.FORMATS["aac-adts"](signal, hz)


def mp3(signal: media.Signal, hz: int) -> bytes:
    return media.FORMATS["mp3-without-id3"](signal, hz)


def opus(signal: media.Signal, hz: int) -> bytes:
    return media.FORMATS["ogg-opus"](signal, hz)


class TestEachChannel:
    @needs_ffmpeg
    @pytest.mark.parametrize(
        "name", ["wav-s16", "wav-u8", "mp3-vbr", "m4a-index-at-end", "aac-adts", "flac", "mp4-with-video", "webm-opus"]
    )
    def test_is_what_ffmpegs_pan_filter_gives(self, name: str, tmp_path: Path) -> None:
        hz = 48_000 if "opus" in name else 44_100
        data = media.FORMATS[name](media.tone(3, hz, 2), hz)
        heard = Heard(data)
        assert (heard.streams, heard.warnings) == (2, [])
        for channel in range(2):
            assert_close(heard.samples[channel], ffmpeg(data, tmp_path, channel))

    @needs_ffmpeg
    @pytest.mark.parametrize("channels", [3, 6, 8])
    def test_of_more_than_two_is_so_too(self, channels: int, tmp_path: Path) -> None:
        signal = np.concatenate([media.tone(2, 44_100, 1, 200.0 * (c + 1)) for c in range(channels)])
        heard = Heard(media.wav(signal, 44_100))
        assert heard.samples.shape == (channels, 32_000)
        for channel in range(channels):
            assert_close(heard.samples[channel], ffmpeg(media.wav(signal, 44_100), tmp_path, channel))

    def test_at_16_khz_is_what_was_recorded_to_the_last_bit(self) -> None:
        signal = media.tone(3, channels=3)
        assert np.array_equal(Heard(media.wav(signal)).samples, media.s16(signal).T)

    def test_of_a_mono_recording_is_the_mix(self) -> None:
        data = media.FORMATS["flac"](media.tone(3, 44_100), 44_100)
        heard = Heard(data)
        assert heard.streams == 1
        assert np.array_equal(heard.samples[0], decode_all(data).samples)

    def test_comes_in_messages_of_bounded_size_that_hold_whole_frames(self) -> None:
        heard = Heard(media.wav(media.tone(20, 16_000, 6)))
        assert heard.longest_bytes <= PCM_BLOCK_BYTES <= MAX_FRAME_BYTES
        parts = list(gathered(iter([b"ab" * 3 * 20_000, b"cd" * 3]), channels=3))
        assert {len(part) % 6 for part in parts} == {0}
        assert b"".join(parts) == b"ab" * 3 * 20_000 + b"cd" * 3

    def test_may_be_refused_when_there_are_many(self) -> None:
        data = media.wav(media.tone(0.1, channels=6))
        with pytest.raises(TooManyChannels, match=r"6 channels.*at most 4.*without multichannel"):
            Heard(data, limits=LimitSettings(max_transcribed_channels=4))
        assert Heard(data, by_channel=False, limits=LimitSettings(max_transcribed_channels=4)).streams == 1

    def test_counts_its_own_length_against_the_limit(self) -> None:
        data = media.FORMATS["mp3-without-id3"](media.tone(8, channels=2), 16_000)
        Heard(data, limits=LimitSettings(max_duration_s=10))
        with pytest.raises(RecordingTooLong):
            Heard(data, limits=LimitSettings(max_duration_s=5))

    def test_may_be_without_a_sample(self) -> None:
        with pytest.raises(EmptyRecording):
            Heard(media.wav_header(0, channels=2))


class TestASoundTrack:
    RECORDING = staticmethod(lambda: media.tracks([media.tone(2, hz=300.0), media.tone(3, channels=2, hz=500.0)]))

    @needs_ffmpeg
    @pytest.mark.parametrize("track", [0, 1])
    @pytest.mark.parametrize("container", ["matroska", "mp4"])
    def test_is_the_one_of_that_number(self, container: str, track: int, tmp_path: Path) -> None:
        codec = {"matroska": "pcm_s16le", "mp4": "aac"}[container]
        data = media.tracks([media.tone(2, hz=300.0), media.tone(3, hz=500.0)], container, codec)
        heard = Heard(data, track=track, by_channel=False)
        assert (heard.facts.track, heard.facts.tracks) == (track, 2)
        assert pitch(heard.samples[0]) == (300, 500)[track]
        assert_close(heard.samples[0], ffmpeg(data, tmp_path, track=track))

    def test_without_a_number_is_the_one_that_ffmpeg_takes(self) -> None:
        heard = Heard(self.RECORDING(), by_channel=False)
        assert (heard.facts.track, heard.facts.channels) == (1, 2)  # more channels

    def test_can_be_taken_channel_by_channel(self) -> None:
        heard = Heard(self.RECORDING(), track=1)
        assert [pitch(channel) for channel in heard.samples] == [500, 1000]

    def test_that_is_not_there_is_refused_with_how_many_there_are(self) -> None:
        with pytest.raises(MissingTrack, match="2 sound tracks, 0 to 1"):
            Heard(self.RECORDING(), track=2)
        with pytest.raises(MissingTrack, match="1 sound track, number 0"):
            Heard(media.wav(media.tone(1)), track=1)

    def test_of_a_silent_film_is_missing_as_such(self) -> None:
        with pytest.raises(NoSoundTrack):
            Heard(media.silent_film(), track=0)


Change = tuple[Callable[[media.Signal, int], bytes], tuple[int, int], tuple[int, int]]
"""How it is coded; channels and rate of the first part, and of the second."""

CHANGES: dict[str, Change] = {
    "mp3 to mono": (mp3, (2, 44_100), (1, 44_100)),
    "mp3 to stereo": (mp3, (1, 44_100), (2, 44_100)),
    "mp3 to another rate": (mp3, (2, 44_100), (2, 22_050)),
    "adts to mono": (adts, (2, 44_100), (1, 44_100)),
    "adts to stereo": (adts, (1, 44_100), (2, 44_100)),
    "adts to another rate": (adts, (2, 44_100), (2, 22_050)),
    "adts to surround": (adts, (2, 44_100), (6, 44_100)),
    "adts from surround": (adts, (6, 44_100), (2, 44_100)),
    "chained opus to mono": (opus, (2, 48_000), (1, 48_000)),
    "chained opus to stereo": (opus, (1, 48_000), (2, 48_000)),
    "chained opus as before": (opus, (2, 48_000), (2, 48_000)),
}


def changing(name: str) -> tuple[bytes, bytes]:
    """Two parts that are one recording together: two seconds from 300 Hz up, two from 250 Hz up."""
    make, (channels, hz), (later_channels, later_hz) = CHANGES[name]
    return make(media.tone(2, hz, channels, 300.0), hz), make(media.tone(2, later_hz, later_channels, 250.0), later_hz)


class TestAStreamThatChangesMidway:
    @pytest.mark.parametrize("name", CHANGES)
    def test_goes_on_in_the_mix(self, name: str) -> None:
        first, second = changing(name)
        heard = Heard(first + second, by_channel=False)
        assert heard.warnings == []
        parts = [Heard(part, by_channel=False).samples[0] for part in (first, second)]
        assert heard.samples.shape[1] == pytest.approx(sum(map(len, parts)), abs=16_000 // 10)
        begin, end = heard.samples[0, 1_600:28_800], heard.samples[0, -28_800:-1_600]
        assert np.abs(begin.astype(int) - parts[0][1_600:28_800].astype(int)).max() <= 4
        assert pitch(end) in (250, 500, 1000)  # its channels are octaves; those of the first part are others

    @needs_ffmpeg
    @pytest.mark.parametrize("name", [name for name in CHANGES if "chained" not in name])
    def test_is_as_long_as_ffmpeg_says_and_the_same_up_to_the_change(self, name: str, tmp_path: Path) -> None:
        """(FFmpeg's command line loses what its resampler holds at the change, a millisecond.)"""
        data = b"".join(changing(name))
        ours, theirs = Heard(data, by_channel=False).samples[0], ffmpeg(data, tmp_path)
        assert len(ours) == pytest.approx(len(theirs), abs=320)
        assert np.abs(ours[:31_000].astype(int) - theirs[:31_000].astype(int)).max() <= 4

    @pytest.mark.parametrize("name", CHANGES)
    def test_keeps_its_channels_apart(self, name: str) -> None:
        first, second = changing(name)
        _, (channels, _), (later_channels, _) = CHANGES[name]
        heard = Heard(first + second)
        assert (heard.streams, heard.warnings) == (channels, ["CHANNELS_CHANGE"] * (channels != later_channels))
        alone = [Heard(part).samples for part in (first, second)]
        for channel, samples in enumerate(heard.samples):
            assert pitch(samples[: 2 * 16_000]) == pitch(alone[0][channel])
            if channels == later_channels:
                assert pitch(samples[-2 * 16_000 :]) == pitch(alone[1][channel])

    def test_is_silent_in_a_channel_that_a_part_lacks(self) -> None:
        heard = Heard(b"".join(changing("mp3 to mono")))
        assert [pitch(channel[-32_000:]) for channel in heard.samples] == [250, None]

    @pytest.mark.parametrize("name", ["adts to surround", "mp3 to stereo", "chained opus to stereo"])
    def test_loses_none_of_the_channels_that_a_part_has_beyond(self, name: str) -> None:
        make, (channels, hz), (later_channels, _) = CHANGES[name]
        centre = np.zeros((later_channels, 2 * hz), dtype=np.float32)
        centre[min(2, later_channels - 1)] = media.tone(2, hz, 1, 400.0)[0]  # FL, FR, FC: what is said in a film
        heard = Heard(make(media.tone(2, hz, channels), hz) + make(centre, hz))
        assert [pitch(channel[-32_000:]) for channel in heard.samples] == [400] * channels

    def test_may_change_again_and_again(self) -> None:
        parts = [opus(media.tone(1, 48_000, 1 + k % 2, 300.0 + 50 * k), 48_000) for k in range(6)]
        heard = Heard(b"".join(parts), by_channel=False)
        assert heard.samples.shape[1] == pytest.approx(6 * 16_000, abs=1_600)
        assert heard.warnings == []

    def test_whose_next_link_is_damaged_breaks_off(self) -> None:
        first, second = changing("chained opus to mono")
        noise = np.random.default_rng(5).bytes(3_000)
        heard = Heard(first + second[:60] + noise, by_channel=False)
        assert heard.samples.shape[1] == pytest.approx(2 * 16_000, abs=1_600)
        assert heard.warnings == ["RECORDING_TRUNCATED"]


class TestTheNextLink:
    def test_is_the_page_that_begins_a_stream_behind_the_given_one(self) -> None:
        first, second = changing("chained opus to mono")
        assert next_link(File(first + second), 0) == len(first)
        assert next_link(File(first + second), len(first)) is None

    @pytest.mark.parametrize("data", [b"", b"OggS", b"RIFF" * 100, b"OggS" + bytes(22) + b"\xff"])
    def test_is_not_there_where_no_pages_are(self, data: bytes) -> None:
        assert next_link(File(data), 0) is None


class File:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def read(self, length: int) -> bytes:
        return self._data[self._at : self._at + length]


def test_missing_channels_are_silent_and_the_others_keep_their_places() -> None:
    pcm = np.array([[1, -1], [2, -2], [3, -3]], dtype=np.int16)
    spread = np.frombuffer(with_silent_channels(pcm.tobytes(), 2, 4), dtype=np.int16).reshape(-1, 4)
    assert spread.tolist() == [[1, -1, 0, 0], [2, -2, 0, 0], [3, -3, 0, 0]]
    assert with_silent_channels(pcm.tobytes(), 2, 2) == pcm.tobytes()
