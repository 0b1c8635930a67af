"""Transcribing one chunk: what is computed, what is announced, and what is never computed twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.core import checkpoint
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.speech import (
    Activity,
    ChunkSpeech,
    ChunkTask,
    Diarization,
    Language,
    Progress,
    Samples,
    Segment,
)
from consumer.core.values import SAMPLE_RATE_HZ, Chunk, Span, Window
from consumer.errors import Cancelled, ChangedObject, GpuOutOfMemory, UnreadableDocument
from consumer.events import ChunkTimings, ChunkTranscribed, Event, JobOptions, Problem
from consumer.functions.transcribe import Transcribe
from consumer.ports import PutOutcome
from consumer.work import ChunkProgressed, ChunkSkipped, ChunkWork
from tests.unit.functions.spoilt import spoilt, with_more

BUCKET = "transcription-work"
KEYS = RunKeys("job-1", 1)
WORK = ChunkWork(job_id="job-1", run=1, chunk_index=0, audio_s=2.0, options=JobOptions())
ENGLISH = Language("en", 0.9)
PLAN = ChunkPlan.of(Chunk(0, Span(0, 1), Span(0, 1), ()), "")
WARNING = Problem(code="NO_ALIGNER", message="no aligner", stage="transcribe")


class TickingClock:
    """A clock that shows the next of its times at each look, then stays."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now_s = 0.0
        self._step_s = step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


@dataclass
class ListeningAttempt:
    """Keeps what was reported; `stop_after` checks it is cancelled."""

    stop_after: int | None = None
    checks: int = 0
    reported: list[Event] = field(default_factory=list)
    number: int = 1

    def announce(self, *events: Event) -> None:
        raise AssertionError("a chunk is announced by its answer only")

    def report(self, event: Event) -> None:
        self.reported.append(event)

    def check(self) -> None:
        self.checks += 1
        if self.stop_after is not None and self.checks > self.stop_after:
            raise Cancelled("the job was cancelled")


@dataclass
class CountingEngine:
    """Says one segment per window, and counts how often it is asked."""

    steps: int = 4
    text: str = "hello"
    language: Language | None = ENGLISH
    before_answer: Callable[[], None] = lambda: None
    device: str = "cpu/int8"
    tasks: list[ChunkTask] = field(default_factory=list)
    samples_detected: list[int] = field(default_factory=list)

    def max_window_s(self, model: str | None) -> float:
        return 30.0

    def min_overlap_s(self, model: str | None) -> float:
        return 10.0

    def detect_language(self, samples: Samples, model: str | None) -> Language | None:
        self.samples_detected.append(len(samples))
        return self.language

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        self.tasks.append(task)
        for step in range(self.steps):
            progress((step + 1) / self.steps)
        self.before_answer()
        segments = tuple(Segment(w.start_s, w.end_s, f" {self.text}") for w in task.chunk.windows)
        activity = Activity(0, np.ones((2, 5, 3), np.float32), np.ones((2, 3, 4), np.float32))
        timings = ChunkTimings(transcribe_s=10.0)
        return ChunkSpeech(segments, activity, task.language, None, timings, (WARNING,), "f00", self.device)

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        raise AssertionError("a transcriber joins nothing")


def stored_plan(store: MemoryStore, windows: int = 2, audio: bytes | None = None) -> bytes:
    """A chunk of 2 s in the store, and its audio."""
    pcm = np.arange(2 * SAMPLE_RATE_HZ, dtype="<i2").tobytes()
    span = Span(0, 2 * SAMPLE_RATE_HZ)
    chunk = Chunk(0, span, span, tuple(Window(i, float(i), i + 0.5) for i in range(windows)), is_last=True)
    plan = ChunkPlan.of(chunk, hashlib.sha256(pcm).hexdigest(), span.end)
    store.put(BUCKET, KEYS.chunk_audio(0), pcm if audio is None else audio)
    store.put(BUCKET, KEYS.chunk_plan(0), plan.model_dump_json().encode())
    store.put(BUCKET, KEYS.language_sample, pcm[:SAMPLE_RATE_HZ] if windows else b"")
    return pcm


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore(BUCKET)
    stored_plan(store)
    return store


def transcribed(answer: ChunkTranscribed | ChunkSkipped) -> ChunkTranscribed:
    assert isinstance(answer, ChunkTranscribed)
    return answer


def test_a_chunk_is_computed_stored_and_announced(store: MemoryStore) -> None:
    engine = CountingEngine()
    answer = transcribed(Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt()))
    data = store.get(BUCKET, KEYS.checkpoint(0))
    assert (answer.start_s, answer.end_s, answer.reused) == (0.0, 2.0, False)
    assert [(one.start_s, one.text) for one in answer.segments] == [(0.0, "hello"), (1.0, "hello")]
    assert (answer.checkpoint.key, answer.checkpoint.size_bytes) == (KEYS.checkpoint(0), len(data))
    assert answer.checkpoint.sha256 == hashlib.sha256(data).hexdigest()
    assert (answer.fingerprint, answer.device, answer.warnings) == ("f00", "cpu/int8", (WARNING,))
    assert checkpoint.decode(data).segments[0].text == " hello"


def test_the_engine_hears_the_samples_that_were_planned(store: MemoryStore) -> None:
    engine = CountingEngine()
    Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt())
    (task,) = engine.tasks
    assert task.samples.dtype == np.float32
    assert task.samples[16384] == 0.5
    assert task.recording_samples == 2 * SAMPLE_RATE_HZ
    assert [window.index for window in task.chunk.windows] == [0, 1]


def test_times_are_told_by_stage(store: MemoryStore) -> None:
    answer = transcribed(Transcribe(store, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt()))
    assert (answer.timings.fetch_s, answer.timings.transcribe_s, answer.timings.store_s) == (1.0, 11.0, 1.0)


def test_a_finished_chunk_is_announced_again_and_not_computed_again(store: MemoryStore) -> None:
    engine = CountingEngine()
    function = Transcribe(store, BUCKET, engine, TickingClock())
    first = transcribed(function(WORK, ListeningAttempt()))
    again = transcribed(function(WORK, ListeningAttempt()))
    assert len(engine.tasks) == 1
    assert again.reused
    assert again.checkpoint == first.checkpoint
    assert (again.segments, again.fingerprint, again.language) == (first.segments, first.fingerprint, first.language)


def test_whoever_stored_first_is_announced(store: MemoryStore) -> None:
    """Another worker finishes the same chunk while this one computes."""
    other = CountingEngine(text="first")
    meanwhile = Transcribe(store, BUCKET, other, TickingClock())

    def other_finishes() -> None:
        meanwhile(WORK, ListeningAttempt())

    engine = CountingEngine(text="second", before_answer=other_finishes)
    answer = transcribed(Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt()))
    data = store.get(BUCKET, KEYS.checkpoint(0))
    assert answer.segments[0].text == "first"
    assert answer.checkpoint.sha256 == hashlib.sha256(data).hexdigest()
    assert not answer.reused


def test_a_checkpoint_that_cannot_be_read_is_computed_anew_and_replaced(store: MemoryStore) -> None:
    store.put(BUCKET, KEYS.checkpoint(0), b"from another release")
    engine = CountingEngine()
    answer = transcribed(Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt()))
    assert not answer.reused
    assert checkpoint.decode(store.get(BUCKET, KEYS.checkpoint(0))).device == "cpu/int8"


@pytest.mark.parametrize("missing", [KEYS.chunk_plan(0), KEYS.chunk_audio(0), KEYS.language_sample])
def test_a_chunk_whose_input_is_gone_is_skipped(store: MemoryStore, missing: str) -> None:
    store.delete(BUCKET, [missing])
    engine = CountingEngine()
    answer = Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt())
    assert answer == ChunkSkipped(job_id="job-1", run=1, chunk_index=0, reason="gone")
    assert engine.tasks == []


@pytest.mark.parametrize("data", spoilt(PLAN, windows=[[0, 1e308, 1e308, 0]], span=[5, 1]))
def test_a_plan_that_cannot_be_read_is_refused(store: MemoryStore, data: bytes) -> None:
    store.put(BUCKET, KEYS.chunk_plan(0), data)
    with pytest.raises(UnreadableDocument, match=KEYS.chunk_plan(0)):
        Transcribe(store, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt())


def test_what_a_later_version_adds_to_a_plan_is_skipped(store: MemoryStore) -> None:
    plan = with_more(store.get(BUCKET, KEYS.chunk_plan(0)))
    store.put(BUCKET, KEYS.chunk_plan(0), plan)
    transcribed(Transcribe(store, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt()))


def test_a_language_sample_with_half_a_sample_is_refused(store: MemoryStore) -> None:
    store.put(BUCKET, KEYS.language_sample, b"\x01")
    with pytest.raises(ChangedObject, match=KEYS.language_sample):
        Transcribe(store, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt())


def test_audio_that_is_not_what_was_planned_is_refused(store: MemoryStore) -> None:
    stored_plan(store, audio=b"\x01\x00" * SAMPLE_RATE_HZ)
    with pytest.raises(ChangedObject):
        Transcribe(store, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt())


def test_the_language_is_detected_on_the_sample_of_the_recording(store: MemoryStore) -> None:
    engine = CountingEngine()
    answer = transcribed(Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt()))
    assert engine.samples_detected == [SAMPLE_RATE_HZ // 2]
    assert engine.tasks[0].language == "en"
    assert (answer.language, answer.language_probability) == ("en", 0.9)


@pytest.mark.parametrize(
    "work",
    [
        WORK.model_copy(update={"language": "de"}),
        WORK.model_copy(update={"options": JobOptions(language="de")}),
        WORK.model_copy(update={"options": JobOptions(language="de"), "language": "fr"}),
    ],
    ids=["pinned", "given", "given and pinned"],
)
def test_a_language_that_is_known_is_not_detected(store: MemoryStore, work: ChunkWork) -> None:
    engine = CountingEngine()
    answer = transcribed(Transcribe(store, BUCKET, engine, TickingClock())(work, ListeningAttempt()))
    assert engine.samples_detected == []
    assert (answer.language, answer.language_probability) == ("de", None)


def test_a_recording_in_which_nothing_is_said_has_no_language() -> None:
    store = MemoryStore(BUCKET)
    stored_plan(store, windows=0)
    engine = CountingEngine()
    answer = transcribed(Transcribe(store, BUCKET, engine, TickingClock())(WORK, ListeningAttempt()))
    assert engine.samples_detected == []
    assert (answer.language, answer.segments, answer.segments_omitted) == (None, (), False)


def test_progress_is_reported_at_most_once_per_interval(store: MemoryStore) -> None:
    """The clock moves by a quarter of a second per look: twelve steps, a report every eighth look."""
    attempt = ListeningAttempt()
    function = Transcribe(store, BUCKET, CountingEngine(steps=24), TickingClock(0.25), progress_interval_s=2.0)
    function(WORK, attempt)
    fractions = [event.fraction for event in attempt.reported if isinstance(event, ChunkProgressed)]
    assert attempt.checks == 24
    assert len(fractions) == 3
    assert fractions == sorted(fractions)


def test_a_cancelled_job_ends_between_two_batches_and_leaves_no_checkpoint(store: MemoryStore) -> None:
    with pytest.raises(Cancelled):
        Transcribe(store, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt(stop_after=1))
    assert KEYS.checkpoint(0) not in set(store.list_keys(BUCKET, KEYS.work_prefix))


def test_what_the_engine_raises_is_passed_on(store: MemoryStore) -> None:
    def no_room() -> None:
        raise GpuOutOfMemory("no room")

    with pytest.raises(GpuOutOfMemory):
        Transcribe(store, BUCKET, CountingEngine(before_answer=no_room), TickingClock())(WORK, ListeningAttempt())


def test_segments_that_are_too_long_for_an_event_are_left_to_the_checkpoint(store: MemoryStore) -> None:
    answer = transcribed(
        Transcribe(store, BUCKET, CountingEngine(text="é" * 20_000), TickingClock())(WORK, ListeningAttempt())
    )
    assert (answer.segments, answer.segments_omitted) == ((), True)
    assert len(answer.model_dump_json()) < 64 << 10


def test_a_checkpoint_is_written_in_one_conditional_request(store: MemoryStore) -> None:
    """P2: of two workers one wins; so the write must ask for an empty place."""
    asked: list[str] = []

    class Watched(MemoryStore):
        def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "") -> PutOutcome:
            asked.append(key)
            return super().put_new(bucket, key, data, content_type)

    watched = Watched(BUCKET)
    stored_plan(watched)
    Transcribe(watched, BUCKET, CountingEngine(), TickingClock())(WORK, ListeningAttempt())
    assert asked == [KEYS.checkpoint(0)]
