"""What the topics hold in the end, as a read_committed reader sees it, written down as facts for the checks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from consumer.contracts import CARRIED
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.events import AuditRecorded, ChunkTranscribed, Event, JobFinished, JobProgress
from consumer.ports import Received
from consumer.work import (
    AssemblyFailed,
    AssemblyWork,
    ChunkFailed,
    ChunkWork,
    CleanupFailed,
    CleanupFinished,
    CleanupWork,
    PlanFailed,
    PlanStarted,
    PlanWork,
)
from tests.acceptance.cluster import Cluster

READ = (
    Topic.RESULTS,
    Topic.PARTIALS,
    Topic.PROGRESS,
    Topic.JOB_EVENTS,
    Topic.AUDIT,
    Topic.PLAN_WORK,
    *CHUNK_LANES,
    Topic.ASSEMBLY_WORK,
    Topic.CLEANUP_WORK,
)


def write_contents(system: Cluster, partitions: dict[Topic, int], path: Path) -> None:
    """One JSON line per record that the checks want to know of."""
    with path.open("w", encoding="utf-8") as out:
        for topic in READ:
            for record in system.read(topic, partitions[topic]):
                event = system.codec.decode(record, CARRIED[topic])
                _write(out, topic, record, _noted(record, event) or _facts(system, event))
        for record in system.read(Topic.DEAD_LETTERS, partitions[Topic.DEAD_LETTERS]):
            _write(out, Topic.DEAD_LETTERS, record, _dead_letter(record))


def _write(out: Any, topic: Topic, record: Received, facts: dict[str, Any] | None) -> None:
    if facts is not None:
        place = {"topic": topic.value, "partition": record.partition, "offset": record.offset}
        out.write(json.dumps({**place, "time_s": record.timestamp_ms / 1000, **facts}) + "\n")


def _facts(system: Cluster, event: Event) -> dict[str, Any] | None:
    match event:
        case JobFinished():
            code = event.error.code if event.error else None
            shown = {"status": event.status.value, "code": code, "chunks_total": event.chunks_total}
            return {"fact": "result", **_run(event), **shown, "artifacts": dict(_artifacts(system, event))}
        case ChunkTranscribed():
            return {"fact": "transcribed", **_run(event), "chunk": event.chunk_index}
        case JobProgress():
            return {"fact": "progress", **_run(event), "sequence": event.sequence, "fraction": event.fraction}
        case PlanStarted():
            return {"fact": "reading", **_run(event), "epoch": event.epoch}
        case CleanupFinished():
            return {"fact": "cleaned", **_run(event), "results": event.results}
        case ChunkFailed() | AssemblyFailed() | CleanupFailed() | PlanFailed():
            return {"fact": "failure", **_run(event), **_attempt(event), "retryable": event.error.retryable}
        case ChunkWork() | AssemblyWork() | CleanupWork() | PlanWork():
            return {"fact": "work", **_run(event), **_attempt(event)}
        case _:
            return None


def _noted(record: Received, event: Event) -> dict[str, Any] | None:
    """An event of the audit trail, with all that its record holds."""
    if not isinstance(event, AuditRecorded):
        return None
    said = b" ".join((record.key or b"", *(value or b"" for _, value in record.headers), record.value or b""))
    (name,) = (value for header, value in record.headers if header == "ce_id")
    shown = event.model_dump(mode="json", include={"actor", "action", "target", "outcome"})
    place = {"id": (name or b"").decode(), "happened_at": event.happened_at.isoformat(timespec="milliseconds")}
    return {"fact": "noted", **_run(event), **shown, **place, "said": base64.b64encode(said).decode()}


def _run(event: Any) -> dict[str, Any]:
    return {"job": event.job_id, "run": event.run}


def _attempt(event: Event) -> dict[str, Any]:
    """Name and number of the attempt, in the words that the coordinator draws its jitter from."""
    match event:
        case ChunkWork() | ChunkFailed():
            return {"name": f"{event.job_id}/{event.chunk_index}", "attempt": event.attempt, "chunk": event.chunk_index}
        case AssemblyWork() | AssemblyFailed():
            return {"name": f"{event.job_id}/assembly", "attempt": event.attempt}
        case CleanupWork() | CleanupFailed():
            return {"name": f"{event.job_id}/cleanup", "attempt": event.attempt}
        case PlanWork() | PlanFailed():
            return {"name": f"{event.job_id}/plan", "attempt": event.epoch}
        case _:
            raise TypeError(type(event))


def _artifacts(system: Cluster, event: JobFinished) -> Iterator[tuple[str, str]]:
    """Format → SHA-256 of the bytes that are really there."""
    for artifact in event.artifacts:
        check = artifact.claim_check
        yield artifact.format, hashlib.sha256(system.store.get(check.bucket, check.key)).hexdigest()


def _dead_letter(record: Received) -> dict[str, Any]:
    return {
        "fact": "dead-letter",
        "record_key": base64.b64encode(record.key or b"").decode(),
        "value": base64.b64encode(record.value or b"").decode(),
        "headers": [[name, base64.b64encode(value or b"").decode()] for name, value in record.headers],
    }
