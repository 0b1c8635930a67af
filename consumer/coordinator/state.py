"""What the coordinator knows of one run: small, immutable, and stored in the compacted job-state topic."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from consumer.core.bitmap import Bitmap
from consumer.events import JobRequested, JobStatus, Problem, RecordingFacts, Stage

MAX_WARNINGS = 8


class Status(StrEnum):
    """Where a run is. `machine.TABLE` says what each event leads to."""

    WAITING = "waiting"
    """Admitted; its plan has not been asked for."""
    PLANNING = "planning"
    """The plan is being made; its chunks are released as they are announced."""
    TRANSCRIBING = "transcribing"
    """The plan is complete; chunks are missing."""
    ASSEMBLING = "assembling"
    """All chunks are accounted for; the result is being written."""
    FINISHED = "finished"
    """The terminal event is sent; cleanup is under way."""
    CLEANED = "cleaned"
    """Nothing is left to do; kept for a while to recognise duplicates, or until the retention of the job is over."""
    EXPIRING = "expiring"
    """The retention that the job asked for is over; its result files are being removed."""


OPEN = frozenset({Status.WAITING, Status.PLANNING, Status.TRANSCRIBING, Status.ASSEMBLING})
WITH_CHUNKS = frozenset({Status.PLANNING, Status.TRANSCRIBING})


class Retry(BaseModel):
    """A chunk that failed and is due again."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    """The attempt to make, from 2."""
    due_at_s: float


class Leftover(BaseModel):
    """Something that an earlier run of the job left and that is to be removed; see `leftovers`."""

    model_config = ConfigDict(frozen=True)

    run: int
    status: JobStatus
    """How that run ended."""
    results: bool = False
    """Its result files; else its work."""
    work_run: int | None = None
    attempt: int = 0
    """How often it was asked for."""
    due_at_s: float | None = None
    """When to ask (again); None while the answer is awaited."""
    stragglers: bool = False
    """As in JobState."""

    def changed(self, **fields: Any) -> Leftover:
        return self.model_copy(update=fields)


class JobState(BaseModel):
    """The newest run of a job. Instants are seconds since 1970 (`_at_s`); `done` is a bitmap in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    job_id: str
    run: int = 1
    status: Status = Status.WAITING
    request: JobRequested
    request_digest: str
    refusal: Problem | None = None
    """What intake had against the request: then its options are not what was asked for."""
    traceparent: str | None = None
    received_at_s: float
    admitted_as: int = 0
    """Order of admission within the partition: smaller is older."""

    # the runs before
    work_run: int | None = None
    """The run in whose work folder this one goes on; None: its own."""
    origins: tuple[str, ...] = ()
    """The last sendings that started a run, or would have."""
    leftovers: tuple[Leftover, ...] = ()

    # the plan
    plan_epoch: int = 0
    plan_attempt: int = 0
    plan_due_at_s: float | None = None
    plan_started_at_s: float | None = None
    etag: str | None = None
    version_id: str | None = None
    modified_at_s: float | None = None
    """When the recording was written, as the first plan of this run found it."""
    duration_hint_s: float | None = None
    read_epoch: int = 0
    """The newest plan whose reading of the recording is in the audit trail."""
    streams: int = 1
    """Channels that are transcribed apart: so many chunks cover each second of the recording."""
    planned: int = 0
    """Chunks announced so far: the indices below this number exist."""
    planned_s: float = 0.0
    """Seconds of the recording that are planned; `audio_done_s` counts its seconds too, a chunk of one of several
    channels as its share."""
    sample_ready: bool = False
    chunks_total: int | None = None
    recording: RecordingFacts | None = None
    plan_s: float = 0.0

    # the chunks
    next_chunk: int = 0
    """The first chunk that was never released."""
    in_flight: dict[int, int] = Field(default_factory=dict)
    """Released chunks that have not answered: index → attempt."""
    retries: dict[int, Retry] = Field(default_factory=dict)
    done: str = "0"
    failed: tuple[int, ...] = ()
    chunk_error: Problem | None = None
    audio_done_s: float = 0.0
    first_release_at_s: float | None = None
    language: str | None = None
    language_probability: float | None = None
    language_settled: bool = False

    # the end
    assembly_attempt: int = 0
    assembly_due_at_s: float | None = None
    cleanup_attempt: int = 0
    cleanup_due_at_s: float | None = None
    stragglers: bool = False
    """Work was out when the run ended: somebody may still be writing, so the cleanup is done twice."""
    outcome: JobStatus | None = None
    error_code: str | None = None
    """Why it failed or was cancelled."""
    finished_at_s: float | None = None
    expired: bool = False
    """The result files are removed."""
    warnings: tuple[Problem, ...] = ()

    # progress
    sequence: int = 0
    fraction: float = 0.0
    progress_at_s: float = 0.0
    stage_told: Stage | None = None
    live: dict[int, float] = Field(default_factory=dict, exclude=True)
    """Share done of chunks in flight: only in memory, lost on restore, and that does no harm."""

    def changed(self, **fields: Any) -> JobState:
        return self.model_copy(update=fields)

    @property
    def done_chunks(self) -> Bitmap:
        return Bitmap.from_hex(self.done)

    @property
    def accounted(self) -> int:
        """Chunks that will not change any more: done, or failed for good."""
        return len(self.done_chunks) + len(self.failed)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def audio_total_s(self) -> float | None:
        return self.recording.duration_s if self.recording else None

    @property
    def expires_at_s(self) -> float | None:
        """When the result files are to go; None where nothing was asked, nothing is left, or it is done."""
        hours = self.request.options.retention_hours
        if hours is None or self.expired or self.outcome not in (JobStatus.COMPLETED, JobStatus.PARTIAL):
            return None
        return (self.finished_at_s or 0.0) + hours * 3600.0

    @property
    def unfinished_s(self) -> float:
        """Planned audio that has no result yet, in seconds of all its channels: what the plan admission bounds."""
        return max(0.0, self.planned_s - self.audio_done_s) * self.streams if self.is_open else 0.0

    def warn(self, *problems: Problem) -> JobState:
        """With these warnings added, without repeats and up to a bound."""
        merged = tuple(dict.fromkeys((*self.warnings, *problems)))
        return self.changed(warnings=merged[:MAX_WARNINGS])

    def to_bytes(self) -> bytes:
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> JobState:
        """What a later version has added is skipped, as in the documents of the store."""
        return cls.model_validate_json(data, extra="ignore")
