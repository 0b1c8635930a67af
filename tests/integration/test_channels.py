"""Sound tracks and channels through the whole system: which one is heard, and each channel by itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from consumer.core.layout import Topic
from consumer.events import ChunkTranscribed, JobFinished, JobProgress, JobStatus
from consumer.settings import DeviceSettings, LimitSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from demo import recordings
from tests import media
from tests.integration.memory_system import MemorySystem
from tests.integration.test_against_whisperx import TINY
from tests.standin import StandInEngine

SECONDS = 75


def two_sides() -> media.Signal:
    """Each speaker of a conversation on a channel; the second begins 8 s earlier, so that both talk at once."""
    recording = recordings.shipped("conversation-90s")
    sides = []
    for speaker, shift_s in (("S0", 0), ("S1", 8)):
        side = np.zeros_like(recording.samples)
        for turn in recording.truth["turns"]:
            if turn["speaker"] == speaker:
                span = slice(int((turn["start_s"] - 0.05) * 16_000), int((turn["end_s"] + 0.05) * 16_000))
                side[span] = recording.samples[span]
        sides.append(np.roll(side, -shift_s * 16_000)[: SECONDS * 16_000])
    return np.stack(sides)


SIDES = two_sides()


class Result:
    def __init__(self, made: MemorySystem, event: JobFinished) -> None:
        assert event.status is JobStatus.COMPLETED, event.error
        self.event = event
        self.files = {a.format: made.store.get(a.claim_check.bucket, a.claim_check.key) for a in event.artifacts}
        self.document: dict[str, Any] = json.loads(self.files["json"])

    def of_channel(self, channel: int) -> list[dict[str, Any]]:
        return [segment for segment in self.document["segments"] if segment["channel"] == channel]


def run(data: bytes, engine: Any = None, chunk_s: float = 300.0, **options: object) -> Result:
    made = MemorySystem(chunk_s, engine or StandInEngine())
    made.upload("a", data)
    made.start()
    made.submit(job_id="job", options=options)
    return Result(made, made.finish("job")["job"])


def heard(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was heard, without whose it is."""
    told = []
    for segment in segments:
        words = [{k: v for k, v in word.items() if k not in ("speaker", "channel")} for word in segment["words"]]
        kept = {k: v for k, v in segment.items() if k not in ("id", "speaker", "channel")}
        told.append({**kept, "words": words})
    return told


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    return SpeechEngine(ModelSettings(allowed=("tiny",), directory=TINY.parent), DeviceSettings(device="cpu"))


@pytest.fixture(scope="module")
def both(engine: SpeechEngine) -> Result:
    return run(media.wav(SIDES), engine, multichannel=True)


@pytest.mark.models
@pytest.mark.timeout(600)
class TestTwoVoicesOnTwoChannels:
    @pytest.mark.parametrize("channel", [0, 1])
    def test_have_the_text_that_each_has_as_a_mono_recording(
        self, engine: SpeechEngine, both: Result, channel: int
    ) -> None:
        alone = run(media.wav(SIDES[channel : channel + 1]), engine, language="en", diarize={"enabled": False})
        assert heard(both.of_channel(channel)) == heard(alone.document["segments"])
        assert len(alone.document["segments"]) > 5

    @pytest.mark.parametrize("chunk_s", [20.0, 60.0])
    def test_do_not_depend_on_the_cuts(self, engine: SpeechEngine, both: Result, chunk_s: float) -> None:
        """P4, channel by channel."""
        other = run(media.wav(SIDES), engine, chunk_s, multichannel=True)
        assert other.event.chunks_total > both.event.chunks_total
        assert other.files == both.files

    def test_are_told_apart_by_their_channels(self, both: Result) -> None:
        assert sorted(both.event.speakers) == ["CHANNEL_00", "CHANNEL_01"]
        for segment in both.document["segments"]:
            label = f"CHANNEL_0{segment['channel']}"
            assert segment["speaker"] == label
            assert {(word["speaker"], word["channel"]) for word in segment["words"]} == {(label, segment["channel"])}
        starts = [segment["start"] for segment in both.document["segments"]]
        assert starts == sorted(starts)
        assert both.document["overlaps"]
        assert {"transcribe", "align"} == {model.role for model in both.event.models}
        assert (both.event.language, both.event.warnings) == ("en", ())
        assert both.files["rttm"].count(b"CHANNEL_01") == len(both.of_channel(1))


def test_progress_counts_no_second_twice_and_partials_tell_their_channels() -> None:
    made = MemorySystem(20.0, StandInEngine())
    made.upload("a", media.wav(SIDES))
    made.start()
    made.submit(job_id="job", options={"multichannel": True})
    result = made.finish("job")["job"]
    told = made.seen(Topic.PROGRESS, JobProgress)
    assert [event.fraction for event in told] == sorted(event.fraction for event in told)
    assert max(event.audio_done_s for event in told) == SECONDS
    partials = made.seen(Topic.PARTIALS, ChunkTranscribed)
    assert sorted(event.chunk_index for event in partials) == list(range(result.chunks_total))
    assert {segment.channel for event in partials for segment in event.segments} == {0, 1}
    assert all(len({segment.channel for segment in event.segments}) <= 1 for event in partials)


def test_a_planner_that_dies_half_way_is_succeeded_with_the_same_numbers() -> None:
    whole = run(media.wav(SIDES), chunk_s=20.0, multichannel=True)
    made = MemorySystem(20.0, StandInEngine())
    made.upload("a", media.wav(SIDES))
    made.start()
    planner = made.loops[2]
    made.submit(job_id="job", options={"multichannel": True})
    made.turn_until(lambda: len(list(made.store.list_keys("work", ""))) >= 4)
    made.kill(planner)
    made.add_planner()
    result = Result(made, made.finish("job")["job"])
    assert result.files == whole.files
    assert made.results()["job"].chunks_total == whole.event.chunks_total


def test_a_mono_recording_has_one_channel() -> None:
    result = run(media.wav(SIDES[:1]), multichannel=True)
    assert result.event.speakers == ("CHANNEL_00",)
    mixed = run(media.wav(SIDES[:1]))
    assert heard(result.document["segments"]) == heard(mixed.document["segments"])


@pytest.mark.parametrize("track", [0, 1])
def test_the_track_that_is_asked_for_is_heard(track: int) -> None:
    """The text of the stand-in is a digest of what it hears."""
    data = media.tracks([SIDES[:1], SIDES[1:]])
    result = run(data, track=track)
    alone = run(media.tracks([SIDES[track : track + 1]]))
    assert result.document["text"] == alone.document["text"] != ""
    assert result.event.recording is not None
    assert (result.event.recording.track, result.event.recording.tracks) == (track, 2)


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        ({"track": 2}, "TRACK_MISSING", "2 sound tracks, 0 to 1"),
        ({"track": 300}, "OPTION_INVALID", "options.track"),
        ({"multichannel": True, "track": 1}, "TOO_MANY_CHANNELS", "4 channels, and at most 2"),
        ({"multichannel": True, "diarize": {"max_speakers": 2}}, "OPTION_INVALID", "diarize.max_speakers has no"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_next_job_runs(options: dict[str, Any], code: str, part: str) -> None:
    made = MemorySystem()
    made.settings = made.settings.model_copy(update={"limits": LimitSettings(max_transcribed_channels=2)})
    made.upload("a", media.wav(SIDES[:1]))
    made.upload("many", media.tracks([SIDES[:1], np.repeat(SIDES[:1], 4, axis=0)]))
    made.start()
    made.submit(job_id="odd", recording={"bucket": "recordings", "key": "many"}, options=options)
    made.submit(job_id="next")
    results = made.finish("odd", "next")
    error = results["odd"].error
    assert error is not None
    assert (error.code, error.retryable) == (code, False)
    assert part in error.message
    assert results["next"].status is JobStatus.COMPLETED
