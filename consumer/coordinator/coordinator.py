"""All runs of one partition of job-events: takes events, keeps states, and collects what must go out.

It decides by `machine` and `scheduler` and does no I/O. The loop takes `outcome()` after each batch and publishes it
in one transaction; when that transaction fails, this object is thrown away and restored from the state topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consumer.coordinator import leftovers, machine, runs, scheduler
from consumer.coordinator.book import Book, earliest
from consumer.coordinator.policy import Command, Park, Policy, Send
from consumer.coordinator.state import JobState, Status
from consumer.coordinator.steps import Step, audit, audit_line, instant, preceded, recording_of
from consumer.core.audit import Action
from consumer.core.layout import Topic
from consumer.core.progress import eta_s, fraction
from consumer.errors import (
    ConflictingJob,
    DeadlinePassed,
    DeletionNotAllowed,
    JobTooOld,
    NothingToRetry,
    Superseded,
    UnknownModel,
)
from consumer.events import Event, JobProgress, JobStatus, Priority, Problem, RecordingRef, Stage
from consumer.work import ChunkWork, JobReceived, PlanWork, RetryRequested

LANES = {
    Priority.HIGH: Topic.CHUNK_WORK_HIGH,
    Priority.NORMAL: Topic.CHUNK_WORK_NORMAL,
    Priority.LOW: Topic.CHUNK_WORK_LOW,
}

STAGES = {
    Status.WAITING: Stage.QUEUED,
    Status.PLANNING: Stage.PLANNING,
    Status.TRANSCRIBING: Stage.TRANSCRIBING,
    Status.ASSEMBLING: Stage.ASSEMBLING,
    Status.FINISHED: Stage.FINISHED,
    Status.CLEANED: Stage.FINISHED,
    Status.EXPIRING: Stage.FINISHED,
}


@dataclass(frozen=True, slots=True)
class Past:
    """What the object store tells of a job whose state is not here: evicted long ago, or never known."""

    last_run: int = 0
    """The highest run that left anything; a new run must not meet its objects."""
    request_digest: str | None = None
    """Of the newest run with a manifest: tells a duplicate from a conflict."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one batch leads to: state records (None: remove) and what goes out, in order."""

    states: Mapping[str, JobState | None]
    commands: tuple[Command, ...]


class Coordinator:
    """See the module. Not thread-safe: one thread feeds it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._book = Book(self._due_at)
        self._stored: dict[str, JobState] = {}
        self._commands: list[Command] = []
        self._touched: set[str] = set()
        self._admitted = 0

    @property
    def jobs(self) -> Mapping[str, JobState]:
        return self._book.jobs

    def restore(self, states: Iterable[JobState]) -> None:
        """Take over the states that the last owner of the partition stored."""
        for state in states:
            self._stored[state.job_id] = state
            self._book.put(state)
            self._admitted = max(self._admitted, state.admitted_as)

    def knows(self, job_id: str) -> bool:
        return job_id in self.jobs

    # ── events in ───────────────────────────────────────────────────────────────────────────────────────────────────

    def handle(self, event: Event, now_s: float, past: Past | None = None) -> None:
        """Apply one event. `past` comes with a request for a job that this object does not know."""
        if isinstance(event, JobReceived):
            self._receive(event, now_s, past or Past())
            return
        if isinstance(event, RetryRequested):
            self._retry(event, now_s)
            return
        state = self.jobs.get(str(getattr(event, "job_id", "")))
        if state is None:
            return
        self._apply(machine.advance(state, event, now_s, self._policy))

    def tick(self, now_s: float) -> None:
        """Do what time brings: retries, deadlines, new plans, new chunks, eviction."""
        for job_id in self._book.due(now_s):
            self._tick_job(self.jobs[job_id], now_s)
            if job_id in self.jobs:
                self._book.remind(self.jobs[job_id])
        running, waiting = self._book.running(), self._book.waiting()
        for job_id in scheduler.admissions(running, waiting, self._policy.planned_ahead_s):
            self._ask_for_plan(self.jobs[job_id], now_s)
        for release in scheduler.releases(self._book.running(), self._policy.chunks_in_flight, now_s):
            self._release(release, now_s)

    def outcome(self, now_s: float) -> Outcome:
        """What changed since the last call; progress is added here, so that a batch yields one line per job."""
        for job_id in [job_id for job_id in self._touched if job_id in self.jobs]:
            self._tell_progress(job_id, now_s)
        states = {job_id: self.jobs.get(job_id) for job_id in self._touched if self._must_store(job_id)}
        commands, self._commands = tuple(self._commands), []
        for job_id, state in states.items():
            self._remember(job_id, state)
        self._touched.clear()
        return Outcome(states, commands)

    def _remember(self, job_id: str, state: JobState | None) -> None:
        if state is None:
            self._stored.pop(job_id, None)
        else:
            self._stored[job_id] = state

    def _must_store(self, job_id: str) -> bool:
        return _lasting(self.jobs.get(job_id)) != _lasting(self._stored.get(job_id))

    # ── one job ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, event: JobReceived, now_s: float, past: Past) -> None:
        """A new run, or a duplicate of one (nothing happens), or a conflict (the event is parked)."""
        state = self.jobs.get(event.job_id)
        if state is not None and runs.is_known(state, event):
            self._note_repetition(event, state.run, now_s)
            return
        digest = state.request_digest if state else past.request_digest
        if event.request.force and state is not None:
            self._supersede(state, event, now_s)
        elif event.request.force or digest is None:
            self._start(runs.requested(event, past.last_run + 1, self._policy), Action.JOB_ACCEPTED, now_s)
        elif digest != event.request_digest:
            self._commands.append(Park(event.original, _conflict(event.job_id), event.job_id))
        else:
            self._note_repetition(event, state.run if state else past.last_run, now_s)

    def _note_repetition(self, event: JobReceived, run: int, now_s: float) -> None:
        target = f"{event.request.recording.bucket}/{event.request.recording.key}"
        actor, trace = event.request.submitted_by or "intake", event.traceparent
        line = audit_line(event.job_id, run, actor, Action.REQUEST_REPEATED, target, now_s, "ok", trace)
        self._commands.append(Send(Topic.AUDIT, line, trace))

    def _supersede(self, state: JobState, event: JobReceived, now_s: float) -> None:
        """A forced run: the run before it ends with a terminal event of its own, in the same transaction."""
        if state.is_open:
            self._apply(machine.finish(state, JobStatus.CANCELLED, now_s, error=_superseded(state, event)))
            self._tell_progress(state.job_id, now_s)
        forced = runs.requested(event, state.run + 1, self._policy)
        self._follow(self.jobs[state.job_id], forced, Action.JOB_FORCED, now_s)

    def _retry(self, event: RetryRequested, now_s: float) -> None:
        """A new run after one that has failed, was cancelled, or has gaps; else a line in the audit trail."""
        state = self.jobs.get(event.job_id)
        actor = event.requested_by or "intake"
        if state is not None and runs.can_be_retried(state, event):
            self._follow(state, runs.retried(state, event, self._policy), Action.JOB_RETRIED, now_s, actor)
            return
        run = state.run if state else event.run or 1
        line = audit_line(event.job_id, run, actor, Action.JOB_RETRIED, event.job_id, now_s, NothingToRetry.code)
        self._commands.append(Send(Topic.AUDIT, line))

    def _follow(
        self, previous: JobState, state: JobState, action: Action, now_s: float, actor: str | None = None
    ) -> None:
        step = runs.following(previous, state)
        self._commands.extend(step.commands)
        self._start(step.state, action, now_s, actor)

    def _start(self, state: JobState, action: Action, now_s: float, actor: str | None = None) -> None:
        self._admitted += 1
        state = state.changed(admitted_as=self._admitted)
        refusal = state.refusal or self._refusal(state, now_s)
        who, target = actor or state.request.submitted_by or "intake", recording_of(state)
        if refusal is None:
            self._apply(Step(state, (audit(state, who, action, target, now_s),)))
            return
        noted = audit(state, who, Action.JOB_REFUSED, target, now_s, refusal.code)
        self._apply(preceded((noted,), machine.finish(state, JobStatus.FAILED, now_s, error=refusal)))

    def _refusal(self, state: JobState, now_s: float) -> Problem | None:
        model = state.request.options.model
        if model not in self._policy.models:
            return Problem(
                code=UnknownModel.code,
                message=f"model {model!r} is not offered here; choose one of {', '.join(self._policy.models)}",
                stage="coordinate",
            )
        if state.request.options.delete_recording and not self._policy.may_delete_recordings:
            return Problem(
                code=DeletionNotAllowed.code,
                message="options.delete_recording is not allowed here; leave it out and submit a new job, or ask the "
                "operators to allow it (limits.may_delete_recordings)",
                stage="coordinate",
            )
        return self._expired(state, now_s) if self._is_expired(state, now_s) else None

    def _is_expired(self, state: JobState, now_s: float) -> bool:
        """Its work may have been deleted unread: the net under whatever else a job could wait for in vain."""
        return now_s - state.received_at_s > self._policy.work_retention_s

    def _expired(self, state: JobState, now_s: float) -> Problem:
        return Problem(
            code=JobTooOld.code,
            message=f"the request is {now_s - state.received_at_s:.0f} s old and without a result, longer than work "
            f"events are kept ({self._policy.work_retention_s:.0f} s); retry the job",
            stage="coordinate",
        )

    def _apply(self, step: Step) -> None:
        self._book.put(step.state)
        self._touched.add(step.state.job_id)
        self._commands.extend(step.commands)

    def _due_at(self, state: JobState) -> float | None:
        """When `_tick_job` finds something to do: everything that it looks at is here."""
        return earliest((leftovers.due_at_s(state), *self._due_times(state)))

    def _due_times(self, state: JobState) -> tuple[float | None, ...]:
        match state.status:
            case Status.FINISHED | Status.EXPIRING:
                return (state.cleanup_due_at_s,)
            case Status.CLEANED if state.expires_at_s is not None:
                return (state.expires_at_s,)
            case Status.CLEANED:
                kept = not state.leftovers
                return ((state.finished_at_s or 0.0) + self._kept_s(state) if kept else None,)
            case _:
                deadline = state.request.deadline_at
                return (
                    deadline.timestamp() if deadline else None,
                    state.received_at_s + self._policy.work_retention_s,
                    state.plan_due_at_s,
                    state.assembly_due_at_s,
                )

    def _tick_job(self, state: JobState, now_s: float) -> None:
        if _due(leftovers.due_at_s(state), now_s):
            self._apply(leftovers.ask(state, now_s))
            state = self.jobs[state.job_id]
        if state.is_open and self._overdue(state, now_s):
            self._apply(machine.finish(state, JobStatus.FAILED, now_s, error=_too_late(state)))
        elif state.is_open and self._is_expired(state, now_s):
            self._apply(machine.finish(state, JobStatus.FAILED, now_s, error=self._expired(state, now_s)))
        elif state.status is Status.PLANNING and _due(state.plan_due_at_s, now_s):
            self._ask_for_plan(state, now_s)
        elif state.status is Status.ASSEMBLING and _due(state.assembly_due_at_s, now_s):
            self._apply(machine.ask_for_assembly(state))
        elif state.status in (Status.FINISHED, Status.EXPIRING) and _due(state.cleanup_due_at_s, now_s):
            self._apply(machine.ask_for_cleanup(state))
        elif state.status is Status.CLEANED:
            self._age(state, now_s)

    def _age(self, state: JobState, now_s: float) -> None:
        """What becomes of a run that has ended: its files expire if it asked for that, then it is forgotten."""
        if state.expires_at_s is not None:
            if now_s >= state.expires_at_s:
                self._apply(machine.expire(state))
        elif not state.leftovers and now_s - (state.finished_at_s or 0.0) > self._kept_s(state):
            self._evict(state.job_id)

    def _kept_s(self, state: JobState) -> float:
        """A manifest tells a late duplicate of its request, but not one that asks for a run by force."""
        is_enough = state.outcome in machine.RESULTS and not state.request.force
        return self._policy.evict_after_s if is_enough else self._policy.evict_failed_after_s

    def _evict(self, job_id: str) -> None:
        self._book.remove(job_id)
        self._touched.add(job_id)

    def _overdue(self, state: JobState, now_s: float) -> bool:
        deadline = state.request.deadline_at
        return deadline is not None and now_s > deadline.timestamp()

    def _ask_for_plan(self, state: JobState, now_s: float) -> None:
        asked = state.changed(
            status=Status.PLANNING,
            plan_epoch=state.plan_epoch + 1,
            plan_attempt=state.plan_attempt + 1,
            plan_due_at_s=None,
            plan_started_at_s=state.plan_started_at_s or now_s,
        )
        recording = state.request.recording
        pinned = RecordingRef(
            bucket=recording.bucket,
            key=recording.key,
            etag=state.etag or recording.etag,
            version_id=state.version_id or recording.version_id,
        )
        work = PlanWork(
            job_id=state.job_id,
            run=state.run,
            epoch=asked.plan_epoch,
            attempt=asked.plan_attempt,
            recording=pinned,
            options=state.request.options,
            work_run=state.work_run,
            traceparent=state.traceparent,
        )
        self._apply(Step(asked, (Send(Topic.PLAN_WORK, work, state.traceparent),)))

    def _release(self, release: scheduler.Release, now_s: float) -> None:
        state = self.jobs[release.job_id]
        options = state.request.options
        work = ChunkWork(
            job_id=state.job_id,
            run=state.run,
            chunk_index=release.chunk_index,
            attempt=release.attempt,
            audio_s=_typical_chunk_s(state),
            options=options,
            language=state.language if options.language == "auto" else options.language,
            work_run=state.work_run,
            traceparent=state.traceparent,
        )
        sent = state.changed(
            in_flight={**state.in_flight, release.chunk_index: release.attempt},
            retries={k: v for k, v in state.retries.items() if k != release.chunk_index},
            next_chunk=max(state.next_chunk, release.chunk_index + 1),
            first_release_at_s=state.first_release_at_s or now_s,
        )
        self._apply(Step(sent, (Send(LANES[state.request.priority], work, state.traceparent),)))

    # ── progress out ────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell_progress(self, job_id: str, now_s: float) -> None:
        state = self.jobs[job_id]
        stage = STAGES[state.status]
        share = max(state.fraction, _share(state))
        same_stage = state.stage_told is stage
        too_soon = now_s - state.progress_at_s < self._policy.progress_interval_s
        if same_stage and (share == state.fraction or too_soon):
            return
        position = self._book.place_in_lane(state)
        told = state.changed(sequence=state.sequence + 1, fraction=share, progress_at_s=now_s, stage_told=stage)
        self._apply(Step(told, (Send(Topic.PROGRESS, _progress(told, stage, position, now_s), told.traceparent),)))


def _progress(state: JobState, stage: Stage, position: int | None, now_s: float) -> JobProgress:
    live_s = _live_s(state)
    started = state.first_release_at_s
    return JobProgress(
        job_id=state.job_id,
        run=state.run,
        sequence=state.sequence,
        stage=stage,
        fraction=round(state.fraction, 4),
        chunks_done=len(state.done_chunks),
        chunks_total=state.chunks_total,
        audio_done_s=round(state.audio_done_s, 3),
        audio_total_s=state.audio_total_s,
        eta_s=eta_s(
            done_s=state.audio_done_s + live_s,
            total_s=_total_s(state),
            elapsed_s=now_s - started if started is not None else 0.0,
        )
        if state.is_open
        else None,
        queue_position=position,
        emitted_at=instant(now_s),
    )


def _share(state: JobState) -> float:
    if state.outcome in machine.RESULTS:
        return 1.0
    total = _total_s(state)
    planned = 1.0 if state.chunks_total is not None else state.planned_s / total if total else 0.0
    return fraction(
        done_s=state.audio_done_s, live_s=_live_s(state), total_s=total, planned_share=planned, assembled=False
    )


def _total_s(state: JobState) -> float | None:
    """Length of the recording: decoded, else by its header, never less than what is planned."""
    if state.audio_total_s is not None:
        return state.audio_total_s
    return max(state.duration_hint_s, state.planned_s) if state.duration_hint_s else None


def _live_s(state: JobState) -> float:
    """Seconds of the recording in the done parts of running chunks."""
    return sum(state.live.values()) * _typical_chunk_s(state) / state.streams


def _typical_chunk_s(state: JobState) -> float:
    return state.planned_s * state.streams / state.planned if state.planned else 0.0


def _due(due_at_s: float | None, now_s: float) -> bool:
    return due_at_s is not None and due_at_s <= now_s


def _lasting(state: JobState | None) -> bytes | None:
    """What of a state is worth storing: everything but the in-memory part."""
    return state.to_bytes() if state is not None else None


def _conflict(job_id: str) -> Problem:
    return Problem(
        code=ConflictingJob.code,
        message=f"job {job_id} is known with another recording or other options; "
        "send the request under a new job_id, or exactly as before",
        stage="coordinate",
    )


def _superseded(state: JobState, event: JobReceived) -> Problem:
    by = f" by {event.request.submitted_by}" if event.request.submitted_by else ""
    return Problem(
        code=Superseded.code,
        message=f"run {state.run} gave way to run {state.run + 1}, which was forced{by}; read the result of that run",
        stage="coordinate",
    )


def _too_late(state: JobState) -> Problem:
    return Problem(
        code=DeadlinePassed.code,
        message=f"the deadline {state.request.deadline_at} passed before the result was ready; "
        "give more time or a higher priority",
        stage="coordinate",
    )
