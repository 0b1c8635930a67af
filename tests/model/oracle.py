"""What must hold after every step, told from what reaches the broker and the store. It notes failures and never raises:
it is called from inside the product, which would take an exception for its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.broker import Mark
from consumer.contracts import CARRIED
from consumer.coordinator.policy import Policy
from consumer.core.dead_letters import OFFSET, PARTITION, TOPIC, text_of
from consumer.core.layout import Topic
from consumer.core.results import ResultManifest
from consumer.core.retries import RetryPolicy, delay_s
from consumer.errors import Rejected
from consumer.events import ChunkTranscribed, Event, JobControl, JobFinished, JobProgress
from consumer.ports import Received
from consumer.roles import Post
from consumer.work import (
    AssemblyFailed,
    AssemblyFinished,
    AssemblyWork,
    CancelRequested,
    ChunkFailed,
    ChunkSkipped,
    ChunkWork,
    CleanupFailed,
    CleanupFinished,
    CleanupWork,
    JobReceived,
    PlanFailed,
    PlanFinished,
    PlanWork,
    RetryRequested,
)

if TYPE_CHECKING:
    from tests.model.fate import ModelInbox

UNREAD = {Topic.JOBS, Topic.JOB_STATE, Topic.AUDIT}
CLOCK_STEP_S = 0.002
"""Records carry whole milliseconds."""
Run = tuple[str, int]
Position = tuple[str, int, int]


@dataclass
class Oracle:
    """`now` is the time of the records that come."""

    post: Post
    policy: Policy
    failures: list[str] = field(default_factory=list)
    seen: int = 0
    """Records, on all topics."""
    ended: dict[Run, JobFinished] = field(default_factory=dict)
    partials: dict[tuple[str, int, int], ChunkTranscribed] = field(default_factory=dict)
    progress: dict[Run, JobProgress] = field(default_factory=dict)
    parked: dict[Position, Received] = field(default_factory=dict)
    """Position of the original → its dead letter."""
    received: Counter[Position] = field(default_factory=Counter)
    suspects: Counter[Position] = field(default_factory=Counter)
    """How often work on a record was begun by a process that then ended or lost it."""
    late: set[str] = field(default_factory=set)
    """Objects that were written after the end of their run."""
    computed: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    _announced: dict[str, str] = field(default_factory=dict)
    """Checkpoint → digest, as told to the coordinator."""
    _answers: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _committed_work: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _committed: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _sent: dict[tuple[object, ...], float] = field(default_factory=dict)
    _failed_at_s: dict[tuple[object, ...], float] = field(default_factory=dict)
    _events: dict[Position, Event] = field(default_factory=dict)

    def fail(self, what: str) -> None:
        self.failures.append(what)

    # ── the broker ──────────────────────────────────────────────────────────────────────────────────────────────────

    def appends(self, record: Received) -> None:
        self.seen += 1
        topic = Topic(record.topic.removeprefix(self.post.topic_prefix))
        if topic is Topic.DEAD_LETTERS:
            self._parks(record)
        elif topic not in UNREAD:
            self._reads(topic, record)

    def _parks(self, record: Received) -> None:
        partition, offset = (int(text_of(record, name) or "") for name in (PARTITION, OFFSET))
        original = (text_of(record, TOPIC) or "", partition, offset)
        if original in self.parked:
            self.fail(f"{original} is a dead letter twice")
        self.parked[original] = record

    def _reads(self, topic: Topic, record: Received) -> None:
        try:
            event = self.post.codec.decode(record, CARRIED[topic])
        except Rejected:
            if topic is not Topic.CONTROL:
                self.fail(f"an event of ours cannot be read: {record}")
            return
        self._events[record.topic, record.partition, record.offset] = event
        self._note(topic, event, record.timestamp_ms / 1000)

    def _note(self, topic: Topic, event: Event, now_s: float) -> None:
        if (answered := _answered(event)) is not None and topic is Topic.JOB_EVENTS:
            self._answers[answered] += 1
        match event:
            case JobFinished():
                self._ends(event)
            case JobProgress():
                self._progresses(event)
            case ChunkTranscribed() if topic is Topic.PARTIALS:
                self._shows(event)
            case ChunkTranscribed(checkpoint=checkpoint):
                self._announced[checkpoint.key] = checkpoint.sha256
            case JobReceived(original=original):
                self.received[original.topic, original.partition, original.offset] += 1
            case PlanWork() | ChunkWork() | AssemblyWork() | CleanupWork():
                self._sends(event, now_s)
            case PlanFailed() | ChunkFailed() | AssemblyFailed() | CleanupFailed():
                self._failed_at_s.setdefault(_try_of(event), now_s)

    def _ends(self, event: JobFinished) -> None:
        if (event.job_id, event.run) in self.ended:
            self.fail(f"{event.job_id}/{event.run} ended twice")
        self.ended[event.job_id, event.run] = event

    def _progresses(self, event: JobProgress) -> None:
        before = self.progress.get((event.job_id, event.run))
        if before and (event.sequence <= before.sequence or event.fraction < before.fraction):
            self.fail(f"progress went back from {before} to {event}")
        self.progress[event.job_id, event.run] = event

    def _shows(self, event: ChunkTranscribed) -> None:
        key = (event.job_id, event.run, event.chunk_index)
        if key in self.partials:
            self.fail(f"partial {key} appeared twice")
        if (event.job_id, event.run) in self.ended:
            self.fail(f"partial {key} appeared after the end")
        self.partials[key] = event

    def _sends(self, work: PlanWork | ChunkWork | AssemblyWork | CleanupWork, now_s: float) -> None:
        this, policy, *names = _try_of(work), *self._patience_with(work)
        attempt = work.attempt
        if this in self._sent and not isinstance(work, CleanupWork):  # that is done twice where stragglers may write
            self.fail(f"{this} was sent twice")
        self._sent[this] = now_s
        if isinstance(work, CleanupWork) and (work.job_id, work.run) not in self.ended:
            self.fail(f"{this} was sent before the end of its run")
        if attempt > policy.attempts:
            self.fail(f"{this} is beyond the limit of {policy.attempts}")
        if attempt > 1:
            failed_at_s = self._failed_at_s.get((*this[:-1], attempt - 1))
            wait_s = min(delay_s(attempt - 1, policy, name) for name in names)
            if failed_at_s is None or now_s < failed_at_s + wait_s - CLOCK_STEP_S:
                self.fail(f"{this} was sent at {now_s}, the try before it failed at {failed_at_s}")

    def _patience_with(self, work: Event) -> tuple[RetryPolicy, *tuple[str, ...]]:
        match work:
            case PlanWork():
                return self.policy.plan, f"{work.job_id}/plan"
            case ChunkWork():
                return self.policy.chunk, f"{work.job_id}/{work.chunk_index}"
            case AssemblyWork():
                return self.policy.assembly, f"{work.job_id}/assembly"
            case CleanupWork():  # of the newest run, or of an earlier one
                return self.policy.cleanup, f"{work.job_id}/cleanup", f"{work.job_id}/{work.run}/cleanup"
        raise AssertionError(work)

    # ── positions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def commits(self, inbox: ModelInbox, marks: dict[int, Mark]) -> None:
        for partition, mark in marks.items():
            place = (inbox.group, inbox.topic, partition)
            before, offset = self._committed.get(place, 0), mark.offset or 0
            if partition not in inbox.assigned:
                self.fail(f"{place} is committed by a member that does not hold it")
            if offset < before:
                self.fail(f"{place} went back from {before} to {offset}")
            self._committed[place] = offset
            for done in range(before, offset):
                self._require_answer((inbox.topic, partition, done))

    def _require_answer(self, position: Position) -> None:
        """Whatever lies before a committed position has its answer, at the latest in the same transaction."""
        topic = Topic(position[0].removeprefix(self.post.topic_prefix))
        if topic is Topic.JOBS:
            if position not in self.received and position not in self.parked:
                self.fail(f"{position} is committed without an answer")
            return
        asked = _asked(self._events.get(position)) if topic is not Topic.JOB_EVENTS else None
        if asked is None or position in self.parked:
            return
        self._committed_work[asked] += 1
        if self._committed_work[asked] > self._answers[asked]:
            self.fail(f"{position} is committed without an answer: {asked}")

    # ── the store ───────────────────────────────────────────────────────────────────────────────────────────────────

    def computes(self, work: ChunkWork, had_checkpoint: bool) -> None:
        self.computed[work.job_id, work.run, work.chunk_index] += 1
        if had_checkpoint:
            self.fail(f"chunk {work.key()} is computed again although its checkpoint was stored")

    def puts_work(self, key: str, data: bytes, *, replaces: bool) -> None:
        announced = self._announced.get(key)
        if replaces and announced is not None and announced != hashlib.sha256(data).hexdigest():
            self.fail(f"{key} was announced and is overwritten with something else")
        self.puts(key)

    def puts(self, key: str) -> None:
        if run_of(key) in self.ended:
            self.late.add(key)

    def puts_manifest(self, key: str, data: bytes, present: set[str]) -> None:
        """Last of all, except by a straggler, whose files the cleanup of the ended run may have removed."""
        if key in self.late:
            return
        missing = {a.claim_check.key for a in ResultManifest.from_bytes(data).artifacts} - present
        if missing:
            self.fail(f"{key} is written before {missing}")

    def deletes_work(self, key: str) -> None:
        if run_of(key) not in self.ended:
            self.fail(f"{key} is removed before the end of its run")


def run_of(key: str) -> Run:
    """run_of("work/job-1/2/chunks/00000.pcm") -> ("job-1", 2)"""
    _, job_id, run, *_ = key.split("/")
    return job_id, int(run)


def _try_of(event: Event) -> tuple[object, ...]:
    """One try of one piece of work; the last part is the attempt."""
    match event:
        case PlanWork() | PlanFailed():
            return "plan", event.job_id, event.run, event.epoch
        case ChunkWork() | ChunkFailed():
            return "chunk", event.job_id, event.run, event.chunk_index, event.attempt
        case AssemblyWork() | AssemblyFailed():
            return "assembly", event.job_id, event.run, event.attempt
        case CleanupWork() | CleanupFailed():
            return "cleanup", event.job_id, event.run, event.results, event.attempt
    raise AssertionError(event)


def _asked(event: Event | None) -> tuple[object, ...] | None:
    """What a record asks for."""
    match event:
        case PlanWork():
            return "plan", event.job_id, event.run, event.epoch
        case ChunkWork():
            return "chunk", event.job_id, event.run, event.chunk_index
        case AssemblyWork():
            return "assembly", event.job_id, event.run
        case CleanupWork():
            return "cleanup", event.job_id, event.run
        case JobControl(action="cancel" | "retry"):
            return event.action, event.job_id
        case _:
            return None


def _answered(event: Event) -> tuple[object, ...] | None:
    """What an event answers: equal to `_asked` of the record that asked."""
    match event:
        case PlanFinished() | PlanFailed():
            return "plan", event.job_id, event.run, event.epoch
        case ChunkTranscribed() | ChunkFailed() | ChunkSkipped():
            return "chunk", event.job_id, event.run, event.chunk_index
        case AssemblyFinished() | AssemblyFailed():
            return "assembly", event.job_id, event.run
        case CleanupFinished() | CleanupFailed():
            return "cleanup", event.job_id, event.run
        case CancelRequested():
            return "cancel", event.job_id
        case RetryRequested():
            return "retry", event.job_id
        case _:
            return None
