"""The whole system on real servers with the stand-in engine: real bootstrap, real loops, each role in a thread."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast, get_args

from confluent_kafka import Producer

from consumer import topics
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.kafka_tail import KafkaTail
from consumer.adapters.object_store import S3Store
from consumer.bootstrap import Parts, Role, System
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.events import ChunkTranscribed, Event, JobFinished
from consumer.health import Verdict
from consumer.ports import ObjectStore, Received
from consumer.settings import Settings
from consumer.wire import Codec
from consumer.work import AssemblyFailed, AssemblyWork, ChunkFailed, ChunkWork, CleanupFailed, PlanFailed, PlanWork
from tests.integration.last_words import newest_lines, stacks
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio
from tests.standin import StandInEngine

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "demo" / "recordings" / "conversation-90s.flac"
PATIENCE_S = 120.0
PARTITIONS = 2
E = TypeVar("E", bound=Event)
Failed = PlanFailed | ChunkFailed | AssemblyFailed | CleanupFailed
ALL = tuple(Role)
OTHERS = tuple(role for role in Role if role is not Role.TRANSCRIBE)


@dataclass
class Member:
    """Some roles in this process. Its engine counts what it computes."""

    system: System
    engine: StandInEngine

    def stop(self) -> None:
        """SIGTERM's way."""
        self.system.stop()
        self.system.wait()

    def ready(self) -> Verdict:
        return self.system.parts.health.ready()

    def value(self, name: str, **labels: str) -> float:
        return self.system.parts.metrics.registry.get_sample_value(f"whisperx_{name}", labels) or 0.0


@dataclass
class ServerSystem:
    """Topics and buckets of its own. `overrides` are settings as the environment names them, without WHISPERX_."""

    kafka: Kafka
    minio: Minio
    prefix: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    kafka_servers: str = ""
    store_endpoint: str = ""
    members: list[Member] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    lines: Sequence[str] = ()
    """The newest lines of the log."""

    def __post_init__(self) -> None:
        bucket = self.prefix.strip("-")
        self.recordings, self.work, self.results = (f"{bucket}-{name}" for name in ("recordings", "work", "results"))
        self.store = S3Store(
            self.minio.endpoint,
            self.minio.access_key,
            self.minio.secret_key,
            secure=self.minio.secure,
            ca_file=self.minio.ca_file,
        )
        self.codec = Codec(None, "/tests")
        for name in (self.recordings, self.work, self.results):
            self.store.make_bucket(name)
        direct = self.settings(KAFKA__BOOTSTRAP_SERVERS=self.kafka.bootstrap_servers)
        topics.create(KafkaAdmin(direct.kafka), topics.table(self.prefix, direct.topics))
        self.reading = direct.kafka
        self._sender = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        self._tails: dict[Topic, tuple[KafkaTail, list[Received]]] = {}

    def environment(self, **overrides: str) -> dict[str, str]:
        """As an operator would set it, for a test's short times."""
        given = {
            "KAFKA__BOOTSTRAP_SERVERS": self.kafka_servers or self.kafka.bootstrap_servers,
            "KAFKA__TOPIC_PREFIX": self.prefix,
            "KAFKA__GROUP_PREFIX": self.prefix,
            "KAFKA__SESSION_TIMEOUT_S": "6",
            "KAFKA__MAX_POLL_INTERVAL_S": "30",
            "TOPICS__REPLICATION_FACTOR": "1",
            "TOPICS__MIN_INSYNC_REPLICAS": "1",
            "TOPICS__WORK_PARTITIONS": str(PARTITIONS),
            "TOPICS__STATE_PARTITIONS": str(PARTITIONS),
            "TOPICS__PUBLIC_PARTITIONS": str(PARTITIONS),
            "STORE__ENDPOINT": self.store_endpoint or self.minio.endpoint,
            "STORE__ACCESS_KEY": self.minio.access_key,
            "STORE__SECRET_KEY": self.minio.secret_key,
            "STORE__SECURE": str(self.minio.secure).lower(),
            "STORE__CA_FILE": self.minio.ca_file,
            "STORE__WORK_BUCKET": self.work,
            "STORE__RESULTS_BUCKET": self.results,
            "MODELS__ALLOWED": '["tiny"]',
            "CHUNKS__LENGTH_S": "10",
            "CHUNKS__OVERLAP_S": "5",
            "COORDINATOR__RETRY_BASE_S": "0.5",
            "WORKER__GRACE_S": "10",
            "SERVER__PORT": "0",
            **self.overrides,
            **overrides,
        }
        return {f"WHISPERX_{name}": value for name, value in given.items()}

    def settings(self, **overrides: str) -> Settings:
        before = dict(os.environ)
        try:
            os.environ.update(self.environment(**overrides))
            return Settings()
        finally:
            os.environ.clear()
            os.environ.update(before)

    # ── members ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(
        self,
        roles: Sequence[Role] = ALL,
        *,
        name: str = "one",
        chunk_s: float = 0.0,
        store: ObjectStore | None = None,
        **overrides: str,
    ) -> Member:
        """Roles in threads; each chunk takes `chunk_s`. `store` instead of that of the settings."""
        engine = StandInEngine(during=lambda _: time.sleep(chunk_s) if chunk_s else None)
        parts = Parts(self.settings(WORKER__ID=name, **overrides))
        parts._engine = engine  # type: ignore[assignment]  # the stand-in has the shape that the functions ask for
        parts._store = store
        member = Member(System(parts, roles), engine)
        member.system.start()
        self.members.append(member)
        return member

    def process(
        self, roles: Sequence[Role], *, name: str, moment: str = "", log: Path, **overrides: str
    ) -> subprocess.Popen[bytes]:
        """Roles in a process of their own, which kills itself at `moment`: see `fateful_process`."""
        command = [sys.executable, "-m", "tests.integration.fateful_process", ",".join(roles), moment]
        environment = {**os.environ, **self.environment(WORKER__ID=name, **overrides)}
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(10)
        for member in self.members:
            member.system.stop()
        for member in self.members:
            for thread in member.system._threads:
                thread.join(60)
        for tail, _ in self._tails.values():
            tail.close()
        self.store.close()

    # ── senders and readers ─────────────────────────────────────────────────────────────────────────────────────────

    def upload(self, key: str = "a.flac", file: Path = RECORDING) -> None:
        self.store.put(self.recordings, key, file.read_bytes())

    def submit(self, *job_ids: str, key: str = "a.flac", **options: object) -> None:
        for job_id in job_ids:
            event = {
                "job_id": job_id,
                "recording": {"bucket": self.recordings, "key": key},
                "options": {"language": "en", **options},
            }
            self._sender.produce(self.prefix + Topic.JOBS, json.dumps(event).encode())
        assert self._sender.flush(30) == 0

    def read(self, topic: Topic) -> list[Received]:
        """What a read_committed reader that follows the topic has seen so far."""
        if topic not in self._tails:
            tail = KafkaTail(self.reading, self.prefix + topic)
            tail.follow()
            self._tails[topic] = (tail, [])
        tail, records = self._tails[topic]
        while (record := tail.poll(0.05)) is not None:
            records.append(record)
        return records

    def everything(self, topic: Topic) -> list[Received]:
        """What such a reader sees in the end: up to the present end of every partition."""
        tail = KafkaTail(self.reading, self.prefix + topic)
        try:
            return [record for p in range(PARTITIONS) for record in tail.read_to_end(p, 60.0)]
        finally:
            tail.close()

    def events(self, topic: Topic, kind: type[E]) -> list[E]:
        """As seen so far."""
        return [self.codec.decode(record, (kind,)) for record in self.read(topic)]

    def all_events(self, topic: Topic, kind: type[E]) -> list[E]:
        return [self.codec.decode(record, (kind,)) for record in self.everything(topic)]

    def failures(self) -> list[str]:
        """Each failure of work that the coordinator was told: of what, and why."""
        records = [one for one in self.everything(Topic.JOB_EVENTS) if _kind(one).endswith("Failed")]
        events = [cast("Failed", self.codec.decode(record, get_args(Failed))) for record in records]
        return [f"{event.job_id}: {event.NAME} {event.error.code} {event.error.message}" for event in events]

    def finished(self) -> dict[str, JobFinished]:
        """By job; fails as soon as one has two results."""
        found = self.events(Topic.RESULTS, JobFinished)
        assert len({(result.job_id, result.run) for result in found}) == len(found), "one terminal event per run"
        return {result.job_id: result for result in found}

    def finish(self, *job_ids: str, timeout_s: float = PATIENCE_S) -> dict[str, JobFinished]:
        self.wait(lambda: set(job_ids) <= set(self.finished()), timeout_s=timeout_s)
        return self.finished()

    def partials(self) -> Counter[tuple[str, int]]:
        return Counter((one.job_id, one.chunk_index) for one in self.events(Topic.PARTIALS, ChunkTranscribed))

    def chunk_work(self) -> list[ChunkWork]:
        return [work for lane in CHUNK_LANES for work in self.all_events(lane, ChunkWork)]

    def attempts(self) -> set[int]:
        """Every attempt number that work was ever sent with."""
        work: list[PlanWork | ChunkWork | AssemblyWork] = [
            *self.all_events(Topic.PLAN_WORK, PlanWork),
            *self.chunk_work(),
            *self.all_events(Topic.ASSEMBLY_WORK, AssemblyWork),
        ]
        return {one.attempt for one in work}

    def transcript(self, result: JobFinished) -> bytes:
        (check,) = [one.claim_check for one in result.artifacts if one.format == "json"]
        return self.store.get(check.bucket, check.key)

    def wait(self, condition: Callable[[], bool], *, timeout_s: float = PATIENCE_S, what: str = "") -> float:
        """Until it holds; how long that took in seconds. No member may fail meanwhile."""
        began_s = time.monotonic()
        while not condition():
            if time.monotonic() - began_s > timeout_s:
                raise AssertionError(f"not reached within {timeout_s} s {what}\n{self._standing()}")
            for member in self.members:
                member.system.check()
            time.sleep(0.05)  # it happens in other threads and processes, and asking is the only way to see it
        return time.monotonic() - began_s

    def _standing(self) -> str:
        """Where every loop and thread stands, and how it came there: a hang that is rare has to tell all at once."""
        loops = [json.dumps(member.system.describe(), indent=1, default=str) for member in self.members]
        return "\n".join([*loops, *(repr(member.ready()) for member in self.members), stacks(), *self.lines])

    def assert_nothing_lost_or_doubled(self, *job_ids: str) -> None:
        """P1 and P2 for these jobs."""
        results = self.all_events(Topic.RESULTS, JobFinished)
        assert Counter(result.job_id for result in results) == Counter(job_ids)
        assert {result.status.value for result in results} == {"completed"}
        partials = Counter((one.job_id, one.chunk_index) for one in self.all_events(Topic.PARTIALS, ChunkTranscribed))
        expected = Counter((result.job_id, index) for result in results for index in range(result.chunks_total))
        assert partials == expected


def _kind(record: Received) -> str:
    """The name of the event, by its headers."""
    return (dict(record.headers)["ce_type"] or b"").decode().rpartition(".")[2]


@contextmanager
def server_system(
    kafka: Kafka, minio: Minio, prefix: str, *, kafka_servers: str = "", store_endpoint: str = "", **overrides: str
) -> Iterator[ServerSystem]:
    """A system whose members end with the block."""
    with newest_lines() as lines:
        made = ServerSystem(kafka, minio, prefix, overrides, kafka_servers, store_endpoint, lines=lines)
        try:
            yield made
        finally:
            made.close()
