"""The whole system on the fakes: every role's real function, handler and loop, turned by hand in one thread."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never, TypeVar

from consumer.adapters.memory_broker import MemoryBroker, MemoryInbox, MemoryOutbox, MemoryTail
from consumer.adapters.memory_store import MemoryStore
from consumer.audio.policies import WindowPolicies
from consumer.audio.vad_whisperx import FrameScorer
from consumer.bootstrap import coordinator_policy
from consumer.control import ControlWatch
from consumer.coordination import Coordination
from consumer.coordinator.coordinator import Past
from consumer.core.chunks import ChunkShape
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.core.retries import RetryPolicy
from consumer.core.speech import Engine
from consumer.events import Event, JobFinished
from consumer.functions.assemble import Assemble
from consumer.functions.cleanup import CleanUp
from consumer.functions.intake import Intake
from consumer.functions.plan import Plan
from consumer.functions.transcribe import Transcribe
from consumer.health import Health
from consumer.loop import Loop, LoopLimits
from consumer.metrics import Metrics
from consumer.patience import Patience
from consumer.ports import Headers, Outgoing, Received
from consumer.refusals import RefusalLimit
from consumer.results_lookup import known_digest, last_run
from consumer.roles import IntakeHandler, Post, WorkHandler
from consumer.settings import ModelSettings, Settings, TopicSettings
from consumer.tasks import Handler
from consumer.wire import Codec
from consumer.work import AssemblyWork, ChunkWork, CleanupWork, PlanWork
from tests.standin import StandInEngine

RECORDINGS, WORK_BUCKET, RESULTS = "recordings", "work", "results"
E = TypeVar("E", bound=Event)
PATIENCE_S = 120.0


@dataclass
class MemorySystem:
    """`chunk_s` is the chunk length. Workers are added by role; a killed one simply is turned no more."""

    chunk_s: float = 300.0
    engine: Engine = field(default_factory=StandInEngine)
    scorer: Callable[[], FrameScorer] = field(default=lambda: no_scorer())
    settings: Settings = field(
        default_factory=lambda: Settings(
            models=ModelSettings(allowed=("tiny",)), topics=TopicSettings(state_partitions=2, work_partitions=2)
        )
    )

    def __post_init__(self) -> None:
        self.broker = MemoryBroker({"t." + topic: 2 for topic in Topic})
        self.store = MemoryStore(RECORDINGS, WORK_BUCKET, RESULTS)
        self.post = Post(Codec(None, "/test"), "t.", self.clock)
        self.metrics = Metrics()
        self.loops: list[Loop | Coordination] = []
        self.inboxes: dict[int, list[MemoryInbox]] = {}
        self.submitted = 0

    def clock(self) -> float:
        self.broker.clock_ms = int(time.time() * 1000)
        return time.time()

    def start(self) -> None:
        """One worker for each role."""
        self.add_intake()
        self.add_coordinator()
        self.add_planner()
        self.add_transcriber()
        self.add_assembler()
        self.add_cleaner()

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def add_intake(self) -> Loop:
        handler = IntakeHandler(Intake(), self.post, self._patience("intake"), self._refusals("intake"), self.metrics)
        return self._loop(handler, (Topic.CONTROL, Topic.JOBS), 16.0)

    def add_coordinator(self) -> Coordination:
        def lookup(job_id: str) -> Past:
            digest = known_digest(self.store, RESULTS, job_id)
            return Past(last_run(self.store, WORK_BUCKET, RESULTS, job_id), digest)

        inbox = MemoryInbox(self.broker, self.post.topic(Topic.JOB_EVENTS), "coordinate")
        made = Coordination(
            inbox,
            MemoryTail(self.broker, self.post.topic(Topic.JOB_STATE)),
            MemoryOutbox(self.broker),
            self.post,
            coordinator_policy(self.settings),
            refusals=self._refusals("coordinate"),
            lookup=lookup,
            health=Health(60, 60),
            metrics=self.metrics,
            clock=self.clock,
        )
        made.open()
        self.loops.append(made)
        self.inboxes[id(made)] = [inbox]
        return made

    def add_planner(self) -> Loop:
        function = Plan(
            self.store,
            WORK_BUCKET,
            ChunkShape(self.chunk_s, 30.0, 500_000_000),
            self.settings.limits,
            WindowPolicies("silero", self.scorer),
            self.engine.max_window_s,
            self.engine.min_overlap_s,
            self.clock,
        )
        return self._worker("plan", PlanWork, function, (Topic.PLAN_WORK,), 1.0)

    def add_transcriber(self, engine: Engine | None = None) -> Loop:
        function = Transcribe(self.store, WORK_BUCKET, engine or self.engine, self.clock)
        return self._worker("transcribe", ChunkWork, function, CHUNK_LANES, 1.0)

    def add_assembler(self) -> Loop:
        function = Assemble(self.store, WORK_BUCKET, RESULTS, self.engine, 128_000, self.clock)
        return self._worker("assemble", AssemblyWork, function, (Topic.ASSEMBLY_WORK,), 1.0)

    def add_cleaner(self) -> Loop:
        may_delete = self.settings.limits.may_delete_recordings
        function = CleanUp(
            self.store, WORK_BUCKET, RESULTS, keep_work_on_failure=True, may_delete_recordings=may_delete
        )
        return self._worker("cleanup", CleanupWork, function, (Topic.CLEANUP_WORK,), 4.0)

    def kill(self, loop: Loop | Coordination) -> None:
        """The process is gone: it polls no more, and the group notices."""
        self.loops.remove(loop)
        for inbox in self.inboxes[id(loop)]:
            self.broker.expire(inbox)

    def _patience(self, role: str) -> Patience:
        return Patience(role, RetryPolicy(2, 0.01, 0.02), Health(60, 60), lambda: True)

    def _refusals(self, role: str) -> RefusalLimit:
        return RefusalLimit(role, Health(60, 60), 100, 60.0)

    def _worker(
        self, role: str, work: type, function: Callable[..., Event], topics: tuple[Topic, ...], capacity: float
    ) -> Loop:
        watch = ControlWatch(MemoryTail(self.broker, self.post.topic(Topic.CONTROL)), self.post.codec)
        handler: WorkHandler[ChunkWork] = WorkHandler(
            role,
            work,
            function,
            self.post,
            patience=self._patience(role),
            refusals=self._refusals(role),
            cancelled=watch.cancelled,
            metrics=self.metrics,
        )
        return self._loop(handler, topics, capacity, watch.look)

    def _loop(
        self, handler: Handler, topics: tuple[Topic, ...], capacity: float, watch: Callable[[], None] = lambda: None
    ) -> Loop:
        inboxes = [MemoryInbox(self.broker, self.post.topic(topic), f"{handler.role}.{topic}") for topic in topics]
        loop = Loop(
            handler,
            inboxes,
            MemoryOutbox(self.broker),
            LoopLimits(capacity=capacity),
            health=Health(60, 60),
            metrics=self.metrics,
            clock=self.clock,
            watch=watch,
        )
        loop.open()
        self.loops.append(loop)
        self.inboxes[id(loop)] = inboxes
        return loop

    # ── what a sender and a reader do ───────────────────────────────────────────────────────────────────────────────

    def upload(self, key: str, data: bytes | Path) -> None:
        self.store.put(RECORDINGS, key, data if isinstance(data, bytes) else data.read_bytes())

    def submit(self, **request: object) -> None:
        """A job event as kcat would send it: JSON."""
        self.submit_raw(json.dumps({"recording": {"bucket": RECORDINGS, "key": "a"}, **request}).encode())

    def submit_raw(self, value: bytes, headers: Headers = ()) -> None:
        self.clock()
        self.submitted += 1
        self.broker.append(Outgoing(self.post.topic(Topic.JOBS), b"%d" % self.submitted, value, headers))

    def turn_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {PATIENCE_S} s"
            for loop in list(self.loops):
                loop.turn()
            time.sleep(0.001)  # lets the worker threads run; the condition decides, not the time

    def seen(self, topic: Topic, kind: type[E]) -> list[E]:
        records = self.broker.records(self.post.topic(topic))
        return [self.post.codec.decode(record, (kind,)) for record in records]

    def results(self) -> dict[str, JobFinished]:
        found = self.seen(Topic.RESULTS, JobFinished)
        assert len({(result.job_id, result.run) for result in found}) == len(found), "one terminal event per run"
        return {result.job_id: result for result in found}

    def finish(self, *job_ids: str) -> dict[str, JobFinished]:
        self.turn_until(lambda: set(job_ids) <= set(self.results()))
        return self.results()

    def dead_letters(self) -> list[Received]:
        return self.broker.records(self.post.topic(Topic.DEAD_LETTERS))


def no_scorer() -> Never:
    raise AssertionError("these jobs use silero")
