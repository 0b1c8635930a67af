"""The life of one run as a table: (state, event, now) → (state, what to send). No clock, no I/O.

`TABLE` names what each event does in each status. Events arrive at least once and in any order of chunks, so every
cell is filled: what comes late or twice is `stale`, said in the table and not in the code. A figure in
docs/architecture.md is drawn from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

from consumer.coordinator import leftovers
from consumer.coordinator.policy import Policy, Send
from consumer.coordinator.state import WITH_CHUNKS, JobState, Retry, Status
from consumer.coordinator.steps import Step, audit, audit_of_recording, instant, preceded, recording_of
from consumer.core.audit import Action
from consumer.core.layout import Topic
from consumer.core.retries import next_try_at
from consumer.errors import Cancelled, ChangedRecording, LostIntermediate
from consumer.events import (
    ChunkTranscribed,
    Event,
    JobControl,
    JobFinished,
    JobStatus,
    Problem,
    RecordingRef,
    RunTimings,
)
from consumer.work import (
    AssemblyFailed,
    AssemblyFinished,
    AssemblyWork,
    CancelRequested,
    ChunkFailed,
    ChunkPlanned,
    ChunkProgressed,
    ChunkSkipped,
    CleanupFailed,
    CleanupFinished,
    CleanupWork,
    PlanFailed,
    PlanFinished,
    PlanStarted,
)

RESULTS = frozenset({JobStatus.COMPLETED, JobStatus.PARTIAL})
"""Ends with a transcript."""

COORDINATE = "coordinate"

Handler: TypeAlias = Callable[[JobState, "Event", float, Policy], Step]


def advance(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """Apply one event to one run.

    Raises KeyError for a pair that is not in the table: that is a bug, not an input.
    """
    handler = TABLE[state.status][type(event)]
    if getattr(event, "run", None) not in (None, state.run):
        return leftovers.answered(state, event, now_s, policy)
    return handler(state, event, now_s, policy)


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan_started(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """The first plan pins the recording; a later reading of other bytes must not be mixed with it."""
    event = cast(PlanStarted, event)
    if event.epoch != state.plan_epoch:
        return Step(state)
    state, noted = _note_reading(state, event.epoch, "ok", now_s)
    if state.modified_at_s is None and event.modified_at is not None:
        state = state.changed(modified_at_s=event.modified_at.timestamp())
    if state.etag is None:
        pinned = state.changed(
            etag=event.etag,
            version_id=event.version_id,
            duration_hint_s=event.duration_hint_s,
            streams=event.streams,
        )
        return Step(pinned, noted)
    if event.etag == state.etag:
        return Step(state, noted)
    changed = Problem(
        code=ChangedRecording.code,
        message=f"{recording_of(state)} was overwritten while it was being planned; retry the job",
        stage="plan",
    )
    return preceded(noted, finish(state, JobStatus.FAILED, now_s, error=changed))


def _note_reading(state: JobState, epoch: int, outcome: str, now_s: float) -> Step:
    """Each try of a plan to read the recording is in the trail once, also one that could not begin."""
    if epoch != state.plan_epoch or epoch == state.read_epoch:
        return Step(state)
    noted = audit(state, "plan", Action.RECORDING_READ, recording_of(state), now_s, outcome)
    return Step(state.changed(read_epoch=epoch), (noted,))


def _read_late(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """The run ended before its planner said that it reads: the trail has to know all the same."""
    event = cast("PlanStarted | PlanFailed", event)
    return _note_reading(state, event.epoch, event.error.code if isinstance(event, PlanFailed) else "ok", now_s)


def _chunk_planned(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """Chunks are announced in order; one that a repeated plan announces again is known already."""
    event = cast(ChunkPlanned, event)
    if event.epoch != state.plan_epoch or event.chunk_index != state.planned:
        return Step(state)
    return Step(
        state.changed(
            planned=state.planned + 1,
            planned_s=event.end_s,
            sample_ready=state.sample_ready or event.sample_ready,
        )
    )


def _plan_finished(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(PlanFinished, event)
    if event.epoch != state.plan_epoch:
        return Step(state)
    planned = state.warn(*event.warnings).changed(
        status=Status.TRANSCRIBING,
        planned=event.chunks_total,
        planned_s=event.recording.duration_s,
        chunks_total=event.chunks_total,
        recording=event.recording,
        plan_s=event.plan_s,
        sample_ready=True,
    )
    return _assemble_when_complete(planned, now_s, policy)


def _plan_failed(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(PlanFailed, event)
    if event.epoch != state.plan_epoch or state.plan_due_at_s is not None:
        return Step(state)
    state, noted = _note_reading(state, event.epoch, event.error.code, now_s)
    due = next_try_at(now_s, state.plan_attempt, policy.plan, f"{state.job_id}/plan") if event.error.retryable else None
    if due is None:
        answered = state.changed(plan_due_at_s=now_s)  # no planner is left that would have to be stopped
        return preceded(noted, _finish_failed(answered, event, now_s))
    return Step(state.changed(plan_due_at_s=due), noted)


# ── the chunks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _chunk_transcribed(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """Only the first answer for a chunk counts, and only it is shown to the world."""
    event = cast(ChunkTranscribed, event)
    if event.chunk_index in state.done_chunks or event.chunk_index in state.failed:
        return Step(state)
    settled = _settle_language(_without(state, event.chunk_index), event).warn(*event.warnings)
    done = settled.changed(
        done=state.done_chunks.add(event.chunk_index).to_hex(),
        audio_done_s=state.audio_done_s + (event.end_s - event.start_s) / state.streams,
    )
    step = _assemble_when_complete(done, now_s, policy)
    return Step(step.state, (Send(Topic.PARTIALS, event, state.traceparent), *step.commands))


def _settle_language(state: JobState, event: ChunkTranscribed) -> JobState:
    if state.language_settled:
        return state
    return state.changed(
        language=event.language, language_probability=event.language_probability, language_settled=True
    )


def _chunk_failed(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(ChunkFailed, event)
    if state.in_flight.get(event.chunk_index) != event.attempt:
        return Step(state)
    name = f"{state.job_id}/{event.chunk_index}"
    due = next_try_at(now_s, event.attempt, policy.chunk, name) if event.error.retryable else None
    if due is not None:
        return Step(_retry(state, event.chunk_index, event.attempt + 1, due))
    return _give_up(state, event.chunk_index, event.error, now_s, policy)


def _chunk_skipped(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """`gone` while the job is alive means lost audio; `cancelled` that the cancel has overtaken us."""
    event = cast(ChunkSkipped, event)
    if event.chunk_index not in state.in_flight:
        return Step(state)
    if event.reason == "cancelled":
        error = Problem(code=Cancelled.code, message=f"job {state.job_id} was cancelled", stage="transcribe")
        return _cancelled(_without(state, event.chunk_index), event.cancelled_by, error, now_s)
    lost = Problem(
        code=LostIntermediate.code,
        message=f"the audio of chunk {event.chunk_index} is gone from the work bucket before it was transcribed; "
        "check the bucket's lifecycle rules and retry the job",
        stage="transcribe",
        chunk_index=event.chunk_index,
    )
    return _give_up(state, event.chunk_index, lost, now_s, policy)


def _chunk_progressed(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(ChunkProgressed, event)
    if event.chunk_index not in state.in_flight:
        return Step(state)
    return Step(state.changed(live={**state.live, event.chunk_index: event.fraction}))


def _without(state: JobState, index: int) -> JobState:
    """The state with this chunk no longer on its way."""
    return state.changed(
        in_flight={k: v for k, v in state.in_flight.items() if k != index},
        retries={k: v for k, v in state.retries.items() if k != index},
        live={k: v for k, v in state.live.items() if k != index},
    )


def _retry(state: JobState, index: int, attempt: int, due_at_s: float) -> JobState:
    waiting = _without(state, index)
    return waiting.changed(retries={**waiting.retries, index: Retry(attempt=attempt, due_at_s=due_at_s)})


def _give_up(state: JobState, index: int, error: Problem, now_s: float, policy: Policy) -> Step:
    """A chunk that failed for good fails the job, or leaves a gap, as the job asked."""
    located = error.model_copy(update={"chunk_index": index, "stage": "transcribe"})
    noted = (audit(state, "coordinate", Action.CHUNK_GIVEN_UP, f"chunk {index}", now_s, error.code),)
    if state.request.options.on_chunk_failure == "fail":
        return preceded(noted, finish(_without(state, index), JobStatus.FAILED, now_s, error=located))
    left = _without(state, index).warn(located)
    gap = left.changed(failed=tuple(sorted({*state.failed, index})), chunk_error=state.chunk_error or located)
    return preceded(noted, _assemble_when_complete(gap, now_s, policy))


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _assemble_when_complete(state: JobState, now_s: float, policy: Policy) -> Step:
    if state.chunks_total is None or state.accounted < state.chunks_total:
        return Step(state)
    if not state.done_chunks:
        return finish(state, JobStatus.FAILED, now_s, error=state.chunk_error)
    return ask_for_assembly(state)


def ask_for_assembly(state: JobState) -> Step:
    """Send the assembly, for the first time or again."""
    assert state.recording is not None
    assert state.chunks_total is not None
    asked = state.changed(
        status=Status.ASSEMBLING,
        assembly_attempt=state.assembly_attempt + 1,
        assembly_due_at_s=None,
        live={},
    )
    work = AssemblyWork(
        job_id=state.job_id,
        run=state.run,
        attempt=asked.assembly_attempt,
        chunks_total=state.chunks_total,
        chunks_failed=state.failed,
        request_digest=state.request_digest,
        recording=state.recording,
        options=state.request.options,
        language=state.language,
        language_probability=state.language_probability,
        metadata=state.request.metadata,
        warnings=state.warnings,
        traceparent=state.traceparent,
        work_run=state.work_run,
    )
    return Step(asked, (Send(Topic.ASSEMBLY_WORK, work, state.traceparent),))


def _assembly_finished(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(AssemblyFinished, event)
    status = JobStatus.PARTIAL if state.failed else JobStatus.COMPLETED
    written = f"{event.manifest.bucket}/{event.manifest.key}"
    noted = (audit(state, "assemble", Action.RESULT_WRITTEN, written, now_s),)
    return preceded(noted, finish(state.warn(*event.warnings), status, now_s, result=event, error=state.chunk_error))


def _assembly_failed(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(AssemblyFailed, event)
    if event.attempt != state.assembly_attempt or state.assembly_due_at_s is not None:
        return Step(state)
    name = f"{state.job_id}/assembly"
    due = next_try_at(now_s, event.attempt, policy.assembly, name) if event.error.retryable else None
    if due is None:
        return _finish_failed(state.changed(assembly_due_at_s=now_s), event, now_s)
    return Step(state.changed(assembly_due_at_s=due))


def _finish_failed(state: JobState, event: PlanFailed | AssemblyFailed, now_s: float) -> Step:
    if event.error.code == Cancelled.code:
        return _cancelled(state, event.cancelled_by, event.error, now_s)
    return finish(state, JobStatus.FAILED, now_s, error=event.error)


def _cancelled(state: JobState, by: str | None, error: Problem, now_s: float) -> Step:
    """Also by the word of a worker: it may learn of a cancel before we do, or keep one that came before its job."""
    noted = audit(state, by or "intake", Action.JOB_CANCELLED, state.job_id, now_s)
    return preceded((noted,), finish(state, JobStatus.CANCELLED, now_s, error=error))


def _cancel(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(CancelRequested, event)
    by = f" by {event.requested_by}" if event.requested_by else ""
    why = f": {event.reason}" if event.reason else ""
    error = Problem(code=Cancelled.code, message=f"the job was cancelled{by}{why}", stage="coordinate")
    return _cancelled(state, event.requested_by, error, now_s)


def finish(
    state: JobState,
    status: JobStatus,
    now_s: float,
    *,
    result: AssemblyFinished | None = None,
    error: Problem | None = None,
) -> Step:
    """The one way out: the terminal event, and the cleanup in the same transaction, never before."""
    ended = state.changed(
        status=Status.FINISHED,
        outcome=status,
        error_code=error.code if error else None,
        finished_at_s=now_s,
        in_flight={},
        retries={},
        live={},
        plan_due_at_s=None,
        assembly_due_at_s=None,
    )
    terminal = Send(Topic.RESULTS, _terminal_event(ended, status, now_s, result, error), state.traceparent)
    noted = audit(state, COORDINATE, Action.JOB_FINISHED, state.job_id, now_s, outcome=error.code if error else "ok")
    if state.plan_epoch == 0 and state.work_run is None:
        return Step(ended.changed(status=Status.CLEANED), (terminal, noted))
    stop = _stop_workers(state, status)
    cleaning = ask_for_cleanup(ended.changed(stragglers=bool(stop)))
    return Step(cleaning.state, (terminal, noted, *cleaning.commands, *stop))


def _stop_workers(state: JobState, status: JobStatus) -> tuple[Send, ...]:
    """Whoever still works for a run that has ended early leaves it: GPUs are free for other jobs at once."""
    plan_is_out = state.status is Status.PLANNING and state.plan_due_at_s is None
    assembly_is_out = state.status is Status.ASSEMBLING and state.assembly_due_at_s is None
    if status in RESULTS or not (state.in_flight or plan_is_out or assembly_is_out):
        return ()
    control = JobControl(
        job_id=state.job_id,
        action="cancel",
        run=state.run,
        reason=f"run {state.run} has ended as {status.value}",
        requested_by=COORDINATE,
    )
    return (Send(Topic.CONTROL, control, state.traceparent),)


def _terminal_event(
    state: JobState, status: JobStatus, now_s: float, result: AssemblyFinished | None, error: Problem | None
) -> JobFinished:
    return JobFinished(
        job_id=state.job_id,
        run=state.run,
        status=status,
        recording=state.recording,
        language=state.language,
        language_probability=state.language_probability,
        speakers=result.speakers if result else (),
        transcript_inline=result.transcript_inline if result else None,
        artifacts=result.artifacts if result else (),
        manifest=result.manifest if result else None,
        options_used=state.request.options,
        models=result.models if result else (),
        fingerprint=result.fingerprint if result else "",
        chunks_total=state.chunks_total or 0,
        chunks_failed=state.failed,
        timings=_timings(state, status, now_s, result.timings if result else RunTimings()),
        warnings=state.warnings,
        error=error,
        metadata=state.request.metadata,
        finished_at=instant(now_s),
    )


def _timings(state: JobState, status: JobStatus, now_s: float, measured: RunTimings) -> RunTimings:
    """A run that failed or was cancelled has no speed: its recording was not done in its time."""
    started = state.plan_started_at_s
    running_s = now_s - started if started is not None else 0.0
    total_s = state.audio_total_s if status in RESULTS else None
    return measured.model_copy(
        update={
            "queued_s": round((started if started is not None else now_s) - state.received_at_s, 3),
            "plan_s": state.plan_s,
            "wall_s": round(now_s - state.received_at_s, 3),
            "real_time_factor": round(total_s / running_s, 2) if total_s and running_s > 0 else None,
        }
    )


def ask_for_cleanup(state: JobState) -> Step:
    """Send the cleanup, for the first time or again: of the work, or of the results once they expire."""
    assert state.outcome is not None
    asked = state.changed(cleanup_attempt=state.cleanup_attempt + 1, cleanup_due_at_s=None)
    work = CleanupWork(
        job_id=state.job_id,
        run=state.run,
        attempt=asked.cleanup_attempt,
        status=state.outcome,
        results=state.status is Status.EXPIRING,
        work_run=state.work_run,
        recording=_to_delete(state),
        ended_at=instant(state.finished_at_s or 0.0),
        modified_at=instant(state.modified_at_s) if state.modified_at_s is not None else None,
    )
    return Step(asked, (Send(Topic.CLEANUP_WORK, work, state.traceparent),))


def _to_delete(state: JobState) -> RecordingRef | None:
    """The pinned recording, if the job asked for its deletion and has completed: nothing less will do (P6)."""
    wished = state.request.options.delete_recording and state.status is Status.FINISHED
    if not wished or state.outcome is not JobStatus.COMPLETED or state.etag is None:
        return None
    return state.request.recording.model_copy(update={"etag": state.etag, "version_id": state.version_id})


def _cleanup_finished(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    event = cast(CleanupFinished, event)
    if event.results is not (state.status is Status.EXPIRING) or state.cleanup_due_at_s is not None:
        return Step(state)
    noted = audit(state, "cleanup", leftovers.removal(event.results), f"{event.removed} objects", now_s)
    if state.stragglers:
        due = now_s + leftovers.STRAGGLERS_S
        return Step(state.changed(stragglers=False, cleanup_attempt=0, cleanup_due_at_s=due), (noted,))
    return Step(_cleaned(state), (noted, *audit_of_recording(state, event.recording, now_s)))


def _cleanup_failed(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """Past the limit the bucket's lifecycle rules are the second net; the audit trail says so."""
    event = cast(CleanupFailed, event)
    is_other = event.results is not (state.status is Status.EXPIRING) or event.attempt != state.cleanup_attempt
    if is_other or state.cleanup_due_at_s is not None:
        return Step(state)
    due = next_try_at(now_s, event.attempt, policy.cleanup, f"{state.job_id}/cleanup")
    if due is not None:
        return Step(state.changed(cleanup_due_at_s=due))
    code = event.error.code
    noted = audit(state, "cleanup", leftovers.removal(event.results), state.job_id, now_s, outcome=code)
    kept = code if _to_delete(state) is not None else ""
    return Step(_cleaned(state), (noted, *audit_of_recording(state, kept, now_s)))


def _cleaned(state: JobState) -> JobState:
    expired = state.status is Status.EXPIRING
    return state.changed(status=Status.CLEANED, cleanup_attempt=0, cleanup_due_at_s=None, expired=expired)


def expire(state: JobState) -> Step:
    """The retention is over: have the result files removed."""
    return ask_for_cleanup(state.changed(status=Status.EXPIRING))


def _stale(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """Late or repeated: the run has moved on."""
    return Step(state)


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────

_Row: TypeAlias = dict[type[Event], Handler]

_ALL_STALE: _Row = {
    PlanStarted: _stale,
    ChunkPlanned: _stale,
    PlanFinished: _stale,
    PlanFailed: _stale,
    ChunkTranscribed: _stale,
    ChunkFailed: _stale,
    ChunkSkipped: _stale,
    ChunkProgressed: _stale,
    AssemblyFinished: _stale,
    AssemblyFailed: _stale,
    CleanupFinished: _stale,
    CleanupFailed: _stale,
    CancelRequested: _stale,
}

_ENDED: _Row = {**_ALL_STALE, PlanStarted: _read_late, PlanFailed: _read_late}

_CHUNKS: _Row = {
    ChunkTranscribed: _chunk_transcribed,
    ChunkFailed: _chunk_failed,
    ChunkSkipped: _chunk_skipped,
    ChunkProgressed: _chunk_progressed,
}

TABLE: dict[Status, _Row] = {
    Status.WAITING: {**_ALL_STALE, CancelRequested: _cancel},
    Status.PLANNING: {
        **_ALL_STALE,
        **_CHUNKS,
        PlanStarted: _plan_started,
        ChunkPlanned: _chunk_planned,
        PlanFinished: _plan_finished,
        PlanFailed: _plan_failed,
        CancelRequested: _cancel,
    },
    Status.TRANSCRIBING: {**_ALL_STALE, **_CHUNKS, CancelRequested: _cancel},
    Status.ASSEMBLING: {
        **_ALL_STALE,
        AssemblyFinished: _assembly_finished,
        AssemblyFailed: _assembly_failed,
        CancelRequested: _cancel,
    },
    Status.FINISHED: {**_ENDED, CleanupFinished: _cleanup_finished, CleanupFailed: _cleanup_failed},
    Status.CLEANED: dict(_ENDED),
    Status.EXPIRING: {**_ENDED, CleanupFinished: _cleanup_finished, CleanupFailed: _cleanup_failed},
}

assert frozenset(status for status, row in TABLE.items() if row[ChunkTranscribed] is not _stale) == WITH_CHUNKS
