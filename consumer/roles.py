"""What the loop does with a record of each role: bytes to an event, the function, its answer or failure to bytes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from consumer.control import Cancel
from consumer.core.audit import NO_RUN, Action
from consumer.core.dead_letters import dead_letter
from consumer.core.identity import event_id, job_id_from_position
from consumer.core.layout import Topic
from consumer.errors import (
    Abandoned,
    Cancelled,
    Rejected,
    Unavailable,
    UnreadableEvent,
    WhisperXError,
    WorkerKilled,
)
from consumer.events import AuditRecorded, Event, JobControl, Problem
from consumer.functions.intake import Intake
from consumer.logs import bound
from consumer.metrics import Metrics
from consumer.observation import observe, observe_failure, observe_stop
from consumer.patience import Patience
from consumer.ports import Attempt, Outgoing, Received
from consumer.refusals import RefusalLimit
from consumer.tasks import Ticket
from consumer.wire import MAX_VALUE_BYTES, Codec
from consumer.work import (
    AssemblyFailed,
    AssemblyWork,
    ChunkSkipped,
    ChunkWork,
    CleanupWork,
    JobReceived,
    PlanFailed,
    PlanWork,
    Work,
    failure,
)

log = logging.getLogger(__name__)

W = TypeVar("W", bound=PlanWork | ChunkWork | AssemblyWork | CleanupWork)


@dataclass(frozen=True, slots=True)
class Post:
    """Makes records out of events: topic names with their prefix, keys, ids, framing."""

    codec: Codec
    topic_prefix: str
    clock: Callable[[], float]

    def record(
        self, topic: Topic, event: Event, traceparent: str | None = None, partition: int | None = None
    ) -> Outgoing:
        name = self.topic(topic)
        now = datetime.fromtimestamp(self.clock(), UTC)
        value, headers = self.codec.encode(event, name, event_id=event_id(event), time=now, traceparent=traceparent)
        audit = event if isinstance(event, AuditRecorded) else None
        return Outgoing(name, event.key().encode(), value, headers, partition, audit)

    def topic(self, topic: Topic) -> str:
        return self.topic_prefix + topic.value

    def park(self, original: Received, reason: Problem, actor: str, job_id: str | None = None) -> list[Outgoing]:
        """The dead letter, and the line of the audit trail that says so; without an id the event's position is one."""
        line = AuditRecorded(
            job_id=job_id or job_id_from_position(original.topic, original.partition, original.offset),
            run=NO_RUN,
            actor=actor,
            action=Action.EVENT_PARKED,
            target=f"{original.topic}/{original.partition}@{original.offset}",
            outcome=reason.code,
            happened_at=datetime.fromtimestamp(self.clock(), UTC),
        )
        return [dead_letter(self.topic(Topic.DEAD_LETTERS), original, reason), self.record(Topic.AUDIT, line)]


def problem_of(error: WhisperXError, stage: str, chunk_index: int | None = None) -> Problem:
    """An error as the contract carries it."""
    return Problem(
        code=error.code, message=error.message, retryable=error.retryable, stage=stage, chunk_index=chunk_index
    )


class IntakeHandler:
    """`jobs` and `control` → `job-events`; what cannot be read → dead letters."""

    role = "intake"
    weighs_audio = False

    def __init__(
        self, intake: Intake, post: Post, patience: Patience, refusals: RefusalLimit, metrics: Metrics
    ) -> None:
        self._intake = intake
        self._post = post
        self._patience = patience
        self._refusals = refusals
        self._metrics = metrics

    def weight(self, record: Received) -> float:  # noqa: ARG002
        return 1.0

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        try:
            event = self._patience(lambda: self._event(record), ticket.wait, f"{record.partition}/{record.offset}")
            answer = self._post.record(Topic.JOB_EVENTS, event, getattr(event, "traceparent", None))
            _require_size(answer)
        except Rejected as error:
            self._refusals.refused(error.code, ticket.wait)
            log.warning("An event is refused", extra={"code": error.code, "reason": error.message})
            return self._parked(record, problem_of(error, "intake"))
        self._refusals.accepted()
        self._metrics.work_finished.labels(self.role, "done").inc()
        if isinstance(event, JobReceived):
            self._metrics.jobs_received.labels(event.request.priority.value).inc()
        return [answer]

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        return self._parked(record, _fatal(attempts, "intake"))

    def _event(self, record: Received) -> Event:
        if record.topic == self._post.topic(Topic.CONTROL):
            return self._intake.control(record, self._post.codec.decode(record, (JobControl,)))
        return self._intake.job(record, self._post.codec.read_request(record))

    def _parked(self, record: Received, reason: Problem) -> list[Outgoing]:
        observe_failure(self._metrics, self.role, reason.code)
        self._metrics.dead_letters.labels(reason.code).inc()
        return self._post.park(record, reason, self.role)


class WorkHandler(Generic[W]):
    """A work topic → the function → `job-events`."""

    def __init__(
        self,
        role: str,
        work_type: type[W],
        function: Callable[[W, Attempt], Event],
        post: Post,
        *,
        patience: Patience,
        refusals: RefusalLimit,
        cancelled: Callable[[str, int], Cancel | None],
        metrics: Metrics,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timer` counts seconds and never goes back: for durations."""
        self.role = role
        self.weighs_audio = "audio_s" in work_type.model_fields
        self._work_type = work_type
        self._function = function
        self._post = post
        self._patience = patience
        self._refusals = refusals
        self._cancelled = cancelled
        self._metrics = metrics
        self._timer = timer

    def weight(self, record: Received) -> float:
        """Seconds of audio for chunks; every other work counts as one."""
        try:
            return max(1.0, float(getattr(self._read(record), "audio_s", 1.0)))
        except (Rejected, Unavailable):
            return 1.0  # the handler itself says what is wrong with it

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        try:
            work = self._patience(lambda: self._read(record), ticket.wait, f"{record.partition}/{record.offset}")
        except Rejected as error:
            self._refusals.refused(error.code, ticket.wait)
            log.error("A work event of ours cannot be read", extra={"code": error.code, "reason": error.message})
            return self._parked(record, problem_of(error, self.role))
        self._refusals.accepted()
        chunk_index = getattr(work, "chunk_index", None)
        with bound(job_id=work.job_id, run=work.run, chunk_index=chunk_index, attempt=work.attempt):
            answer = self._answer(work, _EventAttempt(ticket, work, self._post, self._cancelled))
        return [self._post.record(Topic.JOB_EVENTS, answer, _trace(work))]

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        try:
            work = self._read(record)
        except (Rejected, Unavailable) as error:
            return self._parked(record, problem_of(error, self.role))
        problem = _fatal(attempts, self.role)
        observe_failure(self._metrics, self.role, problem.code, work)
        return [self._post.record(Topic.JOB_EVENTS, failure(work, problem), _trace(work))]

    def _parked(self, record: Received, reason: Problem) -> list[Outgoing]:
        observe_failure(self._metrics, self.role, reason.code)
        self._metrics.dead_letters.labels(reason.code).inc()
        return self._post.park(record, reason, self.role)

    def _read(self, record: Received) -> W:
        return self._post.codec.decode(record, (self._work_type,))

    def _answer(self, work: W, attempt: _EventAttempt) -> Event:
        """What the function says, or its failure in the form of an answer."""
        try:
            attempt.check()
            return self._patience(lambda: self._timed(work, attempt), attempt.wait, f"{work.key()}/{attempt.number}")
        except Abandoned:
            observe_stop(self._metrics, self.role)
            raise
        except Cancelled as error:
            log.info("Work is left, its job was cancelled")
            stopped = _stopped(work, error.requested_by)
            observe_stop(self._metrics, self.role, stopped)
            return stopped
        except (Rejected, Unavailable) as error:
            observe_failure(self._metrics, self.role, error.code, work)
            level = logging.INFO if error.retryable else logging.WARNING
            log.log(level, "Work failed", extra={"code": error.code, "reason": error.message})
            return failure(work, problem_of(error, self.role, getattr(work, "chunk_index", None)))

    def _timed(self, work: W, attempt: _EventAttempt) -> Event:
        """One try; only the one that succeeds is observed."""
        started_s = self._timer()
        answer = self._function(work, attempt)
        observe(self._metrics, self.role, answer, self._timer() - started_s)
        return answer


class _EventAttempt:
    """A ticket that speaks events: what functions get as `ports.Attempt`."""

    def __init__(self, ticket: Ticket, work: Work, post: Post, cancelled: Callable[[str, int], Cancel | None]) -> None:
        self._ticket = ticket
        self._work = work
        self._post = post
        self._cancelled = cancelled

    @property
    def number(self) -> int:
        return self._ticket.number

    def announce(self, *events: Event) -> None:
        self._ticket.announce([self._post.record(Topic.JOB_EVENTS, event, _trace(self._work)) for event in events])

    def report(self, event: Event) -> None:
        self._ticket.report(self._post.record(Topic.JOB_EVENTS, event, _trace(self._work)))

    def check(self) -> None:
        """Raise Abandoned or Cancelled. Cleanup is what a cancel leads to, so a cancel does not stop it."""
        self._ticket.check()
        if isinstance(self._work, CleanupWork):
            return
        if cancel := self._cancelled(self._work.job_id, self._work.run):
            raise Cancelled(f"job {self._work.job_id} was cancelled", requested_by=cancel.requested_by)

    def wait(self, seconds: float) -> None:
        self._ticket.wait(seconds)
        self.check()


def _stopped(work: Work, by: str | None) -> Event:
    """The answer to work whose job was cancelled: the coordinator may not know it yet, or have heard of it before it
    knew the job, so it is told, and by whom."""
    if isinstance(work, ChunkWork):
        return ChunkSkipped(
            job_id=work.job_id, run=work.run, chunk_index=work.chunk_index, reason="cancelled", cancelled_by=by
        )
    answer = failure(work, Problem(code=Cancelled.code, message=f"job {work.job_id} was cancelled"))
    return answer.model_copy(update={"cancelled_by": by}) if isinstance(answer, PlanFailed | AssemblyFailed) else answer


def _require_size(record: Outgoing) -> None:
    """What we publish, we must be able to read."""
    if len(record.value or b"") > MAX_VALUE_BYTES:
        raise UnreadableEvent(f"the request is too large with its headers; {MAX_VALUE_BYTES} bytes are the most")


def _trace(work: Work) -> str | None:
    return getattr(work, "traceparent", None)


def _fatal(attempts: int, stage: str) -> Problem:
    return Problem(
        code=WorkerKilled.code,
        message=f"the worker process died {attempts} times while it worked on this; look at the logs of the pod "
        "(a trace, or a kill for want of memory) before sending the job again",
        stage=stage,
    )
