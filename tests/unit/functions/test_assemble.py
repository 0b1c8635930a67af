from __future__ import annotations

import hashlib
import json
import logging
import weakref
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from consumer.core import checkpoint
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.results import ResultManifest
from consumer.core.speech import Activity, ChunkSpeech, Diarization, Segment, Word
from consumer.core.values import Chunk, Span
from consumer.errors import Cancelled, LostIntermediate, UnreadableDocument
from consumer.events import ChunkTimings, DiarizeOptions, JobOptions, JobStatus, OutputFormat, Problem, RecordingFacts
from consumer.functions.assemble import Assemble
from consumer.results_lookup import find_result, known_digest, last_run
from consumer.work import AssemblyFinished, AssemblyWork
from tests.unit.functions.result_fakes import FakeAttempt, JoiningEngine, WatchedStore
from tests.unit.functions.spoilt import NO_DOCUMENTS

KEYS = RunKeys("job-1", 1)
CHUNKS = 3
CHUNK_S = 10
EXTRA = Problem(code="PROMPT_CUT", message="the prompt was cut", stage="transcribe", chunk_index=0)


def _chunk(index: int, fingerprint: str = "f1") -> ChunkSpeech:
    """Ten seconds: `SPEAKER_00` says "Ask <index>" and `SPEAKER_01` answers, within one segment."""
    at_s = float(index * CHUNK_S)
    scores = np.zeros((CHUNK_S, 4, 2), dtype=np.float32)
    scores[:5, :, 0] = scores[5:, :, 1] = 1
    words = (Word("Ask", at_s + 1, at_s + 2, 0.9), Word(f"{index}?"), Word("Yes.", at_s + 7, at_s + 8, 0.8))
    return ChunkSpeech(
        segments=(Segment(at_s + 1, at_s + 8, f" Ask {index}? Yes.", words, timing="aligned", window_index=index),),
        activity=Activity(index * CHUNK_S, scores, np.ones((CHUNK_S, 2, 4), dtype=np.float32)),
        language="en",
        language_probability=None,
        timings=ChunkTimings(transcribe_s=0.5, align_s=0.25, diarize_s=0.125),
        warnings=(EXTRA,) if index == 0 else (),
        fingerprint=fingerprint,
        device="cpu/int8",
    )


def _store(*failed: int, fingerprints: tuple[str, ...] = ("f1",) * CHUNKS) -> WatchedStore:
    store = WatchedStore()
    for index in range(CHUNKS):
        span = Span(index * CHUNK_S * 16_000, (index + 1) * CHUNK_S * 16_000)
        plan = ChunkPlan.of(Chunk(index, span, span, ()), audio_sha256="00")
        store.put("work", KEYS.chunk_plan(index), plan.model_dump_json().encode())
        if index not in failed:
            store.put("work", KEYS.checkpoint(index), checkpoint.encode(_chunk(index, fingerprints[index])))
    store.written.clear()
    return store


def _work(**changes: Any) -> AssemblyWork:
    facts = RecordingFacts(
        bucket="calls",
        key="2024/board meeting.wav",
        etag="e1",
        size_bytes=960_044,
        media_type="audio/x-wav",
        duration_s=float(CHUNKS * CHUNK_S),
        speech_s=21.0,
        channels=1,
        sample_rate_hz=16_000,
    )
    fields: dict[str, Any] = {
        "job_id": "job-1",
        "run": 1,
        "chunks_total": CHUNKS,
        "request_digest": "abc",
        "recording": facts,
        "options": JobOptions(),
        "language": "en",
        "metadata": {"case": "7"},
        **changes,
    }
    return AssemblyWork(**fields)


def _assemble(store: WatchedStore, engine: JoiningEngine | None = None, inline_max_bytes: int = 100_000) -> Assemble:
    ticks = count(100, 2)
    return Assemble(
        store, "work", "results", engine or JoiningEngine(), inline_max_bytes, clock=lambda: float(next(ticks))
    )


def _result(store: WatchedStore, work: AssemblyWork) -> tuple[AssemblyFinished, dict[str, Any]]:
    answer = _assemble(store)(work, FakeAttempt())
    return answer, json.loads(store.get("results", KEYS.artifact("json")))


def test_the_chunks_become_one_transcript_cut_at_speakers() -> None:
    answer, document = _result(_store(), _work())
    spoken = [(segment["text"], segment["speaker"]) for segment in document["segments"]]
    assert spoken == [
        (text, speaker)
        for index in range(CHUNKS)
        for text, speaker in ((f" Ask {index}?", "SPEAKER_00"), (" Yes.", "SPEAKER_01"))
    ]
    assert [segment["id"] for segment in document["segments"]] == list(range(2 * CHUNKS))
    assert document["text"] == "Ask 0? Yes. Ask 1? Yes. Ask 2? Yes."
    assert answer.speakers == ("SPEAKER_00", "SPEAKER_01")
    assert answer.warnings == (EXTRA,)
    assert answer.fingerprint == "f1"
    assert answer.timings.transcribe_s == 1.5
    assert answer.timings.assemble_s == 2.0


def test_the_result_does_not_depend_on_how_the_recording_was_cut() -> None:
    """P4: the same windows in three chunks and in one."""
    cut, whole = _store(), WatchedStore()
    chunks = [_chunk(index) for index in range(CHUNKS)]
    activities = [chunk.activity for chunk in chunks if chunk.activity is not None]
    one = replace(
        chunks[0],
        segments=tuple(segment for chunk in chunks for segment in chunk.segments),
        activity=Activity(
            0,
            np.concatenate([activity.scores for activity in activities]),
            np.concatenate([activity.embeddings for activity in activities]),
        ),
    )
    whole.put("work", KEYS.checkpoint(0), checkpoint.encode(one))
    in_three = _assemble(cut)(_work(), FakeAttempt())
    in_one = _assemble(whole)(_work(chunks_total=1), FakeAttempt())
    assert in_three.artifacts == in_one.artifacts
    assert in_three.speakers == in_one.speakers


class _CountingEngine(JoiningEngine):
    """Looks how many activities are in memory while it goes through them, and reads no further than `windows`."""

    def __init__(self, windows: int) -> None:
        super().__init__()
        self._windows = windows
        self.most_alive = 0

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        scores: list[weakref.ref[Any]] = []
        for activity in activities:
            scores.append(weakref.ref(activity.scores))
            self.most_alive = max(self.most_alive, sum(known() is not None for known in scores))
            if activity.first >= self._windows:
                break
        return Diarization((), ())


def test_activities_go_by_one_at_a_time() -> None:
    """The first one stays until the engine is done, and one is there while the next is made of it."""
    store = _store()
    chunks = 12
    for index in range(CHUNKS, chunks):
        store.put("work", KEYS.checkpoint(index), checkpoint.encode(_chunk(index)))
    engine = _CountingEngine(windows=chunks * CHUNK_S)
    _assemble(store, engine)(_work(chunks_total=chunks), FakeAttempt())
    assert engine.most_alive <= 3


def test_text_behind_what_the_engine_reads_is_kept() -> None:
    store = _store()
    _assemble(store, _CountingEngine(windows=0))(_work(), FakeAttempt())
    document = json.loads(store.get("results", KEYS.artifact("json")))
    assert document["text"] == "Ask 0? Yes. Ask 1? Yes. Ask 2? Yes."


def test_the_claim_checks_fit_the_files_and_the_manifest_comes_last() -> None:
    store = _store()
    answer = _assemble(store)(_work(), FakeAttempt())
    assert [artifact.format for artifact in answer.artifacts] == [output_format.value for output_format in OutputFormat]
    for claim_check in (answer.manifest, *(artifact.claim_check for artifact in answer.artifacts)):
        data = store.get(claim_check.bucket, claim_check.key)
        assert (claim_check.size_bytes, claim_check.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert store.written[-1] == KEYS.manifest
    assert len(store.written) == len(OutputFormat) + 1


def test_the_manifest_tells_everything_about_the_run() -> None:
    store = _store()
    work = _work()
    answer = _assemble(store)(work, FakeAttempt())
    manifest = ResultManifest.from_bytes(store.get("results", KEYS.manifest))
    assert manifest == find_result(store, "results", "job-1")
    assert (manifest.job_id, manifest.run, manifest.status) == ("job-1", 1, JobStatus.COMPLETED)
    assert (manifest.request_digest, manifest.metadata) == ("abc", {"case": "7"})
    assert (manifest.recording, manifest.options) == (work.recording, work.options)
    assert manifest.artifacts == answer.artifacts
    assert manifest.timings == ChunkTimings(transcribe_s=1.5, align_s=0.75, diarize_s=0.375)


def test_a_redelivery_says_the_same_and_computes_nothing() -> None:
    store, engine = _store(), JoiningEngine()
    assemble = _assemble(store, engine)
    first = assemble(_work(), FakeAttempt())
    for index in range(CHUNKS):
        store.delete("work", [KEYS.checkpoint(index)])
    assert assemble(_work(), FakeAttempt()) == first
    assert len(engine.joined) == 1
    assert len(store.written) == len(OutputFormat) + 1


@pytest.mark.parametrize("written", range(len(OutputFormat) + 1))
def test_a_second_writer_after_a_crash_at_any_file_makes_the_same_result(written: int) -> None:
    whole, crashed = _store(), _store()
    answer = _assemble(whole)(_work(), FakeAttempt())
    for key in whole.written[:written]:
        crashed.put("results", key, whole.get("results", key))
    assert _assemble(crashed)(_work(), FakeAttempt()) == answer
    assert crashed.contents() == whole.contents()


def test_a_different_file_of_an_earlier_writer_stands_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = _store()
    store.put("results", KEYS.artifact("txt"), b"somebody else's")
    with caplog.at_level(logging.WARNING):
        answer = _assemble(store)(_work(), FakeAttempt())
    (text,) = [artifact for artifact in answer.artifacts if artifact.format == "txt"]
    assert text.claim_check.sha256 == hashlib.sha256(b"somebody else's").hexdigest()
    assert [record.key for record in caplog.records] == [KEYS.artifact("txt")]  # type: ignore[attr-defined]


def test_the_transcript_travels_in_the_event_only_when_it_is_small() -> None:
    store = _store()
    answer = _assemble(store)(_work(), FakeAttempt())
    data = store.get("results", KEYS.artifact("json"))
    assert answer.transcript_inline == data.decode()
    assert _assemble(store, inline_max_bytes=len(data))(_work(), FakeAttempt()).transcript_inline is not None
    assert _assemble(store, inline_max_bytes=len(data) - 1)(_work(), FakeAttempt()).transcript_inline is None


def test_a_redelivery_after_the_files_have_expired_still_answers() -> None:
    store = _store()
    _assemble(store)(_work(), FakeAttempt())
    store.delete("results", [KEYS.artifact("json")])
    assert _assemble(store)(_work(), FakeAttempt()).transcript_inline is None


def test_a_foreign_file_that_is_no_text_is_announced_and_not_inlined() -> None:
    store = _store()
    store.put("results", KEYS.artifact("json"), b"\xff")
    answer = _assemble(store)(_work(), FakeAttempt())
    assert answer.transcript_inline is None
    assert "json" in [artifact.format for artifact in answer.artifacts]


def test_a_missing_checkpoint_is_a_lost_intermediate() -> None:
    store = _store(1)
    with pytest.raises(LostIntermediate, match="chunk 1 is gone") as caught:
        _assemble(store)(_work(), FakeAttempt())
    assert caught.value.facts["key"] == KEYS.checkpoint(1)
    assert store.written == []


def test_a_failed_chunk_is_a_gap_in_a_partial_result() -> None:
    store, engine = _store(1), JoiningEngine()
    answer = _assemble(store, engine)(_work(chunks_failed=(1,)), FakeAttempt())
    document = json.loads(store.get("results", KEYS.artifact("json")))
    assert document["gaps"] == [{"start": 10.0, "end": 20.0, "chunk": 1}]
    assert document["text"] == "Ask 0? Yes. Ask 2? Yes."
    manifest = ResultManifest.from_bytes(store.get("results", KEYS.manifest))
    assert (manifest.status, manifest.chunks_failed) == (JobStatus.PARTIAL, (1,))
    assert [warning.code for warning in answer.warnings] == ["CHUNKS_MISSING", "PROMPT_CUT"]
    ((activities, recording_samples),) = engine.joined
    assert [(part.first, len(part.scores)) for part in activities] == [(0, 10), (10, 10), (20, 10)]
    assert not activities[1].scores.any()
    assert recording_samples == CHUNKS * CHUNK_S * 16_000


def test_a_gap_whose_plan_is_gone_too_does_not_withhold_the_rest() -> None:
    store = _store(1)
    store.delete("work", [KEYS.chunk_plan(1)])
    _, document = _result(store, _work(chunks_failed=(1,)))
    assert document["gaps"] == []
    assert document["text"] == "Ask 0? Yes. Ask 2? Yes."


@pytest.mark.parametrize("data", NO_DOCUMENTS)
def test_nor_does_one_whose_plan_cannot_be_read(data: bytes) -> None:
    store = _store(1)
    store.put("work", KEYS.chunk_plan(1), data)
    _, document = _result(store, _work(chunks_failed=(1,)))
    assert document["gaps"] == []
    assert document["text"] == "Ask 0? Yes. Ask 2? Yes."


@pytest.mark.parametrize("data", NO_DOCUMENTS)
def test_a_manifest_that_cannot_be_read_is_refused_and_stands(data: bytes) -> None:
    store = _store()
    store.put("results", KEYS.manifest, data)
    with pytest.raises(UnreadableDocument, match=KEYS.manifest):
        _assemble(store)(_work(), FakeAttempt())
    assert store.get("results", KEYS.manifest) == data


def test_a_manifest_with_more_than_this_version_knows_is_announced() -> None:
    store = _store()
    answer = _assemble(store)(_work(), FakeAttempt())
    later = json.loads(store.get("results", KEYS.manifest))
    later["mood"] = later["options"]["mood"] = "good"
    store.put("results", KEYS.manifest, json.dumps(later).encode())
    again = _assemble(store)(_work(), FakeAttempt())
    assert (again.artifacts, again.models, again.warnings) == (answer.artifacts, answer.models, answer.warnings)


def test_a_checkpoint_that_came_after_its_chunk_had_failed_is_left_out() -> None:
    late, never = _store(), _store(1)
    work = _work(chunks_failed=(1,))
    assert _assemble(late)(work, FakeAttempt()) == _assemble(never)(work, FakeAttempt())


def test_without_diarization_nobody_is_told_apart() -> None:
    store, engine = _store(), JoiningEngine()
    options = JobOptions(diarize=DiarizeOptions(enabled=False))
    answer = _assemble(store, engine)(_work(options=options), FakeAttempt())
    document = json.loads(store.get("results", KEYS.artifact("json")))
    assert engine.joined == []
    assert answer.speakers == ()
    assert [segment["text"] for segment in document["segments"]] == [f" Ask {i}? Yes." for i in range(CHUNKS)]
    assert "rttm" not in [artifact.format for artifact in answer.artifacts]


def test_embeddings_are_in_the_result_only_if_asked_for() -> None:
    _, plain = _result(_store(), _work())
    assert "embedding" not in plain["speakers"][0]
    asked = JobOptions(diarize=DiarizeOptions(embeddings=True))
    _, document = _result(_store(), _work(options=asked))
    assert document["speakers"][0]["embedding"] == [0.5, -0.25]


def test_only_the_formats_that_were_asked_for_are_written_and_json() -> None:
    answer = _assemble(_store())(_work(options=JobOptions(output_formats=(OutputFormat.VTT,))), FakeAttempt())
    assert [artifact.format for artifact in answer.artifacts] == ["json", "vtt"]


def test_chunks_of_different_fingerprints_are_a_warning() -> None:
    answer = _assemble(_store(fingerprints=("f1", "f2", "f1")))(_work(), FakeAttempt())
    assert "MIXED_FINGERPRINTS" in [warning.code for warning in answer.warnings]


def test_rttm_names_the_recording() -> None:
    store = _store()
    _assemble(store)(_work(), FakeAttempt())
    assert store.get("results", KEYS.artifact("rttm")).startswith(b"SPEAKER board_meeting 1 0.000 1.000 ")


def test_a_cancelled_job_gets_no_result() -> None:
    store = _store()
    with pytest.raises(Cancelled):
        _assemble(store)(_work(), FakeAttempt(stop=Cancelled("job-1 was cancelled")))
    assert store.written == []


def test_the_newest_run_with_a_result_is_found() -> None:
    store = _store()
    _assemble(store)(_work(), FakeAttempt())
    manifest = ResultManifest.from_bytes(store.get("results", KEYS.manifest))
    for run in (2, 10):
        later = manifest.model_copy(update={"run": run})
        store.put("results", RunKeys("job-1", run).manifest, later.to_bytes())
    store.put("results", RunKeys("job-1", 11).artifact("json"), b"{}")
    store.put("results", RunKeys("job-12", 99).manifest, manifest.to_bytes())
    found = find_result(store, "results", "job-1")
    assert found is not None
    assert found.run == 10
    assert find_result(store, "results", "job") is None


def test_a_job_without_a_result_is_not_found() -> None:
    assert find_result(WatchedStore(), "results", "job-1") is None


@pytest.mark.parametrize("data", NO_DOCUMENTS)
def test_a_job_whose_manifest_cannot_be_read_counts_as_new_and_keeps_no_other_job_waiting(data: bytes) -> None:
    store = _store()
    _assemble(store)(_work(), FakeAttempt())
    assert known_digest(store, "results", "job-1") == "abc"
    store.put("results", KEYS.manifest, data)
    assert known_digest(store, "results", "job-1") is None
    assert last_run(store, "work", "results", "job-1") == 1
