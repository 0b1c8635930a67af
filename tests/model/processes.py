"""One process of each role, made of the product's own parts; `turn` is one round of its loop and of its work."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from consumer.control import ControlWatch
from consumer.coordination import Coordination
from consumer.coordinator.coordinator import Past
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.core.retries import RetryPolicy
from consumer.events import Event
from consumer.functions.assemble import Assemble
from consumer.functions.cleanup import CleanUp
from consumer.functions.intake import Intake
from consumer.functions.transcribe import Transcribe
from consumer.health import Health
from consumer.loop import POLL_S, Loop, LoopLimits
from consumer.patience import Patience
from consumer.ports import Attempt, Outgoing, Received
from consumer.refusals import RefusalLimit
from consumer.results_lookup import known_digest, last_run
from consumer.roles import IntakeHandler, WorkHandler
from consumer.tasks import Crash, Handler, Output, Ticket
from consumer.work import AssemblyWork, ChunkWork, CleanupWork, PlanWork, Work, keys_of
from tests.model.fate import Fate, ModelInbox, ModelOutbox, ModelStore, ModelTail
from tests.model.speech import ModelEngine, ModelPlan

if TYPE_CHECKING:
    from tests.model.world import World

W = TypeVar("W", bound=Work)

ROLES = ("intake", "coordinate", "plan", "transcribe", "assemble", "cleanup")
RECORDINGS_BUCKET, WORK_BUCKET, RESULTS_BUCKET = "recordings", "work", "results"
IN_PLACE = RetryPolicy(2, 0.5, 1.0)
GRACE_S = 5.0
FATAL_ATTEMPTS = 3


@dataclass(eq=False)
class Process:
    """What all roles have in common. `act` runs inside `World.guard`, which notes a death."""

    role: str
    name: str
    fate: Fate
    inboxes: list[ModelInbox]
    in_turn: bool = False
    """A loop is not entered twice: what happens inside an effect of it, happens to the others."""
    in_work: bool = False
    stop_asked: bool = False
    """By SIGTERM."""
    left: bool = False
    """Gone in good order."""

    @property
    def alive(self) -> bool:
        return not self.fate.dead and not self.left

    def turn(self) -> None:
        raise NotImplementedError

    def work(self) -> None:
        """Do what the loop handed to its worker."""

    def drain(self) -> None:
        raise NotImplementedError

    def begun(self) -> list[Received]:
        """Records in work, whose beginning counts if the process ends now."""
        return []


@dataclass(eq=False)
class Coordinating(Process):
    coordination: Coordination = field(init=False)

    def turn(self) -> None:
        self.coordination.turn()

    def drain(self) -> None:
        """`run`, entered with the stop that a signal has set."""
        self.coordination.stop()
        self.left = True
        self.inboxes[0].close(10.0)


class _Outputs(queue.Queue[Output | Crash]):
    """A loop that waits for its worker lets it work."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._let_work = work

    def get(self, block: bool = True, timeout: float | None = None) -> Output | Crash:
        if block and self.empty():
            self._let_work()
        return super().get(block=False)


class _ModelLoop(Loop):
    """Without threads: `Working.work` takes what is to do."""

    def _start_workers(self) -> None:
        """None; see the class."""


@dataclass(eq=False)
class Working(Process):
    loop: _ModelLoop = field(init=False)

    def turn(self) -> None:
        self.loop.turn()

    def work(self) -> None:
        while self.alive and not self.in_work and not self.loop._todo.empty():
            task = self.loop._todo.get_nowait()
            if task is not None:
                self._answer(task)

    def _answer(self, task: object) -> None:
        self.in_work = True
        try:
            self.loop._answer(task)  # type: ignore[arg-type]
        finally:
            self.in_work = False

    def drain(self) -> None:
        self.loop.stop()
        self.loop.drain()
        self.left = True
        self.loop._close()

    def begun(self) -> list[Received]:
        return [task.record for task in self.loop._tasks if task.number]


class _ModelTicket:
    """The loop's ticket with virtual time: who waits lets the others go on."""

    def __init__(self, ticket: Ticket, fate: Fate, wait: Callable[[float], None]) -> None:
        self._ticket = ticket
        self._fate = fate
        self._wait = wait

    @property
    def number(self) -> int:
        return self._ticket.number

    def announce(self, records: Sequence[Outgoing]) -> None:
        self._fate.around(lambda: self._ticket.announce(records))

    def report(self, record: Outgoing) -> None:
        self._ticket.report(record)

    def check(self) -> None:
        self._ticket.check()

    def wait(self, seconds: float) -> None:
        self._wait(seconds)
        self._ticket.check()


class _ModelHandler:
    """The role's own handler, with a ticket that counts effects."""

    def __init__(self, inner: Handler, fate: Fate, wait: Callable[[float], None]) -> None:
        self._inner = inner
        self._fate = fate
        self._wait = wait
        self.role = inner.role
        self.weighs_audio = inner.weighs_audio

    def weight(self, record: Received) -> float:
        return self._inner.weight(record)

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        self._fate.effect()
        return self._inner(record, _ModelTicket(ticket, self._fate, self._wait))

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        return self._inner.give_up(record, attempts)


@dataclass
class Factory:
    """Makes processes. What is alike for all of a role is in the world."""

    world: World

    def make(self, role: str, name: str) -> Process:
        """Made and opened; the process has joined its groups."""
        world = self.world
        fate = Fate(world.weather, world.oracle)
        if role == "coordinate":
            return self._coordinating(name, fate)
        return getattr(self, f"_{role}")(name, fate, ModelStore(world.store, fate))  # type: ignore[no-any-return]

    def _coordinating(self, name: str, fate: Fate) -> Coordinating:
        world, store = self.world, ModelStore(self.world.store, fate)

        def lookup(job_id: str) -> Past:
            digest = known_digest(store, RESULTS_BUCKET, job_id)
            return Past(last_run(store, WORK_BUCKET, RESULTS_BUCKET, job_id), digest)

        inbox = ModelInbox(world.broker, world.post.topic(Topic.JOB_EVENTS), "coordinate", fate)
        process = Coordinating("coordinate", name, fate, [inbox])
        process.coordination = Coordination(
            inbox,
            ModelTail(world.broker, world.post.topic(Topic.JOB_STATE), fate),
            ModelOutbox(world.broker, fate),
            world.post,
            world.policy,
            refusals=self._refusals(),
            lookup=lookup,
            health=Health(60, 60),
            metrics=world.metrics,
            clock=world.clock,
        )
        process.coordination.open()
        return process

    def _intake(self, name: str, fate: Fate, store: ModelStore) -> Process:
        handler = IntakeHandler(
            Intake(), self.world.post, self._patience("intake"), self._refusals(), self.world.metrics
        )
        return self._working("intake", name, fate, handler, (Topic.CONTROL, Topic.JOBS), 4.0)

    def _plan(self, name: str, fate: Fate, store: ModelStore) -> Process:
        function = ModelPlan(store, WORK_BUCKET, self.world.stage, self.world.clock)
        return self._function("plan", name, fate, PlanWork, function, (Topic.PLAN_WORK,), 1.0)

    def _transcribe(self, name: str, fate: Fate, store: ModelStore) -> Process:
        engine = ModelEngine(fate, self.world.stage, self.world.accent)
        function = Transcribe(store, WORK_BUCKET, engine, self.world.clock, progress_interval_s=0.0)

        def transcribe(work: ChunkWork, attempt: Attempt) -> Event:
            checkpoint = keys_of(work).checkpoint(work.chunk_index)
            engine.held, engine.had_checkpoint = work, self.world.store.has(WORK_BUCKET, checkpoint)
            return function(work, attempt)

        return self._function("transcribe", name, fate, ChunkWork, transcribe, CHUNK_LANES, 2 * 1.0)

    def _assemble(self, name: str, fate: Fate, store: ModelStore) -> Process:
        engine = ModelEngine(fate, self.world.stage, self.world.accent)
        function = Assemble(store, WORK_BUCKET, RESULTS_BUCKET, engine, 128_000, self.world.clock)
        return self._function("assemble", name, fate, AssemblyWork, function, (Topic.ASSEMBLY_WORK,), 1.0)

    def _cleanup(self, name: str, fate: Fate, store: ModelStore) -> Process:
        function = CleanUp(store, WORK_BUCKET, RESULTS_BUCKET, keep_work_on_failure=True)
        return self._function("cleanup", name, fate, CleanupWork, function, (Topic.CLEANUP_WORK,), 4.0)

    def _function(
        self,
        role: str,
        name: str,
        fate: Fate,
        work_type: type[W],
        function: Callable[[W, Attempt], Event],
        topics: tuple[Topic, ...],
        capacity: float,
    ) -> Process:
        world = self.world
        watch = ControlWatch(ModelTail(world.broker, world.post.topic(Topic.CONTROL), fate), world.post.codec)
        handler: WorkHandler[W] = WorkHandler(
            role,
            work_type,
            function,
            world.post,
            patience=self._patience(role),
            refusals=self._refusals(),
            cancelled=watch.cancelled,
            metrics=world.metrics,
            timer=world.clock,
        )
        return self._working(role, name, fate, handler, topics, capacity, watch.look)

    def _working(
        self,
        role: str,
        name: str,
        fate: Fate,
        handler: Handler,
        topics: tuple[Topic, ...],
        capacity: float,
        look: Callable[[], None] = lambda: None,
    ) -> Process:
        world = self.world
        inboxes = [ModelInbox(world.broker, world.post.topic(topic), f"{role}.{topic}", fate) for topic in topics]
        process = Working(role, name, fate, inboxes)

        def watch() -> None:
            look()
            if process.loop._stopping.is_set():
                world.drains_on(process)

        process.loop = _ModelLoop(
            _ModelHandler(handler, fate, lambda seconds: world.wait(process, seconds)),
            inboxes,
            ModelOutbox(world.broker, fate),
            LoopLimits(capacity=capacity, grace_s=GRACE_S, revoke_wait_s=POLL_S, fatal_attempts=FATAL_ATTEMPTS),
            health=Health(60, 60),
            metrics=world.metrics,
            clock=world.clock,
            watch=watch,
        )
        process.loop._outputs = _Outputs(process.work)
        process.loop.open()
        return process

    def _patience(self, role: str) -> Patience:
        return Patience(role, IN_PLACE, Health(60, 60), lambda: not self.world.weather.store_is_away)

    def _refusals(self) -> RefusalLimit:
        return RefusalLimit("model", Health(60, 60), 0, 60.0)
