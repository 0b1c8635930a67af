"""Recordings of a second or three, and a planner and an engine for them that need microseconds.

The planner is the product's own behind the decoder: its chunks, its writer and its announcements. The engine's text is
a hash of the samples that it was given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consumer.core.chunks import ChunkShape
from consumer.core.speech import Activity, ChunkSpeech, ChunkTask, Diarization, Language, Progress, Samples, Segment
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Window, to_seconds
from consumer.core.windows import Decided, WindowPolicy
from consumer.errors import DecoderCrashed, GpuOutOfMemory, UnreadableAudio
from consumer.events import ChunkTimings, JobOptions, RecordingFacts
from consumer.functions.plan import Plan, Planning, StoredRecording
from consumer.ports import Attempt, ObjectStat, ObjectStore
from consumer.settings import Settings
from consumer.work import ChunkWork, PlanFinished, PlanStarted, PlanWork
from tests.model.fate import Fate

CHUNK_S, WINDOW_S, OVERLAP_S = 1.0, 0.5, 0.25
BLOCK_BYTES = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
LONG, SHORT, MISSING = "long.wav", "short.wav", "missing.wav"
CHUNKS = {LONG: 3, SHORT: 1}
ENDLESS = 99


def _pcm(seconds: int, seed: int) -> bytes:
    samples = np.arange(seconds * SAMPLE_RATE_HZ, dtype=np.int64) * seed % 4093
    return samples.astype("<i2").tobytes()


RECORDINGS = {LONG: _pcm(3, 1009), SHORT: _pcm(1, 2003)}


@dataclass(frozen=True)
class Script:
    """What goes wrong with a job by itself: how often it does so, of the whole plan or by chunk."""

    plan_crashes: int = 0
    """The decoder dies: may work with the next try."""
    retryable: Mapping[int, int] = field(default_factory=dict)
    """There is no room on the GPU."""
    deadly: Mapping[int, int] = field(default_factory=dict)
    """The process is killed."""
    broken: frozenset[int] = frozenset()
    """Chunks that can never be transcribed."""

    def lost_chunks(self, key: str) -> frozenset[int]:
        """Chunks of the recording that fail for good, whatever the platform does."""
        endless = {i for tries in (self.retryable, self.deadly) for i, n in tries.items() if n == ENDLESS}
        return (self.broken | endless) & frozenset(range(CHUNKS.get(key, 0)))


@dataclass
class Stage:
    """Plays the scripts: counts the mishaps of each job."""

    scripts: dict[str, Script] = field(default_factory=dict)
    _had: Counter[tuple[object, ...]] = field(default_factory=Counter)

    def of(self, job_id: str) -> Script:
        return self.scripts.get(job_id, Script())

    def happens(self, times: int, *what: object) -> bool:
        """Whether it goes wrong once more."""
        self._had[what] += 1
        return self._had[what] <= times


class HalfSeconds:
    """A window policy: one window after the other. It is a `WindowPolicy`."""

    def __init__(self) -> None:
        self._windows = 0
        self._decoded = 0

    def feed(self, samples: NDArray[np.int16]) -> Decided:
        self._decoded += len(samples)
        return Decided(tuple(self._complete()), int(self._windows * WINDOW_S * SAMPLE_RATE_HZ))

    def finish(self) -> Decided:
        return Decided((), self._decoded)

    def _complete(self) -> Iterator[Window]:
        while (end_s := (self._windows + 1) * WINDOW_S) <= to_seconds(self._decoded):
            yield Window(self._windows, end_s - WINDOW_S, end_s)
            self._windows += 1


class ModelPlan(Plan):
    """The product's plan with the samples taken as they are stored."""

    def __init__(self, store: ObjectStore, work_bucket: str, stage: Stage, clock: Callable[[], float]):
        shape = ChunkShape(CHUNK_S, OVERLAP_S, 500_000_000)
        limits = Settings().limits
        super().__init__(
            store, work_bucket, shape, limits, _policy, lambda model: WINDOW_S, lambda model: OVERLAP_S, clock
        )
        self._stage = stage

    def __call__(self, work: PlanWork, attempt: Attempt) -> PlanFinished:
        stat = self._pin(work.recording)
        attempt.announce(
            PlanStarted(job_id=work.job_id, run=work.run, epoch=work.epoch, etag=stat.etag, size_bytes=stat.size_bytes)
        )
        planning = self._planning(work, attempt, stat, channels=1)
        source = StoredRecording(self._store, stat)
        for start in range(0, stat.size_bytes, BLOCK_BYTES):
            attempt.check()
            planning.feed(np.frombuffer(source.read(start, BLOCK_BYTES), "<i2")[None])
            self._crash(work.job_id)
        planning.finish()
        return PlanFinished(
            job_id=work.job_id,
            run=work.run,
            epoch=work.epoch,
            chunks_total=planning.chunks,
            recording=_facts(stat, planning),
            plan_s=0.0,
        )

    def _crash(self, job_id: str) -> None:
        if self._stage.happens(self._stage.of(job_id).plan_crashes, job_id, "plan"):
            raise DecoderCrashed("says the script")


def _policy(options: JobOptions) -> WindowPolicy:
    return HalfSeconds()


def _facts(stat: ObjectStat, planning: Planning) -> RecordingFacts:
    return RecordingFacts(
        bucket=stat.bucket,
        key=stat.key,
        etag=stat.etag,
        size_bytes=stat.size_bytes,
        media_type="audio/x-wav",
        duration_s=to_seconds(planning.samples),
        speech_s=to_seconds(planning.speech_samples),
        channels=1,
        sample_rate_hz=SAMPLE_RATE_HZ,
    )


@dataclass
class ModelEngine:
    """Fails as the script of the job says. `held` is the work of the process; `accent` is added to every text."""

    fate: Fate
    stage: Stage
    accent: Callable[[], str]
    held: ChunkWork | None = None
    had_checkpoint: bool = False
    """Whether the checkpoint was there when the process began with `held`."""
    device: str = "none/none"

    def max_window_s(self, model: str | None) -> float:
        return WINDOW_S

    def min_overlap_s(self, model: str | None) -> float:
        return OVERLAP_S

    def warm_up(self, model: str) -> None:
        """Nothing to load."""

    def detect_language(self, samples: Samples, model: str | None) -> Language | None:
        return Language("en", 0.9)

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        assert self.held is not None
        self.fate.oracle.computes(self.held, self.had_checkpoint)
        accent = self.accent()
        progress(0.0)
        self.fate.effect()
        self._fail(self.held)
        progress(0.5)
        return ChunkSpeech(
            segments=tuple(_segment(task, window, accent) for window in task.chunk.windows),
            activity=None,
            language=task.language,
            language_probability=None,
            timings=ChunkTimings(),
            fingerprint="model",
            device=self.device,
        )

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        raise AssertionError("these jobs ask for no speakers")

    def _fail(self, work: ChunkWork) -> None:
        script, index = self.stage.of(work.job_id), work.chunk_index
        if self.stage.happens(script.deadly.get(index, 0), work.job_id, index, "deadly"):
            self.fate.die()
        if index in script.broken:
            raise UnreadableAudio("says the script")
        if self.stage.happens(script.retryable.get(index, 0), work.job_id, index, "retryable"):
            raise GpuOutOfMemory("says the script")


def _segment(task: ChunkTask, window: Window, accent: str) -> Segment:
    start, end = window.span.start - task.chunk.audio.start, window.span.end - task.chunk.audio.start
    text = " " + hashlib.sha256(task.samples[start:end].tobytes()).hexdigest()[:8] + accent
    return Segment(window.start_s, window.end_s, text, window_index=window.index)
