"""What the exit codes of `whisperx-jobs` mean: one table for the program, its help and its page in docs/."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from consumer.errors import (
    AccessDenied,
    EncryptedObject,
    Misconfigured,
    MissingBucket,
    MissingObject,
    NotAuthorized,
    RefusedCredentials,
    RefusedEncryption,
    RefusedLogin,
    Unavailable,
    WhisperXError,
)
from consumer.events import JobStatus
from producer_tools.faults import ChangedFile, DamagedResult, NotFound, Overtaken, WrongUsage


class Exit(IntEnum):
    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    JOB_PARTIAL = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    JOB_CANCELLED = 6
    TIMED_OUT = 7
    DAMAGED = 8
    OVERTAKEN = 9
    BUG = 70
    MISCONFIGURED = 78
    INTERRUPTED = 130
    READER_GONE = 141


MEANINGS = {
    Exit.OK: "all went well",
    Exit.JOB_FAILED: "a job failed",
    Exit.USAGE: "wrong usage, or an input that is refused",
    Exit.JOB_PARTIAL: "no job failed, and one ended with parts missing",
    Exit.NOT_FOUND: "no such file, object, job result or record",
    Exit.UNAVAILABLE: "broker, store or registry does not answer; try again",
    Exit.JOB_CANCELLED: "no job failed, and one was cancelled",
    Exit.TIMED_OUT: "--timeout was over before all jobs ended; they go on",
    Exit.DAMAGED: "the stored bytes are not those that the manifest promises, or a file changed under our hands",
    Exit.OVERTAKEN: "another redrive or discard began and goes on; this one stopped",
    Exit.BUG: "a fault of this program; the trace is on stderr",
    Exit.MISCONFIGURED: "settings or credentials are wrong",
    Exit.INTERRUPTED: "interrupted by Ctrl-C; jobs that were sent go on",
    Exit.READER_GONE: "whoever read stdout has gone away",
}

_OF_ERRORS: tuple[tuple[tuple[type[WhisperXError], ...], Exit], ...] = (
    ((NotFound, MissingObject, MissingBucket), Exit.NOT_FOUND),
    ((DamagedResult, ChangedFile), Exit.DAMAGED),
    ((Overtaken,), Exit.OVERTAKEN),
    (
        (
            *(Misconfigured, AccessDenied, EncryptedObject, RefusedCredentials, RefusedEncryption),
            *(RefusedLogin, NotAuthorized),
        ),
        Exit.MISCONFIGURED,
    ),
    ((Unavailable,), Exit.UNAVAILABLE),
    ((WrongUsage, WhisperXError), Exit.USAGE),
)
"""The first row that fits counts."""

_OF_STATUS = {
    JobStatus.COMPLETED: Exit.OK,
    JobStatus.PARTIAL: Exit.JOB_PARTIAL,
    JobStatus.CANCELLED: Exit.JOB_CANCELLED,
    JobStatus.FAILED: Exit.JOB_FAILED,
    JobStatus.UNKNOWN: Exit.JOB_FAILED,
}
_WORST_FIRST = (Exit.JOB_FAILED, Exit.JOB_CANCELLED, Exit.JOB_PARTIAL)


def of_error(error: WhisperXError) -> Exit:
    return next(code for kinds, code in _OF_ERRORS if isinstance(error, kinds))


def of_outcomes(statuses: Iterable[JobStatus]) -> Exit:
    """One code for several jobs: that of the worst of them."""
    found = {_OF_STATUS[status] for status in statuses}
    return next((code for code in _WORST_FIRST if code in found), Exit.OK)


def table() -> str:
    """The table as the help shows it."""
    return "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
