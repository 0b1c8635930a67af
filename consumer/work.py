"""The events that only this program reads: what the coordinator asks for, and what the functions answer.

They are contracts too (a rolling update has two versions running), so each has an `.avsc` file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from consumer.core.layout import RunKeys
from consumer.events import (
    Artifact,
    ChunkTranscribed,
    ClaimCheck,
    Contract,
    Event,
    Instant,
    JobId,
    JobOptions,
    JobRequested,
    JobStatus,
    ModelUsed,
    Problem,
    RecordingFacts,
    RecordingRef,
    RunTimings,
)

# ── intake → coordinator ────────────────────────────────────────────────────────────────────────────────────────────


class OriginalHeader(Contract):
    """One header of a record."""

    name: str
    """Name of the header."""
    value: bytes
    """Value of the header."""
    is_null: bool = False
    """Whether it has no value, which Kafka tells from an empty one."""


class OriginalRecord(Contract):
    """A record as it arrived, with its position: what a dead letter keeps."""

    topic: str
    """Topic it was read from."""
    partition: int
    """Partition it was read from."""
    offset: int
    """Its Kafka offset."""
    timestamp_ms: int
    """Its Kafka timestamp in milliseconds since 1970 (UTC)."""
    record_key: bytes | None = None
    """Its key."""
    value: bytes | None = None
    """Its value."""
    headers: tuple[OriginalHeader, ...] = ()
    """Its headers in their order."""


class JobReceived(Event):
    """Intake read a job request and gave it its id."""

    NAME = "JobReceived"

    job_id: JobId
    """The job."""
    request: JobRequested
    """The request; its options are the defaults when `refusal` is set."""
    request_digest: str
    """Hash of recording and options: tells a duplicate from a conflict."""
    refusal: Problem | None = None
    """Set when the request is readable but asks for what we do not do; the run then fails with it."""
    original: OriginalRecord
    """The record as it arrived: what a dead letter keeps."""
    received_at: Instant
    """Kafka timestamp of the request (UTC)."""
    traceparent: str | None = None
    """W3C trace context of the request."""


class CancelRequested(Event):
    """Intake read a cancel on the control topic."""

    NAME = "CancelRequested"

    job_id: JobId
    """The job."""
    run: int | None = None
    """The run that is meant; null: the one that is open."""
    reason: str | None = None
    """Why."""
    requested_by: str | None = None
    """Who asked."""
    requested_at: Instant
    """Kafka timestamp of the request (UTC)."""


class RetryRequested(Event):
    """Intake read a retry on the control topic."""

    NAME = "RetryRequested"

    job_id: JobId
    """The job."""
    run: int | None = None
    """The run that is meant, so that a repetition changes nothing; null: the newest."""
    reason: str | None = None
    """Why."""
    requested_by: str | None = None
    """Who asked."""
    requested_at: Instant
    """Kafka timestamp of the request (UTC)."""


# ── coordinator → functions ─────────────────────────────────────────────────────────────────────────────────────────


class PlanWork(Event):
    """Plan this recording."""

    NAME = "PlanWork"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    epoch: int
    """Plans are numbered; the coordinator drops answers of any other epoch."""
    attempt: int = 1
    """Tries of the plan including this one."""
    recording: RecordingRef
    """What to read; from the second attempt on with the pinned etag and version."""
    options: JobOptions
    """Options after defaults."""
    work_run: int | None = None
    """The run whose work folder is used; null: its own."""
    traceparent: str | None = None
    """W3C trace context of the request."""


class ChunkWork(Event):
    """Transcribe this chunk. Keyed by job and chunk, so that one job spreads over all partitions."""

    NAME = "ChunkWork"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    chunk_index: int
    """The chunk, counted from 0."""
    attempt: int = 1
    """Tries of this chunk including this one."""
    audio_s: float
    """Seconds of the chunk's span: what bounds the hand-off."""
    options: JobOptions
    """Options after defaults."""
    language: str | None = None
    """The language pinned for the job; null for the one chunk that detects it."""
    work_run: int | None = None
    """The run whose work folder is used; null: its own."""
    traceparent: str | None = None
    """W3C trace context of the request."""

    def key(self) -> str:
        return f"{self.job_id}/{self.chunk_index}"


class AssemblyWork(Event):
    """Join the chunks of this run."""

    NAME = "AssemblyWork"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    attempt: int = 1
    """Tries including this one."""
    chunks_total: int
    """Chunks of the recording."""
    chunks_failed: tuple[int, ...] = ()
    """Chunks that have no checkpoint."""
    request_digest: str = ""
    """Goes into the manifest: recognises late duplicates of the request."""
    recording: RecordingFacts
    """What the plan found out."""
    options: JobOptions
    """Options after defaults."""
    language: str | None = None
    """Language of the job; null when nothing was said."""
    language_probability: float | None = None
    """Confidence of the detection, 0 to 1."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Echoed in the manifest."""
    warnings: tuple[Problem, ...] = ()
    """What the stages before have to say."""
    work_run: int | None = None
    """The run whose work folder is used; null: its own."""
    traceparent: str | None = None
    """W3C trace context of the request."""


class CleanupWork(Event):
    """Remove what this run left in the work bucket."""

    NAME = "CleanupWork"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    attempt: int = 1
    """Tries including this one."""
    status: JobStatus
    """How the run ended: what is kept for a failed run is a setting."""
    results: bool = False
    """Remove the result files instead: the retention that the job asked for is over. The manifest stays."""
    work_run: int | None = None
    """The run whose work folder was used, which goes as well; null: its own."""
    recording: RecordingRef | None = None
    """The recording as it was pinned, to be deleted too; null: it stays. Given only when the run has completed."""
    ended_at: Instant | None = None
    """When the run ended (UTC): what was written later under the recording's key is another recording."""
    modified_at: Instant | None = None
    """When the recording was written, by the store's clock (UTC); null: its plan did not say."""


# ── functions → coordinator ─────────────────────────────────────────────────────────────────────────────────────────


class PlanStarted(Event):
    """The recording passed its limits and is pinned."""

    NAME = "PlanStarted"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    epoch: int
    """Number of the plan."""
    etag: str
    """Etag that every read of this run must match."""
    version_id: str | None = None
    """Version that is read, where the bucket keeps versions."""
    size_bytes: int
    """Size of the recording in bytes."""
    duration_hint_s: float | None = None
    """Length by the header, in seconds: a hint for progress; null when it has none."""
    streams: int = Field(default=1, ge=1)
    """Channels that are transcribed apart; 1 when all are mixed."""
    modified_at: Instant | None = None
    """When the recording was written, by the store's clock (UTC)."""


class ChunkPlanned(Event):
    """A chunk's audio and windows are stored."""

    NAME = "ChunkPlanned"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    epoch: int
    """Number of the plan."""
    chunk_index: int
    """The chunk, counted from 0; chunks are announced in order, those of several channels by their ends."""
    start_s: float
    """Start of its span in seconds from the start of the recording."""
    end_s: float
    """End of its span in seconds from the start of the recording."""
    windows: int
    """Windows in it; 0 means that nothing has to be recognised."""
    sample_ready: bool = False
    """Whether the sample for language detection is stored by now."""


class PlanFinished(Event):
    """The whole recording is decoded; the number of chunks is known."""

    NAME = "PlanFinished"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    epoch: int
    """Number of the plan."""
    chunks_total: int
    """Chunks of the recording, at least 1."""
    recording: RecordingFacts
    """What was found out about the recording."""
    plan_s: float
    """Wall time of the plan in seconds."""
    warnings: tuple[Problem, ...] = ()
    """What a reader should know, such as a recording that breaks off."""


class PlanFailed(Event):
    """The recording cannot be planned, now or ever."""

    NAME = "PlanFailed"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    epoch: int
    """Number of the plan."""
    error: Problem
    """Why."""
    cancelled_by: str | None = None
    """Who asked for the cancel that the work was left for; null: no cancel, or nobody said."""


class ChunkProgressed(Event):
    """A chunk is on its way. Best effort, at most every 2 s per chunk."""

    NAME = "ChunkProgressed"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    chunk_index: int
    """The chunk, counted from 0."""
    fraction: float = Field(ge=0, le=1)
    """Share of the chunk that is done, 0 to 1."""


class ChunkFailed(Event):
    """A chunk could not be transcribed."""

    NAME = "ChunkFailed"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    chunk_index: int
    """The chunk, counted from 0."""
    attempt: int
    """The try that failed."""
    error: Problem
    """Why."""


class ChunkSkipped(Event):
    """A chunk was not computed because nobody wants it any more."""

    NAME = "ChunkSkipped"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    chunk_index: int
    """The chunk, counted from 0."""
    reason: Literal["gone", "cancelled"]
    """gone: its audio is no longer there; cancelled: the job was cancelled."""
    cancelled_by: str | None = None
    """Who asked for the cancel that the work was left for; null: no cancel, or nobody said."""


class AssemblyFinished(Event):
    """The result is written, manifest last."""

    NAME = "AssemblyFinished"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    manifest: ClaimCheck
    """The manifest."""
    artifacts: tuple[Artifact, ...]
    """The result files."""
    transcript_inline: str | None = None
    """transcript.json as text when it is small."""
    speakers: tuple[str, ...] = ()
    """Speaker labels in order of their first turn."""
    models: tuple[ModelUsed, ...] = ()
    """The models that took part."""
    fingerprint: str = ""
    """Model digests, device type and compute type in one hash."""
    timings: RunTimings = RunTimings()
    """Chunk times summed up, and the assembly."""
    warnings: tuple[Problem, ...] = ()
    """All warnings of the run."""


class AssemblyFailed(Event):
    """The result could not be written."""

    NAME = "AssemblyFailed"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    attempt: int
    """The try that failed."""
    error: Problem
    """Why."""
    cancelled_by: str | None = None
    """Who asked for the cancel that the work was left for; null: no cancel, or nobody said."""


class CleanupFinished(Event):
    """The run's intermediate objects are removed."""

    NAME = "CleanupFinished"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    removed: int
    """Objects that were removed."""
    results: bool = False
    """Whether it was about the result files of an expired run."""
    recording: str = ""
    """Of a recording that was to be deleted: ok, or the code of why it stays; empty when none was."""


class CleanupFailed(Event):
    """Some intermediate objects could not be removed."""

    NAME = "CleanupFailed"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    attempt: int
    """The try that failed."""
    error: Problem
    """Why."""
    results: bool = False
    """Whether it was about the result files of an expired run."""


Work = PlanWork | ChunkWork | AssemblyWork | CleanupWork
Failure = PlanFailed | ChunkFailed | AssemblyFailed | CleanupFailed
Answer = (
    PlanStarted
    | ChunkPlanned
    | PlanFinished
    | ChunkProgressed
    | ChunkTranscribed
    | ChunkSkipped
    | AssemblyFinished
    | CleanupFinished
    | Failure
)
JobEvent = Annotated[JobReceived | CancelRequested | RetryRequested | Answer, "everything that travels on job-events"]


def keys_of(work: Work) -> RunKeys:
    """Where a function finds and leaves things: results under the run, work perhaps in the folder of an earlier one."""
    return RunKeys(work.job_id, work.run, work.work_run)


def failure(work: Work, error: Problem) -> Failure:
    """What a function answers when it could not do its work."""
    match work:
        case PlanWork():
            return PlanFailed(job_id=work.job_id, run=work.run, epoch=work.epoch, error=error)
        case ChunkWork():
            return ChunkFailed(
                job_id=work.job_id, run=work.run, chunk_index=work.chunk_index, attempt=work.attempt, error=error
            )
        case AssemblyWork():
            return AssemblyFailed(job_id=work.job_id, run=work.run, attempt=work.attempt, error=error)
        case CleanupWork():
            return CleanupFailed(
                job_id=work.job_id, run=work.run, attempt=work.attempt, error=error, results=work.results
            )
