"""Each job option takes effect, with the real models: what is asked for shows, or the job says why not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from consumer.events import JobFinished, JobStatus
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from consumer.speech.vad import whisperx_scorer
from demo import recordings
from tests import media
from tests.integration.memory_system import MemorySystem
from tests.integration.test_against_whisperx import TINY

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]

SPEECH = recordings.shipped("conversation-90s").samples[np.newaxis, : 30 * 16_000]


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    return SpeechEngine(ModelSettings(allowed=("tiny",), directory=TINY.parent), DeviceSettings(device="cpu"))


class Result:
    """A finished job with its transcript."""

    def __init__(self, made: MemorySystem, event: JobFinished) -> None:
        self.event = event
        self.files = {a.format: made.store.get(a.claim_check.bucket, a.claim_check.key) for a in event.artifacts}
        self.document: dict[str, Any] = json.loads(self.files["json"]) if "json" in self.files else {}

    @property
    def segments(self) -> list[dict[str, Any]]:
        return list(self.document["segments"])


def run(engine: SpeechEngine, **options: object) -> Result:
    made = MemorySystem(300.0, engine, whisperx_scorer)
    made.upload("a", media.wav(SPEECH))
    made.start()
    made.submit(job_id="job", options={"language": "en", **options})
    return Result(made, made.finish("job")["job"])


@pytest.fixture(scope="module")
def plain(engine: SpeechEngine) -> Result:
    return run(engine)


def test_without_options_there_are_words_with_times_speakers_and_every_format(plain: Result) -> None:
    assert plain.event.status is JobStatus.COMPLETED
    assert sorted(plain.files) == ["json", "rttm", "srt", "tsv", "txt", "vtt"]
    assert all("start" in word and "speaker" in word for segment in plain.segments for word in segment["words"])


def test_language_is_detected_or_taken_as_given(engine: SpeechEngine, plain: Result) -> None:
    detected = run(engine, language="auto").event
    assert (detected.language, plain.event.language) == ("en", "en")
    assert detected.language_probability is not None
    assert plain.event.language_probability is None


def test_translate_gives_no_word_alignment(engine: SpeechEngine) -> None:
    result = run(engine, task="translate")
    assert result.event.status is JobStatus.COMPLETED
    assert {segment["timing"] for segment in result.segments} == {"segment"}


def test_alignment_can_be_switched_off(engine: SpeechEngine) -> None:
    result = run(engine, align={"enabled": False})
    assert {segment["timing"] for segment in result.segments} == {"segment"}
    assert "align" not in {model.role for model in result.event.models}


def test_a_language_without_aligner_keeps_segment_times_or_fails_as_asked(engine: SpeechEngine) -> None:
    kept = run(engine, language="de")
    assert kept.event.status is JobStatus.COMPLETED
    assert "NO_ALIGNER" in [warning.code for warning in kept.event.warnings]
    failed = run(engine, language="de", align={"on_missing_aligner": "fail"}).event
    assert failed.error is not None
    assert failed.error.code == "NO_ALIGNER"


def test_diarization_can_be_switched_off(engine: SpeechEngine) -> None:
    result = run(engine, diarize={"enabled": False})
    assert result.event.speakers == ()
    assert all("speaker" not in segment for segment in result.segments)


@pytest.mark.parametrize(
    ("asked", "found"), [({"num_speakers": 1}, 1), ({"num_speakers": 3}, 3), ({"max_speakers": 1}, 1)]
)
def test_the_number_of_speakers_can_be_given(engine: SpeechEngine, asked: dict[str, int], found: int) -> None:
    assert len(run(engine, diarize=asked).event.speakers) == found


def test_voice_embeddings_come_when_asked_for(engine: SpeechEngine, plain: Result) -> None:
    speakers = run(engine, diarize={"embeddings": True}).document["speakers"]
    assert all(len(speaker["embedding"]) > 8 for speaker in speakers)
    assert all("embedding" not in speaker for speaker in plain.document["speakers"])


def test_windows_obey_policy_and_length(engine: SpeechEngine, plain: Result) -> None:
    short = run(engine, vad={"max_window_s": 3}, align={"enabled": False})
    assert max(segment["end"] - segment["start"] for segment in short.segments) <= 3.001
    other = run(engine, vad={"policy": "whisperx"}, align={"enabled": False})
    ours = run(engine, align={"enabled": False})
    assert [s["start"] for s in other.segments] != [s["start"] for s in ours.segments]
    deaf = run(engine, vad={"onset": 0.999, "offset": 0.99})
    assert len(deaf.segments) < len(plain.segments)


def test_prompt_hotwords_and_beam_reach_the_recogniser(engine: SpeechEngine, plain: Result) -> None:
    scores = [segment["avg_logprob"] for segment in plain.segments]
    for options in ({"beam_size": 1}, {"hotwords": ["schedule", "payment"]}, {"initial_prompt": "Good morning."}):
        assert [segment["avg_logprob"] for segment in run(engine, **options).segments] != scores, options


def test_a_prompt_that_is_too_long_is_cut_and_said(engine: SpeechEngine) -> None:
    result = run(engine, initial_prompt="the schedule of the project " * 30)
    assert "PROMPT_TRUNCATED" in [warning.code for warning in result.event.warnings]


def test_formats_and_subtitle_shape_are_as_asked(engine: SpeechEngine) -> None:
    shape = {"max_line_width": 20, "max_line_count": 1, "speaker_labels": False}
    result = run(engine, output_formats=["srt"], subtitles=shape)
    assert sorted(result.files) == ["json", "srt"]
    lines = result.files["srt"].decode().splitlines()
    text = [line for line in lines if line and not line.isdecimal() and "-->" not in line]
    assert max(len(line) for line in text) <= 20
    assert "SPEAKER" not in "".join(text)
