"""Every error, arranged so that its class says what the loop does next.

    WhisperXError
    ├── Rejected       can never work          → `...Failed(retryable=False)` or a dead letter; commit; go on
    ├── Unavailable    may work soon           → back off in place, then `...Failed(retryable=True)`
    │   └── DependencyAway  a server is away   → wait in place, readiness false, burn no attempt
    ├── Stopped        nobody wants it now     → the work is left; not a failure
    ├── BrokenWorker   this process is unwell  → exit without committing; the restart is cheap
    └── Misconfigured  found at start          → say what to do; exit code 78
    Busy               no room now             → hold the event and pause: not an error
    anything else      a bug                   → log with a trace, exit uncommitted, restart

A class carries its `code` (what programs compare), its instances carry the facts. A message says what, which one,
and what to do about it. Codes are part of the contract: they are listed in docs/errors.md and never change meaning.
"""

from __future__ import annotations

from typing import ClassVar


class WhisperXError(Exception):
    """The root of everything that this program raises on purpose."""

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class Busy(Exception):
    """No room now: the caller holds the item and tries again later. Not an error."""


# ── can never work ──────────────────────────────────────────────────────────────────────────────────────────────────


class Rejected(WhisperXError):
    """The same input would fail in the same way for ever."""

    code = "REJECTED"


class UnreadableEvent(Rejected):
    """The bytes are no event in any framing that we read."""

    code = "EVENT_UNREADABLE"


class InvalidEvent(Rejected):
    """Readable, but not the event that this topic carries (a field is missing or has the wrong type)."""

    code = "EVENT_INVALID"


class UnknownOption(Rejected):
    """A job option that has no effect here; refused by name, so that nobody believes in it."""

    code = "OPTION_UNKNOWN"


class InvalidOption(Rejected):
    """A known option with a value outside its bounds."""

    code = "OPTION_INVALID"


class ConflictingJob(Rejected):
    """A job id that is known with another recording or other options."""

    code = "JOB_CONFLICT"


class NothingToRetry(Rejected):
    """A retry that means no run, or one that is open, has completed or was followed by another."""

    code = "NOTHING_TO_RETRY"


class UnknownModel(Rejected):
    """A model that is not on this installation's allow-list."""

    code = "MODEL_NOT_ALLOWED"


class DeletionNotAllowed(Rejected):
    """A job that asks to delete its recording where the installation does not allow it."""

    code = "DELETION_NOT_ALLOWED"


class MissingBucket(Rejected):
    code = "BUCKET_MISSING"


class MissingObject(Rejected):
    """The store has no object under this key (or not in this version)."""

    code = "OBJECT_MISSING"


class AccessDenied(Rejected):
    """The store refuses our credentials for this object."""

    code = "ACCESS_DENIED"


class EncryptedObject(Rejected):
    """The object is encrypted with a key that travels with each request (SSE-C), and it is not one that we have."""

    code = "OBJECT_ENCRYPTED"


class ChangedObject(Rejected):
    """The object is no longer the one that was asked for (its etag differs)."""

    code = "OBJECT_CHANGED"


class MissingRecording(Rejected):
    code = "RECORDING_MISSING"


class ChangedRecording(Rejected):
    """The recording was overwritten after the job had pinned it."""

    code = "SOURCE_CHANGED"


class EmptyRecording(Rejected):
    """The object has no bytes, or its sound track has no samples."""

    code = "RECORDING_EMPTY"


class RecordingTooLarge(Rejected):
    code = "RECORDING_TOO_LARGE"


class RecordingTooLong(Rejected):
    code = "RECORDING_TOO_LONG"


class UnsupportedMedia(Rejected):
    """Not a media type from the allow-list, judged by content and not by name."""

    code = "MEDIA_UNSUPPORTED"


class NoSoundTrack(Rejected):
    code = "NO_SOUND_TRACK"


class MissingTrack(Rejected):
    """The recording has sound tracks, but none of the number that the job asks for."""

    code = "TRACK_MISSING"


class TooManyChannels(Rejected):
    """More channels than are transcribed apart."""

    code = "TOO_MANY_CHANNELS"


class UnreadableAudio(Rejected):
    """A media file of a known type whose sound cannot be decoded."""

    code = "AUDIO_UNREADABLE"


class DecoderLimit(Rejected):
    """The decoder went over its limit of time, memory or expansion."""

    code = "DECODER_LIMIT"


class NoAligner(Rejected):
    """No alignment model for the language, and the job asked to fail in that case."""

    code = "NO_ALIGNER"


class DeadlinePassed(Rejected):
    code = "DEADLINE_PASSED"


class WorkerKilled(Rejected):
    """The worker process died again and again while it worked on this."""

    code = "WORKER_KILLED"


class LostIntermediate(Rejected):
    """An object that one function wrote for the next is gone (retention shorter than the job, or deleted by hand)."""

    code = "INTERMEDIATE_MISSING"


class UnreadableDocument(Rejected):
    """An object that one function wrote for another is there and cannot be read: damaged, foreign, or of a version that
    is not ours."""

    code = "DOCUMENT_UNREADABLE"


class RunEnded(Rejected):
    """Work of a run that has its result already, read once more after its group's positions had expired."""

    code = "RUN_ENDED"


class JobTooOld(Rejected):
    """Older than the retention of the work topics: its work may have been deleted unread."""

    code = "JOB_EXPIRED"


# ── may work soon ───────────────────────────────────────────────────────────────────────────────────────────────────


class Unavailable(WhisperXError):
    """A thing that we depend on does not answer now."""

    code = "UNAVAILABLE"
    retryable = True


class DependencyAway(Unavailable):
    """A server that all work needs is away: the loop waits in place, and no attempt is burnt."""

    code = "DEPENDENCY_AWAY"


class StoreUnavailable(DependencyAway):
    code = "STORE_UNAVAILABLE"


class BrokerUnavailable(DependencyAway):
    code = "BROKER_UNAVAILABLE"


class RefusedLogin(BrokerUnavailable):
    """The brokers are there and do not let us in, or we do not trust them: login, token or certificates are wrong."""

    code = "BROKER_LOGIN_REFUSED"


class NotAuthorized(BrokerUnavailable):
    """The brokers know us, and have no rule (ACL) that allows what we ask."""

    code = "BROKER_NOT_AUTHORIZED"


class RefusedCredentials(DependencyAway):
    """The store does not take our keys, whatever is asked for: they are wrong, have expired or were withdrawn."""

    code = "CREDENTIALS_REFUSED"


class RefusedEncryption(DependencyAway):
    """The store cannot encrypt as the settings ask: it has no KMS, or not that key."""

    code = "ENCRYPTION_REFUSED"


class RegistryUnavailable(DependencyAway):
    code = "REGISTRY_UNAVAILABLE"


class GpuOutOfMemory(Unavailable):
    """The whole ladder (smaller batches, unloading, CPU) was walked and there is still no room."""

    code = "GPU_OUT_OF_MEMORY"


class DecoderCrashed(Unavailable):
    """The decoder process died without a verdict. It may be the recording: the coordinator counts the attempts."""

    code = "DECODER_CRASHED"


# ── nobody wants it now ─────────────────────────────────────────────────────────────────────────────────────────────


class Stopped(WhisperXError):
    """The work is not wanted any more, and nothing is wrong with it."""

    code = "STOPPED"


class Cancelled(Stopped):
    """The job was cancelled."""

    code = "CANCELLED"

    def __init__(self, message: str, requested_by: str | None = None) -> None:
        super().__init__(message)
        self.requested_by = requested_by


class Superseded(Stopped):
    """A forced run of the same job took its place."""

    code = "SUPERSEDED"


class Abandoned(Stopped):
    """The partition went to another worker, or this process is shutting down: somebody else does the work."""

    code = "ABANDONED"


# ── this process is unwell ──────────────────────────────────────────────────────────────────────────────────────────


class BrokenWorker(WhisperXError):
    """Nothing that this process computes from now on can be trusted."""

    code = "WORKER_BROKEN"


class BrokenGpuContext(BrokenWorker):
    code = "GPU_CONTEXT_BROKEN"


class Fenced(BrokenWorker):
    """Another process took over this producer's transactional id, or its transaction outlived its time-out."""

    code = "FENCED"


# ── found at start ──────────────────────────────────────────────────────────────────────────────────────────────────


class Misconfigured(WhisperXError):
    """The settings cannot work; the message says which one and what to do."""

    code = "MISCONFIGURED"


class MissingModel(Misconfigured):
    code = "MODEL_MISSING"


class MissingTopic(Misconfigured):
    code = "TOPIC_MISSING"
