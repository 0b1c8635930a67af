"""The events that others read and write, as typed models. `schemas/*.avsc` holds the same contracts for every language.

An event is a fact, in the past tense. Times are seconds from the start of the recording (`_s`), instants are UTC
(`_at`). Internal events, which only this program reads, are in `work.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, field_validator, model_validator

from consumer.core.languages import LANGUAGES

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
"""A job id is part of object keys, so it can never look like a path."""

LANGUAGE_PATTERN = rf"^(auto|{'|'.join(sorted(LANGUAGES))})$"
MAX_PROMPT_CHARACTERS = 1_000
MAX_METADATA_CHARACTERS = 1_024

JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN)]
Text = Annotated[str, Field(max_length=256)]


def _instant(value: datetime) -> datetime:
    """UTC in whole milliseconds, as the wire has it; an instant without a zone is taken for UTC."""
    try:
        utc = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError as exc:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from exc
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


Instant = Annotated[datetime, AfterValidator(_instant)]


class Contract(BaseModel):
    """A value inside events: immutable, and it refuses fields that it does not know."""

    # Messages of ours reach logs and dead letters, so they never quote what was in the event.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class Event(Contract):
    """The root of everything that travels on Kafka."""

    NAME: ClassVar[str] = "Event"

    def key(self) -> str:
        """The Kafka key: the job id, unless a subclass says otherwise."""
        return str(getattr(self, "job_id", ""))


# ── shared values ───────────────────────────────────────────────────────────────────────────────────────────────────


class ClaimCheck(Contract):
    """Where bytes are kept, and what they must be: the event carries this instead of the bytes."""

    bucket: str
    """Bucket of the object."""
    key: str
    """Key of the object in its bucket."""
    size_bytes: int = Field(ge=0)
    """Size of the object in bytes."""
    sha256: str
    """SHA-256 of the object's bytes in hexadecimal."""
    version_id: str | None = None
    """Version of the object where the bucket keeps versions, else null."""


class Problem(Contract):
    """A failure or a warning in a form for programs (`code`) and for people (`message`)."""

    code: str
    """What happened, as a constant from docs/errors.md."""
    message: str
    """What happened, to which one, and what to do about it."""
    retryable: bool = False
    """Whether the same job may succeed later without a change."""
    stage: str | None = None
    """The function that said it: intake, plan, transcribe, assemble, cleanup or coordinate."""
    chunk_index: int | None = None
    """The chunk it belongs to, counted from 0; null when it is about the whole job."""


# ── the request ─────────────────────────────────────────────────────────────────────────────────────────────────────


class RecordingRef(Contract):
    """The audio object that a job points to."""

    bucket: str = Field(min_length=3, max_length=63)
    """Bucket of the recording."""
    key: str = Field(min_length=1, max_length=1024)
    """Key of the recording in its bucket."""
    version_id: str | None = None
    """Version to read; null means the newest one at the time of planning."""
    etag: str | None = None
    """If given, the recording must have this etag, else the job fails with SOURCE_CHANGED."""


class VadOptions(Contract):
    """Voice-activity detection: which stretches are given to the recogniser."""

    policy: Literal["silero", "whisperx"] | None = None
    """Window policy: silero (fast, the default) or whisperx (exactly whisperx's own windows); null: the default."""
    onset: float | None = Field(default=None, gt=0, lt=1)
    """Speech starts above this probability, 0 to 1; null: the policy's own value."""
    offset: float | None = Field(default=None, gt=0, lt=1)
    """Speech ends below this probability, 0 to 1; null: the policy's own value."""
    max_window_s: float | None = Field(default=None, ge=1, le=30)
    """Longest window in seconds; null: what the model takes. Never more than the model takes."""


class AlignOptions(Contract):
    """Word times by forced alignment."""

    enabled: bool = True
    """Whether words get times of their own."""
    on_missing_aligner: Literal["segment_times", "fail"] = "segment_times"
    """For a language without an alignment model: keep the segment's times, or fail the job with NO_ALIGNER."""


class DiarizeOptions(Contract):
    """Who spoke when."""

    enabled: bool = True
    """Whether speakers are told apart."""
    num_speakers: int | None = Field(default=None, ge=1, le=50)
    """Exact number of speakers; null: found by itself."""
    min_speakers: int | None = Field(default=None, ge=1, le=50)
    """Fewest speakers; null: no lower bound."""
    max_speakers: int | None = Field(default=None, ge=1, le=50)
    """Most speakers; null: no upper bound."""
    embeddings: bool = False
    """Whether the result carries one voice embedding per speaker."""

    @model_validator(mode="after")
    def _bounds_agree(self) -> DiarizeOptions:
        if self.num_speakers is not None and (self.min_speakers is not None or self.max_speakers is not None):
            raise ValueError("give num_speakers, or min_speakers and max_speakers, not both")
        if self.min_speakers is not None and self.max_speakers is not None and self.min_speakers > self.max_speakers:
            raise ValueError("min_speakers is larger than max_speakers")
        return self


class SubtitleOptions(Contract):
    """The shape of .srt and .vtt cues."""

    max_line_width: int = Field(default=42, ge=10, le=200)
    """Longest line in characters."""
    max_line_count: int = Field(default=2, ge=1, le=10)
    """Most lines in one cue."""
    max_cue_s: float = Field(default=7.0, ge=1, le=30)
    """Longest time that one cue stays, in seconds."""
    speaker_labels: bool = True
    """Whether a cue names its speaker where speakers are known."""


class OutputFormat(StrEnum):
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TXT = "txt"
    TSV = "tsv"
    RTTM = "rttm"


class JobOptions(Contract):
    """What can be asked of a job. Each option takes effect; anything else is refused by its name."""

    model: Text | None = None
    """Name of a speech model on the installation's allow-list; null: the default model."""
    language: str = Field(default="auto", pattern=LANGUAGE_PATTERN)
    """Spoken language as an ISO 639 code, or auto: detected once on the first speech of the recording."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """transcribe keeps the spoken language; translate gives English text (and no word alignment)."""
    hotwords: Annotated[tuple[Text, ...], FailFast()] = ()
    """Words to prefer, such as names; capped together with initial_prompt, a cut is reported as a warning."""
    initial_prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARACTERS)
    """Text put before every window, to set style and spelling; capped together with hotwords."""
    beam_size: int = Field(default=5, ge=1, le=10)
    """Beams of the search; 1 is greedy."""
    track: int | None = Field(default=None, ge=0, le=255)
    """Sound track of the recording, counted from 0 in the order of the file; null: the one that FFmpeg would take."""
    multichannel: bool = False
    """Whether each channel gets a transcript of its own, all merged in time, with the channel as its speaker."""
    vad: VadOptions = VadOptions()
    """Voice-activity detection."""
    align: AlignOptions = AlignOptions()
    """Word times."""
    diarize: DiarizeOptions = DiarizeOptions()
    """Speakers."""
    output_formats: Annotated[tuple[OutputFormat, ...], FailFast()] = tuple(OutputFormat)
    """Files to write beside transcript.json, which is always written."""
    subtitles: SubtitleOptions = SubtitleOptions()
    """The shape of .srt and .vtt."""
    retention_hours: int | None = Field(default=None, ge=1, le=24 * 3650)
    """Hours after which the result files are removed (the manifest stays); null: as the bucket's own rules say."""
    delete_recording: bool = False
    """Delete the recording once the job has completed; refused where the installation forbids it."""
    on_chunk_failure: Literal["fail", "partial"] = "fail"
    """When a chunk fails for good: fail the whole job, or deliver the rest with status partial."""

    @field_validator("output_formats")
    @classmethod
    def _formats_are_a_set(cls, formats: tuple[OutputFormat, ...]) -> tuple[OutputFormat, ...]:
        """Each once: forty thousand times the same is nothing to carry through the system."""
        return tuple(dict.fromkeys(formats))

    @field_validator("language", mode="before")
    @classmethod
    def _language_is_known(cls, code: object) -> object:
        """Before the pattern says the same with a hundred codes."""
        if isinstance(code, str) and code != "auto" and code not in LANGUAGES:
            raise ValueError("not a language that Whisper knows; give its ISO 639 code such as en, de or yue, or auto")
        return code

    @property
    def tells_voices_apart(self) -> bool:
        """Whether speakers are found by their voices; with `multichannel` the channels say who speaks."""
        return self.diarize.enabled and not self.multichannel

    @model_validator(mode="after")
    def _channels_are_speakers(self) -> JobOptions:
        """What only means something for voices that are told apart."""
        asked = self.diarize.model_dump(exclude_defaults=True, exclude={"enabled"})
        if self.multichannel and asked:
            names = ", ".join(f"diarize.{name}" for name in asked)
            raise ValueError(f"multichannel: each channel is a speaker, so {names} has no effect; leave it out")
        return self

    @model_validator(mode="after")
    def _prompt_is_bounded(self) -> JobOptions:
        if len(self.hotwords) > 100 or sum(map(len, self.hotwords)) > MAX_PROMPT_CHARACTERS:
            raise ValueError(f"hotwords: at most 100 words and {MAX_PROMPT_CHARACTERS} characters together")
        return self


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class JobRequested(Event):
    """A recording is to be transcribed. The only event that others publish on `jobs`; JSON or Avro."""

    NAME = "JobRequested"

    recording: RecordingRef
    """What to transcribe."""
    job_id: JobId | None = None
    """Chosen by the sender; null: derived from idempotency_key, the CloudEvents id, or the event's position."""
    idempotency_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Two events with the same key are one job."""
    options: JobOptions = JobOptions()
    """What to do and how."""
    priority: Priority = Priority.NORMAL
    """Lane of the chunks of this job."""
    deadline_at: Instant | None = None
    """Instant (UTC) after which the job fails with DEADLINE_PASSED; null: none."""
    force: bool = False
    """A new run although the job is known; the present run, if it is open, is cancelled."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """Echoed in the result: at most 1,024 characters in all."""
    submitted_by: Text | None = None
    """Who asked, for the audit trail."""
    submitted_at: Instant | None = None
    """When it was asked (UTC); null: the Kafka timestamp."""

    def key(self) -> str:
        return self.job_id or ""

    @model_validator(mode="after")
    def _metadata_is_bounded(self) -> JobRequested:
        if sum(len(k) + len(v) for k, v in self.metadata.items()) > MAX_METADATA_CHARACTERS:
            raise ValueError(f"metadata: at most {MAX_METADATA_CHARACTERS} characters in all")
        return self


class JobControl(Event):
    """A job is to change course. Published by others on `control`, and by the coordinator when it ends a run early."""

    NAME = "JobControl"

    job_id: JobId
    """The job."""
    action: Literal["cancel", "retry"]
    """cancel: end the run that is open; retry: run a failed, partial or cancelled job again, as a new run."""
    run: int | None = Field(default=None, ge=1)
    """The run that is meant, so that a repetition changes nothing; null: the newest."""
    reason: Text | None = None
    """Why, for the result and the audit trail."""
    requested_by: Text | None = None
    """Who asked, for the audit trail."""


# ── what the coordinator tells the world ────────────────────────────────────────────────────────────────────────────


class Stage(StrEnum):
    UNKNOWN = "unknown"
    QUEUED = "queued"
    PLANNING = "planning"
    TRANSCRIBING = "transcribing"
    ASSEMBLING = "assembling"
    FINISHED = "finished"


class JobProgress(Event):
    """How far a run is. `sequence` and `fraction` never go back within a run."""

    NAME = "JobProgress"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1; a forced re-run is a new run."""
    sequence: int
    """Counts the progress events of this run from 1; drop an event with a lower number than one already seen."""
    stage: Stage
    """What is going on."""
    fraction: float = Field(ge=0, le=1)
    """Share of the work that is done, 0 to 1."""
    chunks_done: int
    """Chunks whose result is stored."""
    chunks_total: int | None = None
    """Chunks of the recording; null while the plan is being made."""
    audio_done_s: float = 0.0
    """Seconds of the recording whose result is stored."""
    audio_total_s: float | None = None
    """Length of the recording in seconds; null until it is known."""
    eta_s: float | None = None
    """Seconds until the result, by the speed measured so far; null until there is a measurement."""
    queue_position: int | None = None
    """Jobs before this one in its lane, counted from 1; null once it runs."""
    emitted_at: Instant
    """When this was said (UTC)."""


class PartialSegment(Contract):
    """Text with its span, before speakers are known."""

    start_s: float
    """Seconds from the start of the recording."""
    end_s: float
    """Seconds from the start of the recording."""
    text: str
    """What was said."""
    channel: int = 0
    """Channel of the recording, counted from 0."""


class ChunkTimings(Contract):
    """Seconds of wall time that a chunk took, by stage."""

    fetch_s: float = 0.0
    """Reading the chunk audio, in seconds."""
    transcribe_s: float = 0.0
    """Recognition, in seconds."""
    align_s: float = 0.0
    """Word alignment, in seconds."""
    diarize_s: float = 0.0
    """Diarization's map step, in seconds."""
    store_s: float = 0.0
    """Writing the checkpoint, in seconds."""


class ChunkTranscribed(Event):
    """A chunk is done and its checkpoint stored. Published once per chunk on `partials`, in any order of chunks."""

    NAME = "ChunkTranscribed"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    chunk_index: int
    """The chunk, counted from 0 in the order of the recording; in a multichannel job each chunk is of one channel."""
    start_s: float
    """Start of the chunk in seconds from the start of the recording."""
    end_s: float
    """End of the chunk in seconds from the start of the recording."""
    language: str | None = None
    """Language of the text as an ISO 639 code; null when there was no speech to tell by."""
    language_probability: float | None = None
    """Confidence of the detection, 0 to 1; null when the language was given."""
    segments: tuple[PartialSegment, ...] = ()
    """Segments in order of time, without speakers; empty when they are too long for an event (see checkpoint)."""
    segments_omitted: bool = False
    """True when the segments were too long for an event."""
    checkpoint: ClaimCheck
    """The stored work of this chunk; removed by cleanup after the result."""
    timings: ChunkTimings = ChunkTimings()
    """How long it took."""
    warnings: tuple[Problem, ...] = ()
    """What a reader should know."""
    reused: bool = False
    """True when the checkpoint was already there and nothing was computed."""
    fingerprint: str = ""
    """Model digests, device type and compute type in one hash: equal fingerprints give equal results."""
    device: str = ""
    """Where it was computed, such as cpu/int8 or cuda/float16."""


class JobStatus(StrEnum):
    UNKNOWN = "unknown"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Artifact(Contract):
    """A result file."""

    format: str
    """json, srt, vtt, txt, tsv, rttm or manifest."""
    claim_check: ClaimCheck
    """Where it is."""


class RecordingFacts(Contract):
    """What was found out about the recording."""

    bucket: str
    """Bucket of the recording."""
    key: str
    """Key of the recording."""
    version_id: str | None = None
    """Version that was read, where the bucket keeps versions."""
    etag: str
    """Etag that was read and checked at every read."""
    size_bytes: int
    """Size of the object in bytes."""
    media_type: str
    """Media type judged by content."""
    duration_s: float
    """Decoded length in seconds."""
    speech_s: float
    """Seconds inside windows of speech; in a multichannel job summed over the channels."""
    channels: int
    """Channels of the sound track."""
    sample_rate_hz: int
    """Sample rate of the sound track in hertz."""
    track: int = 0
    """The sound track that was read, counted from 0."""
    tracks: int = 1
    """Sound tracks of the recording."""


class ModelUsed(Contract):
    """A model that took part."""

    role: str
    """transcribe, align or diarize."""
    name: str
    """Its name on the allow-list."""
    digest: str
    """Hash of its files."""
    compute_type: str | None = None
    """Number type of its arithmetic, such as int8 or float16."""


class RunTimings(Contract):
    """Where the time went."""

    queued_s: float = 0.0
    """From the request to the start of the plan, in seconds."""
    plan_s: float = 0.0
    """Planning, in seconds of wall time."""
    transcribe_s: float = 0.0
    """Recognition, summed over chunks, in seconds."""
    align_s: float = 0.0
    """Word alignment, summed over chunks, in seconds."""
    diarize_s: float = 0.0
    """Diarization, map steps summed over chunks and the reduce step, in seconds."""
    assemble_s: float = 0.0
    """Assembly, in seconds of wall time."""
    wall_s: float = 0.0
    """From the request to the result, in seconds."""
    real_time_factor: float | None = None
    """Seconds of recording per second from the start of the plan to the result; null for a run without a transcript."""


class JobFinished(Event):
    """A run has ended. Exactly one per run on `results`, visible to read_committed readers."""

    NAME = "JobFinished"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1."""
    status: JobStatus
    """How it ended."""
    recording: RecordingFacts | None = None
    """What was found out about the recording; null when it was never opened."""
    language: str | None = None
    """Language of the text as an ISO 639 code; null when nothing was said."""
    language_probability: float | None = None
    """Confidence of the detection, 0 to 1; null when the language was given."""
    speakers: tuple[str, ...] = ()
    """Speaker labels in order of their first turn; valid in this run only."""
    transcript_inline: str | None = None
    """transcript.json as text when it is small, else null: read the artifact."""
    artifacts: tuple[Artifact, ...] = ()
    """The result files."""
    manifest: ClaimCheck | None = None
    """The list of everything about this run, at results/<job>/<run>/manifest.json; null when nothing was written."""
    options_used: JobOptions | None = None
    """The options after defaults and clamps; null when they could not be read."""
    models: tuple[ModelUsed, ...] = ()
    """The models that took part."""
    fingerprint: str = ""
    """Model digests, device type and compute type in one hash."""
    chunks_total: int = 0
    """Chunks of the recording."""
    chunks_failed: tuple[int, ...] = ()
    """Chunks that are missing from a partial result."""
    timings: RunTimings = RunTimings()
    """Where the time went."""
    warnings: tuple[Problem, ...] = ()
    """What a reader should know."""
    error: Problem | None = None
    """Why the run failed or was cancelled, else null."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """What the request carried."""
    finished_at: Instant
    """When the run ended (UTC)."""


class AuditRecorded(Event):
    """Somebody did something to something. Append-only; carries no transcript text."""

    NAME = "AuditRecorded"

    job_id: JobId
    """The job."""
    run: int
    """The run, counted from 1; 0 when it is about an event or an object and not about a run."""
    actor: str
    """Which function or person."""
    action: str
    """What was done: one of the actions in docs/audit.md; later versions may have more."""
    target: str
    """To what: a bucket and key, a position in a topic, or the job."""
    outcome: str
    """ok or the code of the failure; begun, where what came of it follows."""
    happened_at: Instant
    """When (UTC)."""
    trace_id: str | None = None
    """Trace of the request, as in the traceparent header; null when it had none."""
