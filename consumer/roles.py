"""What the loop does with a record of each role: bytes to an event, the function, its answer or failure to bytes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from consumer.core.dead_letters import dead_letter
from consumer.core.identity import event_id
from consumer.core.layout import Topic
from consumer.core.retries import RetryPolicy, delay_s
from consumer.errors import Abandoned, Cancelled, DependencyAway, Rejected, Unavailable, WhisperXError
from consumer.events import Event, JobControl, Problem
from consumer.functions.intake import Intake
from consumer.health import Health
from consumer.logs import bound
from consumer.metrics import Metrics
from consumer.observation import observe, observe_failure, observe_stop
from consumer.ports import Attempt, Outgoing, Received
from consumer.tasks import Ticket
from consumer.wire import Codec
from consumer.work import (
    AssemblyWork,
    ChunkSkipped,
    ChunkWork,
    CleanupWork,
    JobReceived,
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
        return Outgoing(topic=name, key=event.key().encode(), value=value, headers=headers, partition=partition)

    def topic(self, topic: Topic) -> str:
        return self.topic_prefix + topic.value

    def park(self, original: Received, reason: Problem) -> Outgoing:
        return dead_letter(self.topic(Topic.DEAD_LETTERS), original, reason)


def problem_of(error: WhisperXError, stage: str, chunk_index: int | None = None) -> Problem:
    """An error as the contract carries it."""
    return Problem(
        code=error.code, message=error.message, retryable=error.retryable, stage=stage, chunk_index=chunk_index
    )


class IntakeHandler:
    """`jobs` and `control` → `job-events`; what cannot be read → dead letters."""

    role = "intake"
    weighs_audio = False

    def __init__(self, intake: Intake, post: Post, metrics: Metrics) -> None:
        self._intake = intake
        self._post = post
        self._metrics = metrics

    def weight(self, record: Received) -> float:  # noqa: ARG002
        return 1.0

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:  # noqa: ARG002
        try:
            event = self._event(record)
        except Rejected as error:
            log.warning("An event is refused", extra={"code": error.code, "reason": error.message})
            return [self._parked(record, problem_of(error, "intake"))]
        self._metrics.work_finished.labels(self.role, "done").inc()
        if isinstance(event, JobReceived):
            self._metrics.jobs_received.labels(event.request.priority.value).inc()
        traceparent = getattr(event, "traceparent", None)
        return [self._post.record(Topic.JOB_EVENTS, event, traceparent)]

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        return [self._parked(record, _fatal(attempts, "intake"))]

    def _event(self, record: Received) -> Event:
        if record.topic == self._post.topic(Topic.CONTROL):
            return self._intake.control(record, self._post.codec.decode(record, (JobControl,)))
        return self._intake.job(record, self._post.codec.read_request(record))

    def _parked(self, record: Received, reason: Problem) -> Outgoing:
        observe_failure(self._metrics, self.role, reason.code)
        self._metrics.dead_letters.labels(reason.code).inc()
        return self._post.park(record, reason)


class WorkHandler(Generic[W]):
    """A work topic → the function → `job-events`."""

    def __init__(
        self,
        role: str,
        work_type: type[W],
        function: Callable[[W, Attempt], Event],
        post: Post,
        *,
        in_place: RetryPolicy,
        cancelled: Callable[[str], bool],
        health: Health,
        metrics: Metrics,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timer` counts seconds and never goes back: for durations."""
        self.role = role
        self.weighs_audio = "audio_s" in work_type.model_fields
        self._work_type = work_type
        self._function = function
        self._post = post
        self._in_place = in_place
        self._cancelled = cancelled
        self._health = health
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
            work = self._read(record)
        except Rejected as error:
            log.error("A work event of ours cannot be read", extra={"code": error.code, "reason": error.message})
            return [self._parked(record, problem_of(error, self.role))]
        chunk_index = getattr(work, "chunk_index", None)
        with bound(job_id=work.job_id, run=work.run, chunk_index=chunk_index, attempt=work.attempt):
            answer = self._answer(work, _EventAttempt(ticket, work, self._post, self._cancelled))
        return [] if answer is None else [self._post.record(Topic.JOB_EVENTS, answer, _trace(work))]

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        try:
            work = self._read(record)
        except Rejected as error:
            return [self._parked(record, problem_of(error, self.role))]
        problem = _fatal(attempts, self.role)
        observe_failure(self._metrics, self.role, problem.code, work)
        return [self._post.record(Topic.JOB_EVENTS, failure(work, problem), _trace(work))]

    def _parked(self, record: Received, reason: Problem) -> Outgoing:
        observe_failure(self._metrics, self.role, reason.code)
        self._metrics.dead_letters.labels(reason.code).inc()
        return self._post.park(record, reason)

    def _read(self, record: Received) -> W:
        return self._post.codec.decode(record, (self._work_type,))

    def _answer(self, work: W, attempt: _EventAttempt) -> Event | None:
        """What the function says, or its failure in the form of an answer; None when nobody waits for one."""
        try:
            attempt.check()
            return self._patiently(work, attempt)
        except Abandoned:
            observe_stop(self._metrics, self.role)
            raise
        except Cancelled:
            log.info("Work is left, its job was cancelled")
            skipped = _skipped(work)
            observe_stop(self._metrics, self.role, skipped)
            return skipped
        except (Rejected, Unavailable) as error:
            observe_failure(self._metrics, self.role, error.code, work)
            level = logging.INFO if error.retryable else logging.WARNING
            log.log(level, "Work failed", extra={"code": error.code, "reason": error.message})
            return failure(work, problem_of(error, self.role, getattr(work, "chunk_index", None)))

    def _patiently(self, work: W, attempt: _EventAttempt) -> Event:
        """Try again in place: a few times for what may pass, without end while a server is away."""
        tries = 0
        while True:
            tries += 1
            started_s = self._timer()
            try:
                answer = self._function(work, attempt)
            except Unavailable as error:
                if not isinstance(error, DependencyAway) and tries >= self._in_place.attempts:
                    raise
                self._wait(work, attempt, error, tries)
            else:
                self._health.set_ready(f"{self.role} dependencies", True)
                observe(self._metrics, self.role, answer, self._timer() - started_s)
                return answer

    def _wait(self, work: W, attempt: _EventAttempt, error: Unavailable, tries: int) -> None:
        pause_s = delay_s(min(tries, 16), self._in_place, f"{work.key()}/{attempt.number}")
        if isinstance(error, DependencyAway):
            self._health.set_ready(f"{self.role} dependencies", False, error.message)
        log.info("Trying again in place", extra={"code": error.code, "reason": error.message, "wait_s": pause_s})
        attempt.wait(pause_s)


class _EventAttempt:
    """A ticket that speaks events: what functions get as `ports.Attempt`."""

    def __init__(self, ticket: Ticket, work: Work, post: Post, cancelled: Callable[[str], bool]) -> None:
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
        if not isinstance(self._work, CleanupWork) and self._cancelled(self._work.job_id):
            raise Cancelled(f"job {self._work.job_id} was cancelled")

    def wait(self, seconds: float) -> None:
        self._ticket.wait(seconds)
        self.check()


def _skipped(work: Work) -> Event | None:
    if isinstance(work, ChunkWork):
        return ChunkSkipped(job_id=work.job_id, run=work.run, chunk_index=work.chunk_index, reason="cancelled")
    return None


def _trace(work: Work) -> str | None:
    return getattr(work, "traceparent", None)


def _fatal(attempts: int, stage: str) -> Problem:
    return Problem(
        code="WORKER_KILLED",
        message=f"the worker process died {attempts} times while it worked on this; look at the logs of the pod "
        "(out of memory?) before sending the job again",
        stage=stage,
    )
