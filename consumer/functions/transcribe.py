"""Transcribe one chunk: its audio in, a checkpoint out. What is stored already is announced and not computed again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from consumer.core import checkpoint
from consumer.core.checkpoint import UnreadableCheckpoint
from consumer.core.documents import parse
from consumer.core.manifest import ChunkPlan
from consumer.core.speech import ChunkSpeech, ChunkTask, Engine, Language, Progress, Samples, Segment
from consumer.core.values import BYTES_PER_SAMPLE
from consumer.errors import ChangedObject, MissingObject
from consumer.events import ChunkTranscribed, ClaimCheck, PartialSegment
from consumer.ports import Attempt, ObjectStore
from consumer.work import ChunkProgressed, ChunkSkipped, ChunkWork, keys_of

log = logging.getLogger(__name__)

MAX_SEGMENTS_BYTES = 60 << 10
"""An event stays far under the 256 KiB of the contract: longer segments are read from the checkpoint."""
SEGMENT_OVERHEAD_BYTES = 64
"""Times, channel and framing of one segment, rounded up."""


class Transcribe:
    """`ChunkWork` to `ChunkTranscribed`, or `ChunkSkipped` when what the planner stored is gone.

    Raises ChangedObject when the stored audio is not what was planned, UnreadableDocument when its plan is none, the
    store's errors, and the engine's.
    """

    def __init__(
        self,
        store: ObjectStore,
        work_bucket: str,
        engine: Engine,
        clock: Callable[[], float],
        progress_interval_s: float = 2.0,
    ) -> None:
        self._store = store
        self._bucket = work_bucket
        self._engine = engine
        self._clock = clock
        self._progress_interval_s = progress_interval_s

    def __call__(self, work: ChunkWork, attempt: Attempt) -> ChunkTranscribed | ChunkSkipped:
        keys = keys_of(work)
        try:
            plan = self._plan(keys.chunk_plan(work.chunk_index))
            stored = self._stored(keys.checkpoint(work.chunk_index))
            if isinstance(stored, Checkpoint):
                return self._announcement(work, plan, stored, reused=True)
            return self._compute(work, plan, attempt, replaces=stored)
        except MissingObject:
            return ChunkSkipped(job_id=work.job_id, run=work.run, chunk_index=work.chunk_index, reason="gone")

    def _plan(self, key: str) -> ChunkPlan:
        return parse(ChunkPlan, self._store.get(self._bucket, key), f"{self._bucket}/{key}")

    def _stored(self, key: str) -> Checkpoint | Unreadable | None:
        """What an earlier attempt left, if any."""
        try:
            return Checkpoint.of(key, self._store.get(self._bucket, key))
        except MissingObject:
            return None
        except UnreadableCheckpoint as exc:
            log.warning("An unreadable checkpoint is replaced", extra={"key": key, "reason": exc.message})
            return Unreadable()

    def _compute(
        self, work: ChunkWork, plan: ChunkPlan, attempt: Attempt, *, replaces: Unreadable | None
    ) -> ChunkTranscribed:
        started_s = self._clock()
        samples = self._chunk_audio(work, plan)
        fetched_s = self._clock()
        language = self._language(work)
        detected_s = self._clock()
        task = ChunkTask(
            chunk=plan.chunk(),
            samples=samples,
            options=work.options,
            language=language.code if language else None,
            recording_samples=plan.recording_samples,
        )
        speech = self._engine.transcribe(task, self._progress(work, attempt))
        timings = {
            "fetch_s": fetched_s - started_s,
            "transcribe_s": speech.timings.transcribe_s + detected_s - fetched_s,
        }
        speech = replace(
            speech,
            language_probability=language.probability if language else speech.language_probability,
            timings=speech.timings.model_copy(update=timings),
        )
        return self._put(work, plan, speech, replaces)

    def _chunk_audio(self, work: ChunkWork, plan: ChunkPlan) -> Samples:
        key = keys_of(work).chunk_audio(work.chunk_index)
        data = self._store.get(self._bucket, key)
        if hashlib.sha256(data).hexdigest() != plan.audio_sha256:
            raise ChangedObject(
                f"{self._bucket}/{key} is not the audio that was planned; keep others out of the work bucket "
                "and send the job again",
                key=key,
            )
        return to_floats(data)

    def _language(self, work: ChunkWork) -> Spoken | None:
        """Given by the job, pinned by an earlier chunk, or detected on the recording's first speech."""
        if work.options.language != "auto":
            return Spoken(work.options.language)
        if work.language is not None:
            return Spoken(work.language)
        sample = self._sample(keys_of(work).language_sample)
        detected: Language | None = None
        if len(sample):
            detected = self._engine.detect_language(sample, work.options.model)
        return Spoken(detected.code, detected.probability) if detected else None

    def _sample(self, key: str) -> Samples:
        pcm = self._store.get(self._bucket, key)
        if len(pcm) % BYTES_PER_SAMPLE:
            raise ChangedObject(
                f"{self._bucket}/{key} holds no whole samples; keep others out of the work bucket and send the job "
                "again",
                key=key,
            )
        return to_floats(pcm)

    def _progress(self, work: ChunkWork, attempt: Attempt) -> Progress:
        """Asks whether to go on every time, and reports at most once per interval."""
        reported_s = self._clock()

        def progress(fraction: float) -> None:
            nonlocal reported_s
            attempt.check()
            now_s = self._clock()
            if now_s - reported_s >= self._progress_interval_s:
                reported_s = now_s
                attempt.report(
                    ChunkProgressed(
                        job_id=work.job_id, run=work.run, chunk_index=work.chunk_index, fraction=min(fraction, 1.0)
                    )
                )

        return progress

    def _put(
        self, work: ChunkWork, plan: ChunkPlan, speech: ChunkSpeech, replaces: Unreadable | None
    ) -> ChunkTranscribed:
        """Whoever was first stands: a chunk may be computed twice, one result is used."""
        key = keys_of(work).checkpoint(work.chunk_index)
        started_s = self._clock()
        mine = Checkpoint(key, checkpoint.encode(speech), speech)
        put = self._store.put if replaces else self._store.put_new
        if put(self._bucket, key, mine.data).created:
            return self._announcement(work, plan, mine, store_s=self._clock() - started_s)
        first = Checkpoint.of(key, self._store.get(self._bucket, key))
        return self._announcement(work, plan, first, store_s=self._clock() - started_s)

    def _announcement(
        self, work: ChunkWork, plan: ChunkPlan, stored: Checkpoint, *, reused: bool = False, store_s: float = 0.0
    ) -> ChunkTranscribed:
        speech = stored.speech
        segments = partial_segments(speech.segments)
        span = plan.chunk().span
        return ChunkTranscribed(
            job_id=work.job_id,
            run=work.run,
            chunk_index=work.chunk_index,
            start_s=span.start_s,
            end_s=span.end_s,
            language=speech.language,
            language_probability=speech.language_probability,
            segments=segments or (),
            segments_omitted=segments is None,
            checkpoint=stored.claim_check(self._bucket),
            timings=speech.timings.model_copy(update={"store_s": store_s}),
            warnings=speech.warnings,
            reused=reused,
            fingerprint=speech.fingerprint,
            device=speech.device,
        )


@dataclass(frozen=True, slots=True)
class Spoken:
    """The language of the job; a probability only where it was detected just now."""

    code: str
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A checkpoint is there, but not one that this version reads."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored checkpoint: its place, its bytes and what they say."""

    key: str
    data: bytes
    speech: ChunkSpeech

    @classmethod
    def of(cls, key: str, data: bytes) -> Checkpoint:
        return cls(key, data, checkpoint.decode(data))

    def claim_check(self, bucket: str) -> ClaimCheck:
        return ClaimCheck(
            bucket=bucket, key=self.key, size_bytes=len(self.data), sha256=hashlib.sha256(self.data).hexdigest()
        )


def to_floats(pcm: bytes) -> Samples:
    """Signed 16-bit little-endian samples to floats between -1 and 1, as whisperx makes them."""
    return np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(32768)


def partial_segments(segments: Sequence[Segment]) -> tuple[PartialSegment, ...] | None:
    """The segments for an event, or None when they are too long for one."""
    size = sum(len(segment.text.encode()) + SEGMENT_OVERHEAD_BYTES for segment in segments)
    if size > MAX_SEGMENTS_BYTES:
        return None
    return tuple(
        PartialSegment(start_s=one.start_s, end_s=one.end_s, text=one.text.strip(), channel=one.channel)
        for one in segments
    )
