"""The only place that knows every concrete class: settings in, a running system out."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from consumer import access, broker
from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import PlainOutbox, TransactionalOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.adapters.metered_store import MeteredStore
from consumer.adapters.object_store import S3Store
from consumer.adapters.registry import ConfluentRegistry
from consumer.control import ControlWatch
from consumer.coordination import Coordination
from consumer.coordinator.coordinator import Past
from consumer.coordinator.policy import Policy
from consumer.core.layout import Topic
from consumer.core.retries import RetryPolicy
from consumer.errors import Misconfigured, WhisperXError
from consumer.functions.assemble import Assemble
from consumer.functions.cleanup import CleanUp
from consumer.functions.ended import UnlessEnded
from consumer.functions.intake import Intake
from consumer.health import Health, HealthServer
from consumer.loop import Loop, LoopLimits
from consumer.metrics import Metrics
from consumer.patience import Patience
from consumer.ports import ObjectStore
from consumer.refusals import RefusalLimit
from consumer.results_lookup import known_digest, last_run
from consumer.roles import IntakeHandler, Post, WorkHandler
from consumer.settings import Settings
from consumer.tasks import Handler
from consumer.version import version
from consumer.wire import Codec
from consumer.work import AssemblyWork, ChunkWork, CleanupWork, PlanWork

if TYPE_CHECKING:
    from consumer.speech.engine import SpeechEngine

log = logging.getLogger(__name__)


class Role(StrEnum):
    """What a process does; any set of them runs in one process."""

    INTAKE = "intake"
    COORDINATE = "coordinate"
    PLAN = "plan"
    TRANSCRIBE = "transcribe"
    ASSEMBLE = "assemble"
    CLEANUP = "cleanup"


NEED_SPEECH = frozenset({Role.PLAN, Role.TRANSCRIBE, Role.ASSEMBLE})
"""Roles that ask the models: the planner only for their window lengths, the assembler for diarization's reduce."""


class Runner(Protocol):
    """A loop of any kind."""

    def run(self) -> None: ...

    def stop(self) -> None: ...

    def describe(self) -> dict[str, object]: ...


PROBE_BYTES = 1024 * 1024
"""Less would often find room on a disk that is full for everything else."""


@dataclass
class Parts:
    """The things that roles share, each made when first asked for."""

    settings: Settings
    clock: Callable[[], float] = time.time
    metrics: Metrics = field(default_factory=Metrics)
    _store: ObjectStore | None = None
    _codec: Codec | None = None
    _engine: SpeechEngine | None = None

    @property
    def health(self) -> Health:
        return self._health

    def __post_init__(self) -> None:
        kafka, worker = self.settings.kafka, self.settings.worker
        self._health = Health(poll_limit_s=kafka.max_poll_interval_s / 2, step_limit_s=worker.step_limit_s)

    @property
    def store(self) -> ObjectStore:
        if self._store is None:
            self._store = MeteredStore(S3Store.of(self.settings.store), self.metrics)
        return self._store

    @property
    def codec(self) -> Codec:
        if self._codec is None:
            registry = None
            if self.settings.registry.url:
                chosen = self.settings.registry
                registry = ConfluentRegistry(
                    chosen.url,
                    username=chosen.username,
                    password=chosen.password.get_secret_value(),
                    ca_file=chosen.ca_file,
                    auto_register=chosen.auto_register,
                )
                registry.prepare(self.settings.kafka.topic_prefix)
            self._codec = Codec(registry, f"/whisperx-consumer/{version()}")
        return self._codec

    @property
    def engine(self) -> SpeechEngine:
        if self._engine is None:
            from consumer.speech.engine import SpeechEngine  # heavy, and only some roles need it

            self._engine = SpeechEngine(self.settings.models, self.settings.device)
        return self._engine

    @property
    def post(self) -> Post:
        return Post(self.codec, self.settings.kafka.topic_prefix, self.clock)

    def patience(self, role: Role) -> Patience:
        policy = RetryPolicy(self.settings.worker.in_place_tries, 0.5, 15.0)
        return Patience(role.value, policy, self.health, self.store_serves)

    def refusals(self, role: Role) -> RefusalLimit:
        worker = self.settings.worker
        return RefusalLimit(role.value, self.health, worker.refusal_window, worker.refusal_pause_s)

    def store_serves(self) -> bool:
        """Whether the store works for others than the object that cannot be had. A write: a full disk still reads."""
        bucket, key = self.settings.store.work_bucket, f"probe/{self.worker}"
        try:
            self.store.put(bucket, key, bytes(PROBE_BYTES))
            self.store.delete(bucket, [key])
        except WhisperXError:
            return False
        return True

    # ── clients of the broker ───────────────────────────────────────────────────────────────────────────────────────

    def topic(self, topic: Topic) -> str:
        return self.settings.kafka.topic_prefix + topic.value

    def inbox(self, topic: Topic, role: Role) -> KafkaInbox:
        """One group per role and topic: then each lane has its own."""
        group = self.settings.kafka.group_prefix + access.group_of(role.value, topic)
        return KafkaInbox(self.settings.kafka, self.topic(topic), group)

    def outbox(self, role: Role) -> broker.Outbox:
        """The transactional id is stable over restarts of a container and new for each pod."""
        return self.named_outbox(f"{access.producers_of(role.value)}{self.worker}")

    def named_outbox(self, name: str) -> broker.Outbox:
        """Whoever opens one takes over from those before it under this name."""
        if not self.settings.kafka.transactions:
            return PlainOutbox(self.settings.kafka)
        return TransactionalOutbox(self.settings.kafka, f"{self.settings.kafka.group_prefix}{name}")

    @property
    def worker(self) -> str:
        """Our name among those that share servers with us."""
        return self.settings.worker.id or f"{socket.gethostname()}-{os.getpid()}"

    def control_watch(self) -> ControlWatch:
        tail = KafkaTail(self.settings.kafka, self.topic(Topic.CONTROL))
        tail.follow()
        return ControlWatch(tail, self.codec)


# ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def runner(role: Role, parts: Parts) -> Runner:
    """The loop of one role, models loaded: it joins its groups only when it runs."""
    match role:
        case Role.INTAKE:
            return _intake(parts)
        case Role.COORDINATE:
            return _coordination(parts)
        case Role.PLAN:
            return _plan(parts)
        case Role.TRANSCRIBE:
            return _transcribe(parts)
        case Role.ASSEMBLE:
            return _assemble(parts)
        case Role.CLEANUP:
            return _cleanup(parts)


def _intake(parts: Parts) -> Loop:
    role = Role.INTAKE
    handler = IntakeHandler(Intake(), parts.post, parts.patience(role), parts.refusals(role), parts.metrics)
    return _loop(parts, role, handler, capacity=32.0)


def _coordination(parts: Parts) -> Coordination:
    settings = parts.settings
    bucket = settings.store.results_bucket

    def lookup(job_id: str) -> Past:
        digest = known_digest(parts.store, bucket, job_id)
        return Past(last_run(parts.store, settings.store.work_bucket, bucket, job_id), digest)

    return Coordination(
        parts.inbox(Topic.JOB_EVENTS, Role.COORDINATE),
        KafkaTail(settings.kafka, parts.topic(Topic.JOB_STATE)),
        parts.outbox(Role.COORDINATE),
        parts.post,
        coordinator_policy(settings),
        refusals=parts.refusals(Role.COORDINATE),
        lookup=lookup,
        health=parts.health,
        metrics=parts.metrics,
        clock=parts.clock,
    )


def coordinator_policy(settings: Settings) -> Policy:
    """The numbers of one partition: what is bounded over all partitions is shared among them."""
    chosen, partitions = settings.coordinator, settings.topics.state_partitions

    def retries(attempts: int) -> RetryPolicy:
        return RetryPolicy(attempts, chosen.retry_base_s, chosen.retry_max_s)

    return Policy(
        models=settings.models.allowed,
        vad_policy=settings.vad.policy,
        plan=retries(chosen.plan_attempts),
        chunk=retries(chosen.chunk_attempts),
        assembly=retries(chosen.assembly_attempts),
        cleanup=retries(chosen.cleanup_attempts),
        chunks_in_flight=max(1, chosen.chunks_in_flight // partitions),
        planned_ahead_s=chosen.planned_ahead_s / partitions,
        progress_interval_s=chosen.progress_interval_s,
        evict_after_s=chosen.evict_after_s,
        evict_failed_after_s=max(chosen.evict_after_s, _longest_retention_s(settings)),
        work_retention_s=settings.topics.work_retention_hours * 3600.0,
        keep_work_on_failure=settings.results.keep_work_on_failure,
        may_delete_recordings=settings.limits.may_delete_recordings,
    )


def _longest_retention_s(settings: Settings) -> float:
    """As long as a request can come again, or a result of an earlier run can be read beside that of a new one."""
    return 3600.0 * max(settings.topics.jobs_retention_hours, settings.topics.results_retention_hours)


def _plan(parts: Parts) -> Loop:
    from consumer.audio.policies import WindowPolicies
    from consumer.core.chunks import ChunkShape
    from consumer.functions.plan import Plan
    from consumer.speech.vad import whisperx_scorer

    settings = parts.settings
    function = Plan(
        parts.store,
        settings.store.work_bucket,
        ChunkShape(settings.chunks.length_s, settings.chunks.overlap_s, settings.chunks.max_bytes),
        settings.limits,
        WindowPolicies(settings.vad.policy, whisperx_scorer),
        parts.engine.max_window_s,
        parts.engine.min_overlap_s,
        parts.clock,
        settings.store.results_bucket,
    )
    unless_ended = UnlessEnded(function, parts.store, settings.store.results_bucket)
    return _work_loop(parts, Role.PLAN, PlanWork, unless_ended, capacity=1.0)


def _transcribe(parts: Parts) -> Loop:
    from consumer.functions.transcribe import Transcribe

    settings = parts.settings
    parts.engine.warm_up(settings.models.allowed[0])
    parts.metrics.describe_device(parts.engine.device)
    function = Transcribe(parts.store, settings.store.work_bucket, parts.engine, parts.clock)
    unless_ended = UnlessEnded(function, parts.store, settings.store.results_bucket)
    return _work_loop(parts, Role.TRANSCRIBE, ChunkWork, unless_ended, capacity=settings.worker.handoff_s)


def _assemble(parts: Parts) -> Loop:
    store = parts.settings.store
    function = Assemble(
        parts.store,
        store.work_bucket,
        store.results_bucket,
        parts.engine,
        parts.settings.results.inline_max_bytes,
        parts.clock,
    )
    return _work_loop(parts, Role.ASSEMBLE, AssemblyWork, function, capacity=1.0)


def _cleanup(parts: Parts) -> Loop:
    buckets = parts.settings.store
    keep = parts.settings.results.keep_work_on_failure
    function = CleanUp(
        parts.store,
        buckets.work_bucket,
        buckets.results_bucket,
        keep,
        may_delete_recordings=parts.settings.limits.may_delete_recordings,
    )
    return _work_loop(parts, Role.CLEANUP, CleanupWork, function, capacity=4.0)


def _work_loop(parts: Parts, role: Role, work_type: type, function: Callable[..., object], capacity: float) -> Loop:
    watch = parts.control_watch()
    handler = WorkHandler(
        role.value,
        work_type,
        function,  # type: ignore[arg-type]  # each role pairs its own work with its own function
        parts.post,
        patience=parts.patience(role),
        refusals=parts.refusals(role),
        cancelled=watch.cancelled,
        metrics=parts.metrics,
    )
    return _loop(parts, role, handler, capacity, watch.look)


def _loop(
    parts: Parts,
    role: Role,
    handler: Handler,
    capacity: float,
    watch: Callable[[], None] = lambda: None,
) -> Loop:
    worker = parts.settings.worker
    return Loop(
        handler,
        [parts.inbox(topic, role) for topic in access.ROLES[role.value].reads],
        parts.outbox(role),
        LoopLimits(
            capacity=capacity,
            grace_s=worker.grace_s,
            revoke_wait_s=worker.revoke_wait_s,
            low_lane_share=worker.low_lane_share,
            fatal_attempts=worker.fatal_attempts,
        ),
        health=parts.health,
        metrics=parts.metrics,
        clock=time.monotonic,
        watch=watch,
    )


# ── the system ──────────────────────────────────────────────────────────────────────────────────────────────────────


class System:
    """A set of roles in one process, each loop in a thread of its own. The first that fails ends them all."""

    def __init__(self, parts: Parts, roles: Iterable[Role]) -> None:
        self.parts = parts
        self._roles = tuple(dict.fromkeys(roles))
        if not self._roles:
            raise Misconfigured("no role to run; give --roles, such as --roles all")
        self._runners: dict[Role, Runner] = {}
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._stopping = False
        names = [role.value for role in self._roles]
        parts.health.expect(names, ["start"])
        parts.metrics.follow(parts.health, names)
        parts.metrics.describe_build(version())

    def start(self) -> None:
        """Load models, then join the groups; not at all when `stop` was called meanwhile."""
        self._runners = {role: runner(role, self.parts) for role in self._roles}
        if self._stopping:
            return
        for role, loop in self._runners.items():
            thread = threading.Thread(target=self._run, args=(role, loop), name=role.value, daemon=True)
            self._threads.append(thread)
            thread.start()
        self.parts.health.set_ready("start", True)
        log.info("Started", extra={"roles": [role.value for role in self._roles], "version": version()})

    @property
    def is_starting(self) -> bool:
        """Whether models are still being loaded: then a stop is only seen after that."""
        return not self._threads

    def stop(self) -> None:
        """Drain: safe to call from a signal handler, and more than once."""
        self._stopping = True
        for loop in self._runners.values():
            loop.stop()

    def wait(self) -> None:
        """Until all loops have ended. Raises what ended the first one."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.2)
                if self._error is not None and not self._stopping:
                    self.stop()
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Raise what ended a loop, if one has failed."""
        if self._error is not None:
            raise self._error

    def describe(self) -> dict[str, object]:
        return {role.value: loop.describe() for role, loop in self._runners.items()}

    def _run(self, role: Role, loop: Runner) -> None:
        try:
            loop.run()
        except BaseException as error:
            log.error("A role has failed", extra={"role": role.value}, exc_info=error)
            self._error = self._error or error


@contextmanager
def serving(system: System) -> Iterator[None]:
    """Health and metrics over HTTP while the block runs; nothing when the port is 0. Raises Misconfigured."""
    server = system.parts.settings.server
    with ExitStack() as stack:
        if server.port:
            http = _health_server(system, server.host, server.port)
            http.start()
            stack.callback(http.stop)
        yield


def _health_server(system: System, host: str, port: int) -> HealthServer:
    try:
        return HealthServer(host, port, system.parts.health, system.parts.metrics.registry, system.describe)
    except OSError as error:
        raise Misconfigured(
            f"health and metrics cannot be served at {host}:{port}: {error.strerror}; "
            "set WHISPERX_SERVER__PORT to a port of its own for each process, or to 0 for none"
        ) from error
