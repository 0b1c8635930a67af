"""What the audit trail speaks of: every action by its name. docs/audit.md has the same table, made from here."""

from __future__ import annotations

from enum import StrEnum

NO_RUN = 0
"""In place of a run's number, where a line is about an event or an object and not about a run."""
BEGUN = "begun"
"""Outcome of an action that is written down before it is done; what came of it follows."""


class Action(StrEnum):
    JOB_ACCEPTED = "job_accepted"
    REQUEST_REPEATED = "request_repeated"
    JOB_REFUSED = "job_refused"
    JOB_FORCED = "job_forced"
    JOB_RETRIED = "job_retried"
    JOB_CANCELLED = "job_cancelled"
    RECORDING_READ = "recording_read"
    CHUNK_GIVEN_UP = "chunk_given_up"
    RESULT_WRITTEN = "result_written"
    JOB_FINISHED = "job_finished"
    DATA_REMOVED = "data_removed"
    RESULTS_EXPIRED = "results_expired"
    RECORDING_DELETED = "recording_deleted"
    RECORDING_KEPT = "recording_kept"
    EVENT_PARKED = "event_parked"
    LETTER_REDRIVEN = "letter_redriven"
    LETTER_DISCARDED = "letter_discarded"
    ORPHANS_SWEPT = "orphans_swept"


MEANING: dict[Action, tuple[str, str, str]] = {
    Action.JOB_ACCEPTED: ("the sender", "recording", "A request started the first run of a job."),
    Action.REQUEST_REPEATED: ("the sender", "recording", "A request was recognised as a duplicate; nothing happened."),
    Action.JOB_REFUSED: ("the sender", "recording", "A request was refused before any work; the outcome says why."),
    Action.JOB_FORCED: ("the sender", "recording", "A request with force started a further run."),
    Action.JOB_RETRIED: ("who asked", "recording or job", "A retry started a further run, or `NOTHING_TO_RETRY`."),
    Action.JOB_CANCELLED: ("who asked", "job", "An open run was ended because somebody asked for it."),
    Action.RECORDING_READ: (
        "plan",
        "recording",
        "A planner began to read the recording, or could not, as the outcome says: one line for each try, also where "
        "the run ended meanwhile. A run that gave way to another one before its planner answered has none for it. "
        "Chunk audio and checkpoints, which are read by our own functions only, have no lines.",
    ),
    Action.CHUNK_GIVEN_UP: ("coordinate", "chunk", "A chunk failed for good."),
    Action.RESULT_WRITTEN: ("assemble", "manifest", "The result files of a run are complete."),
    Action.JOB_FINISHED: (
        "coordinate",
        "job",
        "A run ended, exactly one line per run: `ok`, or the code of its error, such as `DEADLINE_PASSED`.",
    ),
    Action.DATA_REMOVED: ("cleanup", "how many objects", "What a run left in the work bucket was removed, or not."),
    Action.RESULTS_EXPIRED: ("cleanup", "how many objects", "The retention was over; the result files were removed."),
    Action.RECORDING_DELETED: (
        "cleanup",
        "recording",
        "The recording was deleted, because the job asked for it. "
        "`RECORDING_MISSING`: it was gone already, deleted in a try whose answer was lost, or by somebody else.",
    ),
    Action.RECORDING_KEPT: (
        "cleanup",
        "recording",
        "The job asked to delete the recording, and it was not deleted: `SOURCE_CHANGED` when it was overwritten, "
        "`ACCESS_DENIED` when the store forbids it, `DELETION_NOT_ALLOWED` when the settings no longer allow it, or "
        "it lies in a bucket of ours.",
    ),
    Action.EVENT_PARKED: ("the function", "topic/partition@offset", "An event went to the dead letters."),
    Action.LETTER_REDRIVEN: ("the operator", "partition@offset", "The original of a dead letter was sent again."),
    Action.LETTER_DISCARDED: ("the operator", "partition@offset", "A dead letter was settled without being sent."),
    Action.ORPHANS_SWEPT: (
        "sweep, and the operator",
        "bucket/folder",
        "`whisperx-consumer sweep` removed a folder: one line with `begun` before, one with what came of it after.",
    ),
}
"""Action → who acts, on what, and what it says."""
