"""The numbers that the coordinator decides by, and what it sends out."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.core.layout import Topic
from consumer.core.retries import RetryPolicy
from consumer.events import Event, Problem
from consumer.work import OriginalRecord


@dataclass(frozen=True, slots=True)
class Policy:
    """From the settings; `chunks_in_flight` and `planned_ahead_s` are this partition's share."""

    models: tuple[str, ...]
    vad_policy: str
    plan: RetryPolicy
    chunk: RetryPolicy
    assembly: RetryPolicy
    cleanup: RetryPolicy
    chunks_in_flight: int
    planned_ahead_s: float
    progress_interval_s: float
    evict_after_s: float
    evict_failed_after_s: float
    """Runs without a manifest: only the state can tell a late duplicate, so it stays as long as requests do."""
    work_retention_s: float
    keep_work_on_failure: bool
    """Whether cleanup keeps the work of failed runs: then a retry goes on with it."""
    may_delete_recordings: bool = False
    """Whether a job may ask for the deletion of its recording."""


@dataclass(frozen=True, slots=True)
class Send:
    """Publish this event on this topic, in the transaction of the state that it belongs to."""

    topic: Topic
    event: Event
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """Put the original record on the dead-letter topic."""

    original: OriginalRecord
    reason: Problem
    job_id: str


Command = Send | Park
