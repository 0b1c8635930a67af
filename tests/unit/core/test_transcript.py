from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from consumer.core.speech import Segment, Turn, Word
from consumer.core.transcript import Gap, Transcript, in_order, join_texts
from tests.unit.core.speech_strategies import overlapping_turns, recordings


def _document(transcript: Transcript) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(transcript.to_bytes())
    return document


def test_the_document_has_the_field_names_of_whisperx() -> None:
    words = (Word("Good", 0.1, 0.5, 0.91, "SPEAKER_00"), Word("day.", 0.6, 1.0, 0.5, "SPEAKER_00"))
    segment = Segment(0.0, 1.25, " Good day.", words, 0, 0, "aligned", -0.25, "SPEAKER_00", ("repetition",))
    transcript = Transcript((segment,), "en", 2.0, language_probability=0.9, turns=(Turn(0, 1.2, "SPEAKER_00"),))
    spoken = [
        {"word": "Good", "start": 0.1, "end": 0.5, "score": 0.91, "speaker": "SPEAKER_00"},
        {"word": "day.", "start": 0.6, "end": 1.0, "score": 0.5, "speaker": "SPEAKER_00"},
    ]
    assert _document(transcript) == {
        "language": "en",
        "language_probability": 0.9,
        "duration_s": 2.0,
        "text": "Good day.",
        "segments": [
            {
                "id": 0,
                "start": 0.0,
                "end": 1.25,
                "text": " Good day.",
                "speaker": "SPEAKER_00",
                "channel": 0,
                "avg_logprob": -0.25,
                "timing": "aligned",
                "flags": ["repetition"],
                "words": spoken,
            }
        ],
        "word_segments": spoken,
        "speakers": [{"label": "SPEAKER_00", "speech_s": 1.2}],
        "overlaps": [],
        "gaps": [],
    }


def test_what_is_not_known_is_absent_and_never_null_or_nan() -> None:
    words = (Word("12"), Word("go", math.nan, math.inf, -math.inf))
    document = _document(Transcript((Segment(0, 1, " 12 go", words, avg_logprob=math.nan),), None, 1.0))
    assert document["word_segments"] == [{"word": "12"}, {"word": "go"}]
    assert "language" not in document
    assert "avg_logprob" not in document["segments"][0]
    assert "speaker" not in document["segments"][0]


def test_numbers_are_rounded_plain_floats() -> None:
    float32: Any = np.float32(0.1)
    words = (Word("a", float32, np.float64(0.30000000004), 0.123456),)
    (word,) = _document(Transcript((Segment(-0.0001, 1, " a", words),), "en", 1.0))["word_segments"]
    assert word == {"word": "a", "start": 0.1, "end": 0.3, "score": 0.123}
    assert b"-0.0," not in Transcript((Segment(-0.0001, 1, " a", words),), "en", 1.0).to_bytes()


def test_an_embedding_with_nan_is_absent() -> None:
    turns = (Turn(0, 1, "SPEAKER_00"), Turn(1, 2, "SPEAKER_01"))
    embeddings = {"SPEAKER_00": (0.12345678, -1.0), "SPEAKER_01": (math.nan, 1.0)}
    speakers = _document(Transcript((), "en", 2.0, turns=turns, embeddings=embeddings))["speakers"]
    assert speakers[0]["embedding"] == [0.123457, -1.0]
    assert "embedding" not in speakers[1]


def test_gaps_and_overlaps_are_listed() -> None:
    turns = (Turn(0, 2, "SPEAKER_01"), Turn(1, 3, "SPEAKER_00"))
    document = _document(Transcript((), "en", 900.0, turns=turns, gaps=(Gap(300.0, 600.5, 1),)))
    assert document["overlaps"] == [{"start": 1.0, "end": 2.0, "speakers": ["SPEAKER_00", "SPEAKER_01"]}]
    assert document["gaps"] == [{"start": 300.0, "end": 600.5, "chunk": 1}]
    assert [speaker["label"] for speaker in document["speakers"]] == ["SPEAKER_01", "SPEAKER_00"]


def test_segments_are_ordered_by_start_then_channel_and_else_stay_as_they_were() -> None:
    segments = [Segment(5, 6, "c"), Segment(0, 1, "b", channel=1), Segment(0, 1, "a"), Segment(5, 5.5, "d")]
    assert [segment.text for segment in in_order(segments)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("texts", "language", "joined"),
    [
        ([" One.", " Two."], "en", "One. Two."),
        ([" One.", "Two.", "", "Three."], "en", "One. Two. Three."),
        (["东京。", "好。"], "zh", "东京。好。"),
        ([], None, ""),
    ],
)
def test_texts_are_joined_as_their_language_is_written(texts: list[str], language: str | None, joined: str) -> None:
    assert join_texts(texts, language) == joined


@given(recordings(), overlapping_turns())
def test_equal_transcripts_have_equal_bytes_and_every_word(
    segments: tuple[Segment, ...], turns: tuple[Turn, ...]
) -> None:
    first = Transcript(segments, "en", 10.0, turns=turns)
    second = Transcript(tuple(segments), "en", 10.0, turns=tuple(reversed(turns)))
    assert first.to_bytes() == second.to_bytes()
    spoken = [word for segment in segments for word in segment.text.split()]
    assert _document(first)["text"].split() == spoken
    assert [segment["id"] for segment in _document(first)["segments"]] == list(range(len(segments)))


def test_a_time_that_is_no_number_is_an_error_and_not_a_broken_file() -> None:
    """A segment's own times are promised by the engine; without them the document would be useless."""
    with pytest.raises(ValueError, match="JSON"):
        Transcript((Segment(math.nan, 1, " a"),), "en", 1.0).to_bytes()
