"""What is counted and said when a unit of work has ended: every answer moves its metrics and closes with one line.

The lines carry numbers and outcomes only; whose work it was, is bound by the caller (see `logs`).
"""

from __future__ import annotations

import logging

from consumer.events import ChunkTranscribed, Event
from consumer.metrics import Metrics
from consumer.work import AssemblyFinished, ChunkSkipped, ChunkWork, CleanupFinished, PlanFinished, Work

log = logging.getLogger(__name__)

MEMORY_SHORT = "GPU_MEMORY_SHORT"
"""The warning of a chunk that was saved by smaller batches or another device."""


def observe(metrics: Metrics, role: str, answer: Event, duration_s: float) -> None:
    """The work was done in `duration_s` seconds."""
    metrics.work_finished.labels(role, "done").inc()
    match answer:
        case ChunkTranscribed():
            _chunk(metrics, answer, duration_s)
        case ChunkSkipped():
            metrics.chunks_finished.labels("skipped").inc()
            log.info("Chunk skipped", extra={"reason": answer.reason, "duration_s": _rounded(duration_s)})
        case PlanFinished():
            metrics.stage_seconds.labels("plan").observe(answer.plan_s)
            fields = {"chunks": answer.chunks_total, "audio_s": answer.recording.duration_s}
            log.info("Recording planned", extra={**fields, "duration_s": _rounded(duration_s)})
        case AssemblyFinished():
            metrics.stage_seconds.labels("assemble").observe(answer.timings.assemble_s)
            fields = {"files": len(answer.artifacts), "speakers": len(answer.speakers)}
            log.info("Result assembled", extra={**fields, "duration_s": _rounded(duration_s)})
        case CleanupFinished():
            metrics.stage_seconds.labels("cleanup").observe(duration_s)
            log.info("Work removed", extra={"objects": answer.removed, "duration_s": _rounded(duration_s)})
        case _:
            log.info("Work done", extra={"answer": answer.NAME, "duration_s": _rounded(duration_s)})


def observe_failure(metrics: Metrics, role: str, code: str, work: Work | None = None) -> None:
    """The work ended in an error; `work` is None where it could not be read."""
    metrics.work_finished.labels(role, "failed").inc()
    metrics.work_failures.labels(role, code).inc()
    if isinstance(work, ChunkWork):
        metrics.chunks_finished.labels("failed").inc()


def observe_stop(metrics: Metrics, role: str, answer: Event | None = None) -> None:
    """The work was left: cancelled, or somebody else's by now."""
    metrics.work_finished.labels(role, "stopped").inc()
    if isinstance(answer, ChunkSkipped):
        metrics.chunks_finished.labels("skipped").inc()


def _chunk(metrics: Metrics, answer: ChunkTranscribed, duration_s: float) -> None:
    audio_s = answer.end_s - answer.start_s
    metrics.chunks_finished.labels("reused" if answer.reused else "computed").inc()
    if not answer.reused:
        _computed(metrics, answer, audio_s, duration_s)
    fields = {"reused": answer.reused, "audio_s": _rounded(audio_s), "duration_s": _rounded(duration_s)}
    log.info("Chunk transcribed", extra=fields)


def _computed(metrics: Metrics, answer: ChunkTranscribed, audio_s: float, duration_s: float) -> None:
    """A reused chunk brings the times and the device of its first attempt: they were counted then."""
    metrics.audio_transcribed_seconds.inc(audio_s)
    metrics.chunk_seconds.observe(duration_s)
    for name, seconds in answer.timings.model_dump().items():
        if seconds > 0:
            metrics.stage_seconds.labels(name.removesuffix("_s")).observe(seconds)
    if any(warning.code == MEMORY_SHORT for warning in answer.warnings):
        metrics.memory_short_chunks.inc()
    if answer.device:
        metrics.describe_device(answer.device)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
