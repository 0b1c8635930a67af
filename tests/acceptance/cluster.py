"""A cluster of real processes, started as an operator starts them: environment, command, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from consumer.adapters.kafka_tail import KafkaTail
from consumer.adapters.object_store import S3Store
from consumer.core.layout import Topic
from consumer.events import Event, JobFinished
from consumer.ports import Received
from consumer.settings import KafkaSettings
from consumer.wire import Codec
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S = 180.0
"""Importing torch, whisperx and pyannote on two busy cores takes its time."""
E = TypeVar("E", bound=Event)


@dataclass(eq=False)
class Process:
    """One `whisperx-consumer run`, with its log as JSON lines."""

    roles: str
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, object]]:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def has_said(self, sentence: str) -> bool:
        return any(line.get("message") == sentence for line in self.lines())

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout_s: float = 60.0) -> int:
        """As Kubernetes does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]


@dataclass
class Cluster:
    """Topics and buckets of its own on shared servers."""

    kafka: Kafka
    minio: Minio
    prefix: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        bucket = self.prefix.strip("-")
        self.recordings, self.work, self.results = (f"{bucket}-{name}" for name in ("recordings", "work", "results"))
        self.store = S3Store(
            self.minio.endpoint, self.minio.access_key, self.minio.secret_key, secure=self.minio.secure
        )
        self.codec = Codec(None, "/acceptance")
        self.kafka_settings = KafkaSettings(bootstrap_servers=self.kafka.bootstrap_servers, topic_prefix=self.prefix)
        for name in (self.recordings, self.work, self.results):
            self.store.make_bucket(name)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "WHISPERX_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "WHISPERX_KAFKA__TOPIC_PREFIX": self.prefix,
            "WHISPERX_KAFKA__GROUP_PREFIX": self.prefix,
            "WHISPERX_KAFKA__SESSION_TIMEOUT_S": "6",
            "WHISPERX_TOPICS__REPLICATION_FACTOR": "1",
            "WHISPERX_TOPICS__MIN_INSYNC_REPLICAS": "1",
            "WHISPERX_TOPICS__WORK_PARTITIONS": "4",
            "WHISPERX_TOPICS__STATE_PARTITIONS": "2",
            "WHISPERX_TOPICS__PUBLIC_PARTITIONS": "2",
            "WHISPERX_STORE__ENDPOINT": self.minio.endpoint,
            "WHISPERX_STORE__ACCESS_KEY": self.minio.access_key,
            "WHISPERX_STORE__SECRET_KEY": self.minio.secret_key,
            "WHISPERX_STORE__SECURE": str(self.minio.secure).lower(),
            "WHISPERX_STORE__WORK_BUCKET": self.work,
            "WHISPERX_STORE__RESULTS_BUCKET": self.results,
            "WHISPERX_MODELS__ALLOWED": '["tiny"]',
            "WHISPERX_MODELS__DIRECTORY": str(ROOT / "demo" / "models"),
            "WHISPERX_CHUNKS__LENGTH_S": "30",
            "WHISPERX_COORDINATOR__RETRY_BASE_S": "0.5",
            "WHISPERX_SERVER__PORT": "0",
            "OMP_NUM_THREADS": "1",
            **self.settings,
        }

    def command(self, *arguments: str, program: str = "whisperx-consumer") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [str(BIN / program), *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, roles: str, **extra: str) -> Process:
        """Start a process; `wait_ready` says when it takes work."""
        log = self.folder / f"{len(self.processes):02d}-{roles.replace(',', '+')}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [str(BIN / "whisperx-consumer"), "run", "--roles", roles],
                env={**self.environment(), **extra},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=sink,
            )
        started = Process(roles, process, log)
        self.processes.append(started)
        return started

    def wait_ready(self, *processes: Process) -> None:
        for process in processes:
            self.wait(lambda process=process: process.has_said("Started"), START_S)  # type: ignore[misc]

    def wait(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait for an event outside this process; polling is the only way to see it."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.report(f"not reached within {timeout_s} s")
            for process in self.processes:
                code = process.process.poll()
                assert code in (None, 0, -signal.SIGKILL), self.report(f"{process.roles} ended with {code}")
            time.sleep(0.1)

    def report(self, why: str) -> str:
        return why + "".join(f"\n--- {process.log.name}\n{process.tail()}" for process in self.processes)

    def stop(self) -> None:
        for process in self.processes:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait(10)

    # ── what senders and readers do ─────────────────────────────────────────────────────────────────────────────────

    def upload(self, key: str, file: Path) -> None:
        with file.open("rb") as source:
            self.store.upload(self.recordings, key, source)

    def read(self, topic: Topic, partitions: int = 2) -> list[Received]:
        """Everything committed on a topic, as a read_committed reader sees it."""
        tail = KafkaTail(self.kafka_settings, self.prefix + topic)
        try:
            return [record for p in range(partitions) for record in tail.read_to_end(p, 30.0)]
        finally:
            tail.close()

    def events(self, topic: Topic, kind: type[E], partitions: int = 2) -> list[E]:
        return [self.codec.decode(record, (kind,)) for record in self.read(topic, partitions)]

    def results_of(self, job_id: str) -> list[JobFinished]:
        return [result for result in self.events(Topic.RESULTS, JobFinished) if result.job_id == job_id]

    def result(self, job_id: str, timeout_s: float = 240.0) -> JobFinished:
        self.wait(lambda: bool(self.results_of(job_id)), timeout_s)
        (result,) = self.results_of(job_id)
        return result

    def artifact(self, result: JobFinished, name: str = "json") -> bytes:
        (check,) = [artifact.claim_check for artifact in result.artifacts if artifact.format == name]
        return self.store.get(check.bucket, check.key)


@contextmanager
def cluster(kafka: Kafka, minio: Minio, prefix: str, folder: Path, **settings: str) -> Iterator[Cluster]:
    """A cluster whose topics were created by the command that operators use."""
    made = Cluster(kafka, minio, prefix, folder, settings)
    created = made.command("topics", "create")
    assert created.returncode == 0, created.stderr
    try:
        yield made
    finally:
        made.stop()
