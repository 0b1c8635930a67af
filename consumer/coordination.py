"""The coordinator's loop: restore on assignment, then events in, states and answers out, in one transaction per batch.

When a transaction fails or is in doubt, everything in memory is dropped and restored from the log: the log is the
only truth, so there is nothing to repair.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from consumer.audit import log_published
from consumer.broker import Inbox, Mark, Marks, Outbox, PublishAborted, PublishInDoubt, Rebalance, Tail
from consumer.contracts import CARRIED
from consumer.coordinator.coordinator import STAGES, Coordinator, Outcome, Past
from consumer.coordinator.policy import Park, Policy, Send
from consumer.coordinator.state import OPEN, JobState
from consumer.core.layout import Topic
from consumer.errors import BrokenWorker, BrokerUnavailable, DependencyAway, Rejected, StoreUnavailable
from consumer.events import Event, JobFinished, Priority, Problem
from consumer.functions.intake import received_of
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.ports import Outgoing, Received
from consumer.refusals import RefusalLimit
from consumer.roles import Post, problem_of
from consumer.work import JobReceived

log = logging.getLogger(__name__)

ROLE = "coordinate"
CONDITION = f"{ROLE} dependencies"
RETRY_S = 1.0
POLL_S = 0.05
TICK_S = 0.2
MAX_BATCH = 200
RESTORE_TIMEOUT_S = 60.0
IDLE_COMMIT_S = 2.0
MAX_NOTES = 5
GAUGE_INTERVAL_S = 1.0


@dataclass(slots=True)
class _Partition:
    """One partition of job-events with its jobs; `coordinator` is None until it is restored."""

    coordinator: Coordinator | None = None
    next_offset: int | None = None
    committed: int | None = None
    rewind: bool = False
    sought: bool = False
    """Set back, and nothing read since: until then the client may tell the position of before."""
    notes: int = 0
    """How often the present position was noted outside a transaction."""


class Coordination:
    """See the module. `run` returns after `stop`, or raises what ended it."""

    def __init__(
        self,
        inbox: Inbox,
        states: Tail,
        outbox: Outbox,
        post: Post,
        policy: Policy,
        *,
        lookup: Callable[[str], Past],
        refusals: RefusalLimit,
        health: Health,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._states = states
        self._outbox = outbox
        self._post = post
        self._policy = policy
        self._lookup = lookup
        self._refusals = refusals
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._partitions: dict[int, _Partition] = {}
        self._tick_at = 0.0
        self._idle_commit_at = 0.0
        self._gauge_at = 0.0
        self._stopping = threading.Event()
        self._last_error = ""

    def run(self) -> None:
        """Work until `stop`. Raises Fenced, Misconfigured, or a bug."""
        self.open()
        try:
            while not self._stopping.is_set():
                self.turn()
        finally:
            self._states.close()
            if not self._inbox.close(timeout_s=10.0):
                log.warning("Leaving the group took too long", extra={"topic": self._inbox.topic})
            self._outbox.close(timeout_s=5.0)
            self._health.loop_ended(ROLE)

    def open(self) -> None:
        """Join the group."""
        self._inbox.open(Rebalance(self._assigned, partial(self._gone, "revoked"), partial(self._gone, "lost")))

    def stop(self) -> None:
        self._stopping.set()

    def turn(self) -> None:
        """One round: restore what is new, take a batch, let time pass, publish what it leads to."""
        self._health.poll_seen(ROLE)
        try:
            self._restore_new()
            batch = list(self._batch())
            now_s = self._clock()
            # Each at a time of its own: two equal requests in one batch are two facts, and their audit events two ids.
            parked = [parked for record in batch for parked in self._apply(record, self._clock())]
            if batch or now_s >= self._tick_at:
                self._tick(now_s)
            self._publish(parked, now_s)
        except DependencyAway as error:
            self._start_over(error.message)
            self._health.set_ready(CONDITION, False, error.message)
            self._wait_awake()

    def _wait_awake(self) -> None:
        """A pause before the next try that the group does not take for death. Everything is paused and rewound, so
        a record that was on its way all the same is read again."""
        with contextlib.suppress(BrokerUnavailable):
            self._inbox.poll(RETRY_S)

    def describe(self) -> dict[str, object]:
        return {
            "role": ROLE,
            "assignment": sorted(self._partitions),
            "awaits_positions": self._inbox.awaits_positions,
            "jobs": {p: len(held.coordinator.jobs) for p, held in self._partitions.items() if held.coordinator},
            "last_publish_error": self._last_error,
        }

    # ── partitions come and go ──────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, marks: Marks) -> None:
        """Paused until restored: no event before the state that it belongs to."""
        partitions = set(marks)
        for partition in partitions:
            self._partitions[partition] = _Partition()
        self._inbox.pause(partitions)
        self._count("assigned", partitions)

    def _gone(self, kind: str, partitions: set[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)
        self._count(kind, partitions)

    def _count(self, kind: str, partitions: set[int]) -> None:
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.assigned_partitions.labels(self._inbox.topic).set(len(self._partitions))
        self._show_paused()
        log.info("Partitions changed hands", extra={"kind": kind, "partitions": sorted(partitions)})

    def _show_paused(self) -> None:
        """Those that wait for their states."""
        waiting = sum(held.coordinator is None for held in self._partitions.values())
        self._metrics.paused_partitions.labels(self._inbox.topic).set(waiting)

    def _restore_new(self) -> None:
        unrestored = [p for p, held in self._partitions.items() if held.coordinator is None]
        if unrestored or self._inbox.awaits_positions:
            self._outbox.settle()  # what we left in doubt is decided before anybody reads what it wrote
        for partition in unrestored:
            if partition in self._partitions:  # still: polling in between may have taken it away
                self._restore(partition)
                self._health.poll_seen(ROLE)
        if not self._inbox.awaits_positions:
            self._health.set_ready(CONDITION, True)

    def _restore(self, partition: int) -> None:
        """Committed offset first, then the state up to its end: what is read again is applied again, never lost."""
        held = self._partitions[partition]
        committed = self._inbox.committed({partition})[partition].offset
        states = self._read_states(partition)
        coordinator = Coordinator(self._policy)
        coordinator.restore(states)
        if held.rewind:
            self._inbox.seek(partition, committed or 0)
        held.sought = held.rewind
        held.coordinator, held.next_offset, held.committed, held.rewind = coordinator, None, committed, False
        self._inbox.resume({partition})
        self._show_paused()
        log.info("Job states restored", extra={"partition": partition, "jobs": len(states)})

    def _read_states(self, partition: int) -> list[JobState]:
        """The newest record per job; a record without a value means that the job was evicted."""
        newest = {record.key: record.value for record in self._states.read_to_end(partition, RESTORE_TIMEOUT_S)}
        return [JobState.from_bytes(value) for value in newest.values() if value is not None]

    def _start_over(self, reason: str) -> None:
        """Forget everything in memory; the next turn restores from the log."""
        self._last_error = reason
        log.warning("Starting over from the stored states", extra={"reason": reason})
        for held in self._partitions.values():
            # One that was never restored was never read, and its fetcher may not take a seek yet.
            held.coordinator, held.rewind = None, held.rewind or held.coordinator is not None
        self._inbox.pause(set(self._partitions))
        self._show_paused()

    # ── a batch ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _batch(self) -> Iterator[Received]:
        """Records that are there now; waits only for the first."""
        for number in range(MAX_BATCH):
            try:
                record = self._inbox.poll(POLL_S if number == 0 else 0.0)
            except BrokerUnavailable as error:
                if not self._inbox.awaits_positions:
                    raise
                self._health.set_ready(CONDITION, False, error.message)  # and what is restored goes on
                return
            if record is None:
                return
            yield record

    def _apply(self, record: Received, now_s: float) -> list[Outgoing]:
        """Feed one event; the list holds the dead letter of one that cannot be read."""
        held = self._partitions.get(record.partition)
        if held is None or held.coordinator is None:
            return []
        held.next_offset, held.sought = record.offset + 1, False
        self._metrics.records_consumed.labels(record.topic).inc()
        try:
            event = self._post.codec.decode(record, CARRIED[Topic.JOB_EVENTS])
        except Rejected as error:
            self._refusals.refused(error.code, _stop_refusing)
            log.error("An event of ours cannot be read", extra={"code": error.code, "reason": error.message})
            self._count_dead_letter(problem_of(error, ROLE))
            return self._post.park(record, problem_of(error, ROLE), ROLE)
        self._refusals.accepted()
        self._feed(held.coordinator, event, now_s)
        return []

    def _feed(self, coordinator: Coordinator, event: Event, now_s: float) -> None:
        if not isinstance(event, JobReceived):
            coordinator.handle(event, now_s)
            return
        past, before = self._past(coordinator, event.job_id), coordinator.jobs.get(event.job_id)
        coordinator.handle(event, now_s, past)
        first = before or past
        same = first is not None and first.request_digest == event.request_digest
        if same and coordinator.jobs.get(event.job_id) is before:
            self._metrics.duplicates.inc()
            log.info("A duplicate request changes nothing", extra={"job_id": event.job_id})

    def _past(self, coordinator: Coordinator, job_id: str) -> Past | None:
        """For a request under an unknown id: what the object store still tells of it."""
        if coordinator.knows(job_id):
            return None
        try:
            return self._lookup(job_id)
        except Rejected as error:  # a bucket of ours is missing or closed to us: wait, as for a store that is away
            raise StoreUnavailable(f"looking for results of {job_id}: {error.message}") from error

    def _tick(self, now_s: float) -> None:
        self._tick_at = now_s + TICK_S
        for held in self._partitions.values():
            if held.coordinator is not None:
                held.coordinator.tick(now_s)
        if now_s >= self._gauge_at:
            self._gauge_at = now_s + GAUGE_INTERVAL_S
            self._gauge()

    def _gauge(self) -> None:
        """One pass over all open jobs, so not with every batch."""
        stages: Counter[str] = Counter()
        lanes: Counter[str] = Counter()
        backlog_s = 0.0
        for job in self._open_jobs():
            stages[STAGES[job.status].value] += 1
            lanes[job.request.priority.value] += len(job.in_flight)
            backlog_s += job.unfinished_s
        self._metrics.backlog_audio_seconds.set(backlog_s)
        for status in OPEN:
            self._metrics.jobs_open.labels(STAGES[status].value).set(stages[STAGES[status].value])
        for lane in Priority:
            self._metrics.chunks_released.labels(lane.value).set(lanes[lane.value])
        self._metrics.tell_lag(self._inbox.topic, self._inbox.lag())

    def _open_jobs(self) -> Iterator[JobState]:
        for held in self._partitions.values():
            if held.coordinator is not None:
                yield from (job for job in held.coordinator.jobs.values() if job.is_open)

    def _publish(self, parked: list[Outgoing], now_s: float) -> None:
        outcomes = {p: held.coordinator.outcome(now_s) for p, held in self._partitions.items() if held.coordinator}
        records = [*parked, *(record for p, outcome in outcomes.items() for record in self._records(p, outcome))]
        self._pass_markers()
        moved = {
            p: Mark(h.next_offset) for p, h in self._partitions.items() if h.next_offset not in (None, h.committed)
        }
        if records:
            if self._publish_together(records, moved):
                self._note_finished(outcomes)
        elif moved and now_s >= self._idle_commit_at:
            self._commit_alone(moved, now_s)

    def _pass_markers(self) -> None:
        """Go on behind the markers of transactions, else the lag of an idle partition stays 1 for ever."""
        for partition, held in self._partitions.items():
            if held.coordinator is not None and not held.sought:
                position = self._inbox.position(partition) or 0
                if position > max(held.next_offset or 0, held.committed or 0):
                    held.next_offset = position

    def _publish_together(self, records: list[Outgoing], moved: dict[int, Mark]) -> bool:
        """Output and input positions at once. False after a failure of any kind: we start over from the log."""
        # Every partition, moved or not: its position is what fences us, and what a successor waits for.
        unmoved = {p: Mark(h.committed) for p, h in self._partitions.items() if h.coordinator is not None}
        marks = {**unmoved, **moved}
        try:
            with self._metrics.transaction_seconds.time():
                self._outbox.publish(records, [(self._inbox, marks)])
        except BrokerUnavailable:
            self._metrics.transactions.labels("unavailable").inc()
            raise
        except (PublishAborted, PublishInDoubt) as error:
            self._metrics.transactions.labels("in_doubt" if isinstance(error, PublishInDoubt) else "aborted").inc()
            self._start_over(str(error))
            return False
        self._metrics.transactions.labels("committed").inc()
        for record in records:
            self._metrics.records_published.labels(record.topic).inc()
        log_published(records)
        self._committed(moved)
        return True

    def _commit_alone(self, moved: dict[int, Mark], now_s: float) -> None:
        """Events without effect move the position too, only less often, and without waiting for the broker."""
        self._idle_commit_at = now_s + IDLE_COMMIT_S
        self._inbox.note(moved)
        for partition in moved:
            self._partitions[partition].notes += 1
        # A note promises nothing, so it is repeated a few times before it is believed.
        self._committed({p: mark for p, mark in moved.items() if self._partitions[p].notes >= MAX_NOTES})

    def _committed(self, moved: dict[int, Mark]) -> None:
        for partition, mark in moved.items():
            if partition in self._partitions:
                self._partitions[partition].committed = mark.offset
                self._partitions[partition].notes = 0

    def _records(self, partition: int, outcome: Outcome) -> Iterator[Outgoing]:
        for job_id, state in outcome.states.items():
            value = state.to_bytes() if state is not None else None
            yield Outgoing(self._post.topic(Topic.JOB_STATE), job_id.encode(), value, partition=partition)
        for command in outcome.commands:
            if isinstance(command, Send):
                yield self._post.record(command.topic, command.event, command.traceparent)
            else:
                yield from self._parked(command)

    def _parked(self, command: Park) -> list[Outgoing]:
        self._count_dead_letter(command.reason)
        return self._post.park(received_of(command.original), command.reason, ROLE, command.job_id)

    def _count_dead_letter(self, reason: Problem) -> None:
        self._metrics.dead_letters.labels(reason.code).inc()
        log.warning("An event is parked as a dead letter", extra={"code": reason.code, "reason": reason.message})

    def _note_finished(self, outcomes: dict[int, Outcome]) -> None:
        """The closing line of each job, with its outcome."""
        for outcome in outcomes.values():
            for command in outcome.commands:
                if isinstance(command, Send) and isinstance(command.event, JobFinished):
                    event = command.event
                    self._metrics.jobs_finished.labels(event.status.value).inc()
                    self._metrics.job_seconds.labels(event.status.value).observe(event.timings.wall_s)
                    fields = {"job_id": event.job_id, "run": event.run, "status": event.status.value}
                    code = event.error.code if event.error else None
                    log.info("Job finished", extra={**fields, "code": code, "wall_s": event.timings.wall_s})


def _stop_refusing(_pause_s: float) -> None:
    """Other than a function, this loop cannot wait over one event: it ends uncommitted."""
    raise BrokenWorker("nearly every event of our own is refused; do all pods run the same version?")
