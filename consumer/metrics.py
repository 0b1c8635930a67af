"""Every metric: name, type, unit and meaning. docs/metrics.md is generated from here.

Names begin with `whisperx_`, carry their unit, and counters end in `_total`. Labels come from small sets: never a job
id, never an object key. There are no globals: one `Metrics` is made at start and passed down.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from consumer.health import Health

PREFIX = "whisperx_"

STAGE_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
JOB_BUCKETS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 2 * 3600, 6 * 3600, 24 * 3600)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric as the reference shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """The metrics of one process, in one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.definitions: list[Definition] = []
        self._device = ""
        ProcessCollector(registry=self.registry)  # process_resident_memory_bytes, process_cpu_seconds_total, ...

        # ── jobs (coordinate, intake) ──
        self.jobs_received = self._counter(
            "jobs_received_total", "Job requests that intake could read, duplicates too, by lane.", ["priority"]
        )
        self.jobs_finished = self._counter(
            "jobs_finished_total", "Terminal results, by status: completed, partial, failed, cancelled.", ["status"]
        )
        self.job_seconds = self._histogram(
            "job_seconds", "Seconds from the request to its terminal result.", ["status"], JOB_BUCKETS_S
        )
        self.jobs_open = self._gauge(
            "jobs_open",
            "Jobs without a terminal result on this worker's partitions, by stage: "
            "queued, planning, transcribing, assembling.",
            ["stage"],
        )
        self.backlog_audio_seconds = self._gauge(
            "backlog_audio_seconds", "Seconds of audio that are planned and not finished: what the GPUs have to do."
        )
        self.chunks_released = self._gauge(
            "chunks_released", "Chunks that are released and have not answered, by lane.", ["priority"]
        )
        self.duplicates = self._counter("duplicate_jobs_total", "Requests recognised as a duplicate of a known job.")
        self.dead_letters = self._counter(
            "dead_letters_total", "Events parked on the dead-letter topic, by error code.", ["code"]
        )

        # ── work (every role) ──
        self.work_finished = self._counter(
            "work_finished_total", "Events worked on, by role and outcome: done, failed, stopped.", ["role", "outcome"]
        )
        self.work_failures = self._counter(
            "work_failures_total", "Failed work, by role and error code (docs/errors.md).", ["role", "code"]
        )
        self.stage_seconds = self._histogram(
            "stage_seconds",
            "Seconds of wall time by stage: fetch, transcribe, align, diarize, store (each per computed chunk), plan, "
            "assemble, cleanup. A stage that did not run is not counted.",
            ["stage"],
            STAGE_BUCKETS_S,
        )

        # ── chunks and engine (transcribe) ──
        self.chunks_finished = self._counter(
            "chunks_finished_total",
            "Chunk work by outcome: computed, reused, skipped, failed (which may be tried again).",
            ["outcome"],
        )
        self.chunk_seconds = self._histogram(
            "chunk_seconds", "Seconds that a computed chunk took, its checkpoint included.", (), STAGE_BUCKETS_S
        )
        self.audio_transcribed_seconds = self._counter(
            "audio_transcribed_seconds_total", "Seconds of recording whose chunks were computed here."
        )
        self.memory_short_chunks = self._counter(
            "memory_short_chunks_total",
            "Computed chunks for which GPU memory ran out on the way: smaller batches or another device saved them.",
        )
        self.device_info = self._gauge(
            "device_info", "1, with what chunks are computed on.", ["device", "compute_type"]
        )

        # ── the loop ──
        self.handoff_audio_seconds = self._gauge(
            "handoff_audio_seconds", "Seconds of audio in the chunks taken from Kafka and not finished.", ["role"]
        )
        self.handoff_events = self._gauge("handoff_events", "Events taken from Kafka and not finished.", ["role"])
        self.poll_age_seconds = self._gauge("poll_age_seconds", "Seconds since the loop last polled Kafka.", ["role"])
        self.step_age_seconds = self._gauge(
            "step_age_seconds", "Seconds since the running work last gave a sign of life; 0: nothing runs.", ["role"]
        )
        self.assigned_partitions = self._gauge("assigned_partitions", "Partitions held by this worker.", ["topic"])
        self.paused_partitions = self._gauge("paused_partitions", "Partitions held and paused.", ["topic"])
        self.consumer_lag = self._gauge(
            "consumer_lag",
            "Records of this worker's partitions that it has not read, by its last fetches (none while paused).",
            ["topic"],
        )
        self.records_consumed = self._counter("records_consumed_total", "Records read.", ["topic"])
        self.records_published = self._counter("records_published_total", "Records the broker confirmed.", ["topic"])
        self.transactions = self._counter(
            "transactions_total", "Transactions by outcome: committed, aborted, unavailable, in_doubt.", ["outcome"]
        )
        self.transaction_seconds = self._histogram(
            "transaction_seconds", "Seconds from begin to the end of a transaction.", (), REQUEST_BUCKETS_S
        )
        self.rebalances = self._counter("rebalances_total", "Rebalances by kind: assigned, revoked, lost.", ["kind"])
        self.progress_dropped = self._counter(
            "progress_dropped_total", "Best-effort progress reports that were dropped because there was no room."
        )

        # ── what we depend on ──
        self.store_request_seconds = self._histogram(
            "store_request_seconds", "Seconds per request to the object store.", ["operation"], REQUEST_BUCKETS_S
        )
        self.store_errors = self._counter(
            "store_errors_total",
            "Requests to the object store that ended in an error, by code. OBJECT_MISSING is also an ordinary answer: "
            "each new chunk asks for a checkpoint.",
            ["operation", "code"],
        )

        # ── this process ──
        self.ready = self._gauge("ready", "1 when /readyz answers 200.")
        self.build_info = self._gauge("build_info", "1, with the version that runs.", ["version", "python"])

    def follow(self, health: Health, loops: Iterable[str]) -> None:
        """Read health when scraped, also before the first job: a loop that is stuck cannot report its own age."""
        self.ready.set_function(lambda: float(health.ready().ok))
        for loop in loops:
            self.poll_age_seconds.labels(loop).set_function(partial(health.poll_age_s, loop))
            self.step_age_seconds.labels(loop).set_function(partial(health.step_age_s, loop))

    def describe_build(self, version: str) -> None:
        self.build_info.labels(version=version, python=platform.python_version()).set(1)

    def describe_device(self, device: str) -> None:
        """Say what is computed on, such as cuda/float16; replaces what was said before (a fallback to the CPU)."""
        if device == self._device:
            return
        self._device = device
        kind, _, compute_type = device.partition("/")
        self.device_info.clear()
        self.device_info.labels(device=kind, compute_type=compute_type).set(1)

    def tell_lag(self, topic: str, lag: int | None) -> None:
        """Say how far behind the topic is; where nobody knows, no value is shown."""
        if lag is None:
            self.consumer_lag.remove(topic)
        else:
            self.consumer_lag.labels(topic).set(lag)

    def _counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(self._define(name, "counter", labels, meaning), meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(self._define(name, "gauge", labels, meaning), meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        full_name = self._define(name, "histogram", labels, meaning)
        return Histogram(full_name, meaning, labels, registry=self.registry, buckets=buckets)

    def _define(self, name: str, kind: str, labels: Sequence[str], meaning: str) -> str:
        self.definitions.append(Definition(PREFIX + name, kind, tuple(labels), meaning))
        return PREFIX + name


def reference_markdown() -> str:
    """The text of docs/metrics.md."""
    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} |"
        for metric in Metrics().definitions
    )
    return "\n".join(
        (
            "# Metrics",
            "",
            "Served at `/metrics`. Generated from `consumer/metrics.py`; do not edit. A metric has a value only where",
            "its role runs. `process_*` (resident memory, CPU seconds, open files) come from the Prometheus client.",
            "",
            "| Name | Type | Labels | Meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        )
    )
