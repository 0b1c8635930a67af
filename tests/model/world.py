"""The system under the model: one broker, one store, one clock, and processes that come and go."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from consumer.adapters.memory_broker import MemoryBroker
from consumer.adapters.memory_store import BINARY, MemoryStore
from consumer.coordinator.policy import Policy
from consumer.coordinator.state import Status
from consumer.core.layout import Topic
from consumer.core.retries import RetryPolicy
from consumer.metrics import Metrics
from consumer.ports import Outgoing, PutOutcome, Received
from consumer.roles import Post
from consumer.wire import Codec
from tests.model.fate import Crashed, Sabotage, Weather
from tests.model.oracle import Oracle
from tests.model.processes import (
    RECORDINGS_BUCKET,
    RESULTS_BUCKET,
    ROLES,
    WORK_BUCKET,
    Coordinating,
    Factory,
    Process,
    Working,
)
from tests.model.speech import RECORDINGS, Stage

SESSION_S = 10.0
IDLE_S = 3.0
"""Time goes on faster while everybody waits."""
ROUND_S = 0.25
MAX_DEPTH = 2
"""How deep things happen inside an effect of something that happens inside an effect."""
MAX_ROUNDS = 400
POLICY = Policy(
    models=("tiny",),
    vad_policy="silero",
    plan=RetryPolicy(3, 1.0, 4.0),
    chunk=RetryPolicy(3, 1.0, 4.0),
    assembly=RetryPolicy(3, 1.0, 4.0),
    cleanup=RetryPolicy(3, 1.0, 4.0),
    chunks_in_flight=2,
    planned_ahead_s=3.0,
    progress_interval_s=0.0,
    evict_after_s=1e9,
    evict_failed_after_s=1e9,
    work_retention_s=1e9,
    keep_work_on_failure=True,
)
METRICS = Metrics()
"""Shared by all worlds: nothing is asserted on them, and a registry takes longer to make than a job to run."""


class _Broker(MemoryBroker):
    """Shows every record to the oracle as it is stored."""

    def __init__(self, oracle: Oracle, prefix: str, partitions: int) -> None:
        super().__init__({prefix + topic: partitions for topic in Topic})
        self._oracle = oracle

    def append(self, record: Outgoing) -> Received:
        stored = super().append(record)
        self._oracle.appends(stored)
        return stored


class _Store(MemoryStore):
    """Shows writes and deletions to the oracle."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(RECORDINGS_BUCKET, WORK_BUCKET, RESULTS_BUCKET)
        self._oracle = oracle

    def has(self, bucket: str, key: str) -> bool:
        return key in self._buckets[bucket].objects

    def put(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        if bucket == WORK_BUCKET:
            self._oracle.puts_work(key, data, replaces=self.has(bucket, key))
        elif bucket == RESULTS_BUCKET:
            self._oracle.puts(key)
            if key.endswith("manifest.json"):
                self._oracle.puts_manifest(key, data, set(self._buckets[bucket].objects))
        return super().put(bucket, key, data, content_type)

    def delete(self, bucket: str, keys: Any) -> int:
        asked = list(keys)
        for key in asked if bucket == WORK_BUCKET else ():
            self._oracle.deletes_work(key)
        return super().delete(bucket, asked)


@dataclass(frozen=True)
class Sent:
    """One record of a sender on `jobs`."""

    position: tuple[str, int, int]
    job_id: str | None
    """None for bytes that are no event."""
    beam_size: int = 5
    """Tells requests under one id apart: another value is another digest."""
    force: bool = False


@dataclass
class World:
    """See the module. `fickle`: the engine's text is another with every try."""

    sabotage: Sabotage | None = None
    fickle: bool = False
    partitions: int = 2
    sent: list[Sent] = field(default_factory=list)
    stage: Stage = field(default_factory=Stage)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Job id → its first request."""
    cancelled: set[str] = field(default_factory=set)
    retries: Counter[str] = field(default_factory=Counter)
    processes: list[Process] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    depth: int = 0
    is_broken: bool = False
    """A process raised what it must not: there is nothing to settle."""

    def __post_init__(self) -> None:
        self.policy, self.metrics = POLICY, METRICS
        self.weather = Weather(sabotage=self.sabotage)
        self.post = Post(Codec(None, "/model"), "m.", self.clock)
        self.oracle = Oracle(self.post, self.policy)
        self.broker = _Broker(self.oracle, "m.", self.partitions)
        self.store = _Store(self.oracle)
        for key, data in RECORDINGS.items():
            self.store.put(RECORDINGS_BUCKET, key, data)
        self._dead: list[tuple[float, Process]] = []
        self._numbers: Counter[str] = Counter()
        self._accents = 0
        self._factory = Factory(self)
        self._tick()

    def clock(self) -> float:
        return self.weather.now_s

    def accent(self) -> str:
        self._accents += 1
        return f"-{self._accents}" if self.fickle else ""

    # ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, role: str) -> Process:
        self._numbers[role] += 1
        self._suspect(*(process for process in self.processes if process.role == role))
        process = self._factory.make(role, f"{role}-{self._numbers[role]}")
        self.processes.append(process)
        return process

    def guard(self, process: Process, act: Callable[[], None]) -> None:
        """Do something of a process, which may end it."""
        try:
            act()
        except Crashed:
            assert process.fate.dead, "a crash ends the process that it befell"
        except BaseException:
            self.is_broken = True
            raise
        if not process.alive:
            self._bury(process)

    def turn(self, process: Process) -> None:
        """One round of its loop, unless it is in one."""
        if process.in_turn or not process.alive:
            return
        process.in_turn = True
        try:
            self.guard(process, process.turn)
        finally:
            process.in_turn = False
        if process.alive:
            self._look_at(process)
        if process.stop_asked:
            self.drain(process)

    def work(self, process: Process) -> None:
        if process.alive and not process.in_turn:
            self.guard(process, process.work)

    def drain(self, process: Process) -> None:
        """SIGTERM. In the midst of a turn it takes effect behind it."""
        process.stop_asked = True
        if process.alive and not process.in_turn:
            self.counts["drain"] += 1
            self._suspect(process)
            process.in_turn = True
            self.guard(process, process.drain)

    def drains_on(self, process: Working) -> None:
        """Called in each round of a loop that drains: its worker goes on, time passes."""
        process.work()
        self.advance(ROUND_S)

    def _bury(self, process: Process) -> None:
        if process not in self.processes:
            return
        self.processes.remove(process)
        if process.fate.dead:
            self.counts["death"] += 1
            self._suspect(process)
            self._dead.append((self.clock() + SESSION_S, process))

    def _suspect(self, *processes: Process) -> None:
        for process in processes:
            self.oracle.suspects.update((r.topic, r.partition, r.offset) for r in process.begun())

    def _look_at(self, process: Process) -> None:
        """Paused only when full, and never fuller than one record beyond the limit."""
        if isinstance(process, Working):
            loop = process.loop
            if any(lane.inbox.paused and not lane.paused for lane in loop._lanes):  # type: ignore[attr-defined]
                self.oracle.fail(f"{process.name} left a partition paused")
            if sum(task.weight for task in loop._tasks[:-1]) >= loop._limits.capacity:
                self.oracle.fail(f"{process.name} took more than it may")
        elif isinstance(process, Coordinating):
            held = process.coordination._partitions
            restored = {p for p, one in held.items() if one.coordinator is not None}
            if restored & process.inboxes[0].paused:
                self.oracle.fail(f"{process.name} left a restored partition paused")

    # ── what befalls them ───────────────────────────────────────────────────────────────────────────────────────────

    def expel(self, process: Process) -> None:
        """The group takes it for dead; it learns of it when it polls next."""
        self.counts["expelled"] += 1
        self._suspect(process)
        for inbox in process.inboxes:
            inbox.leave()

    def stall(self, process: Process, rounds: int) -> None:
        """It stops for longer than its session, the others take over; then it goes on where it was."""
        self.counts["stall"] += 1
        self.expel(process)
        if all(one is process or one.role != process.role for one in self.processes):
            self.start(process.role)
        self._inside(lambda: self.rounds(rounds, without=process))

    def meanwhile(self, rounds: int) -> None:
        """Others go on, and its own loop too where its worker is the one that waits."""
        self._inside(lambda: self.rounds(rounds))

    def outage(self, store: bool, seconds: float) -> None:
        """The store or the broker is away for everybody."""
        until_s = self.clock() + seconds
        if store:
            self.counts["store_outage"] += 1
            self.weather.store_away_until_s = until_s
        else:
            self.counts["broker_outage"] += 1
            self.weather.broker_away_until_s = until_s

    def wait(self, process: Process, seconds: float) -> None:
        """Its worker sleeps."""
        until_s = self.clock() + seconds
        while process.alive and self.clock() < until_s:
            self.advance(min(2 * ROUND_S, until_s - self.clock()) + 1e-6)
            self._inside(lambda: self.rounds(1))

    def _inside(self, act: Callable[[], None]) -> None:
        if self.depth < MAX_DEPTH:
            self.depth += 1
            try:
                act()
            finally:
                self.depth -= 1

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, seconds: float) -> None:
        self.weather.now_s += seconds
        self._tick()
        for due_s, process in list(self._dead):
            if due_s <= self.clock():
                self._dead.remove((due_s, process))
                for inbox in process.inboxes:
                    inbox.leave()

    def _tick(self) -> None:
        self.broker.clock_ms = int(self.clock() * 1000)

    def rounds(self, count: int, without: Process | None = None) -> None:
        """Every process does what it has to do, a few times."""
        for _ in range(count):
            for process in [one for one in self.processes if one is not without]:
                self.turn(process)
                self.work(process)
            self.advance(ROUND_S)

    # ── senders ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, job_id: str, beam_size: int = 5, **request: object) -> None:
        options = {"diarize": {"enabled": False}, "output_formats": ["txt"], "beam_size": beam_size}
        asked = {"job_id": job_id, **request, "options": {**options, **request.pop("options", {})}}  # type: ignore[dict-item]
        asked["recording"] = {"bucket": RECORDINGS_BUCKET, "key": asked.pop("key")}
        self.requests.setdefault(job_id, asked)
        self._send(json.dumps(asked).encode(), job_id, beam_size)

    def submit_again(self, job_id: str, beam_size: int, *, force: bool = False) -> None:
        """The same request; under another beam size it is another one, under the same id. By force it is a new run."""
        first = self.requests[job_id]
        asked = {**first, "options": {**first["options"], "beam_size": beam_size}, "force": force}
        self._send(json.dumps(asked).encode(), job_id, beam_size, force)

    def submit_noise(self, value: bytes) -> None:
        self._send(value, None, 0)

    def cancel(self, job_id: str) -> None:
        self.cancelled.add(job_id)
        self._control(job_id, "cancel")

    def retry(self, job_id: str) -> None:
        self.retries[job_id] += 1
        self._control(job_id, "retry")

    def _control(self, job_id: str, action: str) -> None:
        value = json.dumps({"job_id": job_id, "action": action}).encode()
        self.broker.append(Outgoing(self.post.topic(Topic.CONTROL), job_id.encode(), value))

    def _send(self, value: bytes, job_id: str | None, beam_size: int, force: bool = False) -> None:
        """Without a key that means anything: requests under one id may come in any order."""
        key = b"%d" % len(self.sent)
        at = self.broker.append(Outgoing(self.post.topic(Topic.JOBS), key, value))
        self.sent.append(Sent((at.topic, at.partition, at.offset), job_id, beam_size, force))

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def effects(self) -> int:
        return self.weather.effects

    def settle(self) -> int:
        """Turn until nothing is left to do, with a process for each role; the rounds that it took."""
        for number in range(MAX_ROUNDS):
            missing = set(ROLES) - {process.role for process in self.processes}
            for role in sorted(missing):
                self.start(role)
            if self.is_quiet():
                return number
            before = self.oracle.seen
            self.rounds(1)
            if self.oracle.seen == before:
                self.advance(IDLE_S)
        self.oracle.fail(f"not quiet after {MAX_ROUNDS} rounds: {self.unfinished()}")
        return MAX_ROUNDS

    def is_quiet(self) -> bool:
        return not self.unfinished()

    def unfinished(self) -> list[str]:
        return [*self._without_result(), *self._not_cleaned(), *self._lagging()]

    def _without_result(self) -> list[str]:
        ended = {job_id for job_id, _ in self.oracle.ended}
        open_jobs = {one.job_id for one in self.sent if one.job_id and one.position not in self.oracle.parked} - ended
        return sorted(open_jobs)

    def _not_cleaned(self) -> list[str]:
        coordinators = [process.coordination for process in self.processes if isinstance(process, Coordinating)]
        held = {p: one.coordinator for each in coordinators for p, one in each._partitions.items() if one.coordinator}
        nobodys = [f"nobody coordinates partition {p}" for p in range(self.partitions) if p not in held]
        jobs = [job for coordinator in held.values() for job in coordinator.jobs.values()]
        return [*nobodys, *(f"{job.job_id} is {job.status}" for job in jobs if job.status is not Status.CLEANED)]

    def _lagging(self) -> list[str]:
        return [f"{group} lags on {topic}" for group, topic in self.broker.groups if self.broker.lag(topic, group) > 0]
