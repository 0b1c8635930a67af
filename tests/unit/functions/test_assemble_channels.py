"""Assembling a multichannel job: the channels' texts merged in time, each channel a speaker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from consumer.core import checkpoint
from consumer.core.manifest import ChunkPlan
from consumer.core.speech import Activity, ChunkSpeech, Segment, Word
from consumer.core.values import Chunk, Span
from consumer.events import DiarizeOptions, JobOptions, OutputFormat
from consumer.work import AssemblyFinished
from tests.unit.functions.result_fakes import FakeAttempt, JoiningEngine, WatchedStore
from tests.unit.functions.test_assemble import CHUNKS, KEYS, _assemble, _chunk, _result, _work

SAID = ((0, 1.0, " Hello there."), (1, 3.0, " Good day."), (0, 4.0, " You first."), (1, 4.5, " No, you."))
"""(channel, start, text), each 2 s long."""


def _spoken(channel: int, activity: Activity | None = None) -> ChunkSpeech:
    segments = []
    for at, (on, start_s, text) in enumerate(SAID):
        if on == channel:
            words = tuple(Word(word, start_s + k, start_s + k + 0.8, 0.9) for k, word in enumerate(text.split()))
            segments.append(Segment(start_s, start_s + 2.0, text, words, channel=channel, window_index=at))
    return replace(_chunk(0), segments=tuple(segments), activity=activity, warnings=())


def _store(*failed: int) -> WatchedStore:
    """A chunk of each channel."""
    store = WatchedStore()
    span = Span(0, 10 * 16_000)
    for channel in range(2):
        plan = ChunkPlan.of(Chunk(channel, span, span, (), is_last=True, channel=channel), audio_sha256="00")
        store.put("work", KEYS.chunk_plan(channel), plan.model_dump_json().encode())
        if channel not in failed:
            store.put("work", KEYS.checkpoint(channel), checkpoint.encode(_spoken(channel)))
    return store


def _document(store: WatchedStore, *failed: int, **options: Any) -> tuple[AssemblyFinished, dict[str, Any]]:
    wanted = JobOptions(multichannel=True, **options)
    return _result(store, _work(options=wanted, chunks_total=2, chunks_failed=failed))


def test_the_texts_are_merged_in_time_and_each_channel_is_a_speaker() -> None:
    answer, document = _document(_store())
    found = [(s["channel"], s["start"], s["text"], s["speaker"]) for s in document["segments"]]
    assert found == [(channel, start_s, text, f"CHANNEL_0{channel}") for channel, start_s, text in SAID]
    assert document["text"] == "Hello there. Good day. You first. No, you."
    assert answer.speakers == ("CHANNEL_00", "CHANNEL_01")
    assert document["speakers"] == [{"label": "CHANNEL_00", "speech_s": 4.0}, {"label": "CHANNEL_01", "speech_s": 4.0}]


def test_words_carry_channel_and_speaker() -> None:
    _, document = _document(_store())
    for segment in document["segments"]:
        assert {(w["channel"], w["speaker"]) for w in segment["words"]} == {(segment["channel"], segment["speaker"])}
    assert [word["word"] for word in document["word_segments"][:4]] == ["Hello", "there.", "Good", "day."]


def test_overlaps_are_where_two_channels_speak_at_once() -> None:
    _, document = _document(_store())
    assert document["overlaps"] == [{"start": 4.0, "end": 6.0, "speakers": ["CHANNEL_00", "CHANNEL_01"]}]


def test_every_file_names_the_channel_as_the_speaker() -> None:
    store = _store()
    answer, _ = _document(store)
    assert [artifact.format for artifact in answer.artifacts] == list(OutputFormat)
    for name in ("srt", "vtt", "txt", "tsv", "rttm"):
        text = store.get("results", KEYS.artifact(name)).decode()
        assert "CHANNEL_00" in text, name
        assert "CHANNEL_01" in text, name
    assert store.get("results", KEYS.artifact("txt")).decode().splitlines()[1] == "[CHANNEL_01]: Good day."


def test_no_voices_are_joined_even_if_a_chunk_brings_some() -> None:
    """A worker of the version before knows nothing of channels and listens to voices all the same."""
    store, engine = _store(), JoiningEngine()
    store.put("work", KEYS.checkpoint(0), checkpoint.encode(_spoken(0, _chunk(0).activity)))
    work = _work(options=JobOptions(multichannel=True), chunks_total=2)
    answer = _assemble(store, engine)(work, FakeAttempt())
    assert engine.joined == []
    assert answer.speakers == ("CHANNEL_00", "CHANNEL_01")


def test_without_diarization_there_are_channels_and_no_speakers() -> None:
    answer, document = _document(_store(), diarize=DiarizeOptions(enabled=False))
    assert answer.speakers == ()
    assert [segment["channel"] for segment in document["segments"]] == [0, 1, 0, 1]
    assert {word["channel"] for word in document["word_segments"]} == {0, 1}
    assert "speaker" not in {name for one in (*document["segments"], *document["word_segments"]) for name in one}
    assert (document["speakers"], document["overlaps"]) == ([], [])
    assert "rttm" not in {artifact.format for artifact in answer.artifacts}


def test_a_gap_tells_its_channel() -> None:
    _, document = _document(_store(1), 1)
    assert document["gaps"] == [{"start": 0.0, "end": 10.0, "chunk": 1, "channel": 1}]
    assert {segment["channel"] for segment in document["segments"]} == {0}


def test_a_mixed_recording_says_nothing_of_channels_in_its_words() -> None:
    store = WatchedStore()
    for index in range(CHUNKS):
        store.put("work", KEYS.checkpoint(index), checkpoint.encode(_chunk(index)))
    _, document = _result(store, _work())
    assert all("channel" not in word for word in document["word_segments"])
