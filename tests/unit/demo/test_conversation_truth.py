"""The truth files of the shipped recordings agree with what can be heard in them."""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from demo import recordings
from demo.recordings import Recording
from demo.training.speech import SAMPLE_RATE_HZ

LONG = "a long recording of 10 minutes"


@cache
def recording(name: str) -> Recording:
    return recordings.long_recording(10) if name == LONG else recordings.shipped(name)


@pytest.fixture(params=[*recordings.NAMES, LONG])
def heard(request: pytest.FixtureRequest) -> Recording:
    return recording(request.param)


def level(heard: Recording, start_s: float, end_s: float) -> float:
    samples = heard.samples[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
    return float(np.sqrt(np.mean(samples**2)))


def test_the_duration_is_that_of_the_samples(heard: Recording) -> None:
    assert heard.truth["sample_rate_hz"] == SAMPLE_RATE_HZ
    assert heard.truth["duration_s"] == pytest.approx(heard.duration_s, abs=0.001)


@pytest.mark.parametrize(("name", "seconds", "speakers"), [("conversation-90s", 90, 2), ("conversation-5min", 300, 3)])
def test_a_shipped_recording_is_as_long_as_its_name_says(name: str, seconds: float, speakers: int) -> None:
    assert seconds <= recording(name).duration_s <= seconds + 10
    assert len(recording(name).truth["speakers"]) == speakers


@pytest.mark.parametrize("spans", ["turns", "segments", "words"])
def test_spans_are_sorted_and_inside_the_recording(heard: Recording, spans: str) -> None:
    listed: list[dict[str, Any]] = heard.truth[spans]
    assert listed
    assert all(span["start_s"] < span["end_s"] for span in listed)
    assert all(before["end_s"] <= after["start_s"] + 0.001 for before, after in pairwise(listed))
    assert listed[0]["start_s"] >= 0
    assert listed[-1]["end_s"] <= heard.duration_s


def test_the_text_is_that_of_the_words_and_of_the_segments(heard: Recording) -> None:
    assert heard.truth["text"] == " ".join(word["text"] for word in heard.truth["words"])
    assert heard.truth["text"] == " ".join(segment["text"] for segment in heard.truth["segments"])


def test_every_word_lies_in_a_turn_of_its_speaker(heard: Recording) -> None:
    for word in heard.truth["words"]:
        turns = [t for t in heard.truth["turns"] if t["start_s"] <= word["start_s"] < t["end_s"]]
        assert [turn["speaker"] for turn in turns] == [word["speaker"]]
        assert word["end_s"] <= turns[0]["end_s"] + 0.001


def test_speakers_are_those_of_the_turns(heard: Recording) -> None:
    assert heard.truth["speakers"] == sorted({turn["speaker"] for turn in heard.truth["turns"]})


def test_there_is_speech_in_every_turn_and_none_between(heard: Recording) -> None:
    """Background noise of 0.0006 in the pauses; speech is at least twenty times as loud."""
    turns = heard.truth["turns"]
    assert min(level(heard, turn["start_s"], turn["end_s"]) for turn in turns) > 0.02
    pauses = [(before["end_s"] + 0.01, after["start_s"] - 0.01) for before, after in pairwise(turns)]
    assert max(level(heard, *pause) for pause in pauses) < 0.001


def test_words_are_where_the_truth_says(heard: Recording) -> None:
    """Nearly every word is louder than the background many times over; some end in the closure of a stop."""
    levels = np.array([level(heard, word["start_s"], word["end_s"]) for word in heard.truth["words"]])
    assert (levels > 0.01).mean() > 0.99


def test_models_and_recordings_stay_within_20_mb() -> None:
    folders = [recordings.FOLDER, recordings.FOLDER.parent / "models"]
    files = [file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 20_000_000
