"""Where things are kept: object keys and topic names. Deterministic, so that two writers meet at the same key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

WORK_PREFIX, RESULTS_PREFIX = "work/", "results/"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Object keys of one run, in the work bucket and in the results bucket."""

    job_id: str
    run: int
    work_run: int | None = None
    """The run in whose work folder it goes on: that of the failed run which a retry makes good. None: its own."""

    @property
    def work_prefix(self) -> str:
        return f"{WORK_PREFIX}{self.job_id}/{self.work_run or self.run}/"

    @property
    def results_prefix(self) -> str:
        return f"{RESULTS_PREFIX}{self.job_id}/{self.run}/"

    @property
    def manifest(self) -> str:
        return f"{self.results_prefix}manifest.json"

    @property
    def language_sample(self) -> str:
        """The first speech of the recording, 16 kHz mono s16le: what the language is detected on."""
        return f"{self.work_prefix}language-sample.pcm"

    @property
    def plan_shape(self) -> str:
        """JSON: the lengths that the first planner of this run cut with; a later one keeps to them."""
        return f"{self.work_prefix}plan-shape.json"

    def chunk_audio(self, index: int) -> str:
        """16 kHz mono s16le samples of the chunk's audio span."""
        return f"{self.work_prefix}chunks/{index:05d}.pcm"

    def chunk_plan(self, index: int) -> str:
        """JSON: the chunk's spans, windows and the digest of its audio."""
        return f"{self.work_prefix}chunks/{index:05d}.json"

    def checkpoint(self, index: int) -> str:
        """The finished work of one chunk."""
        return f"{self.work_prefix}checkpoints/{index:05d}.npz"

    def artifact(self, format_name: str) -> str:
        return f"{self.results_prefix}transcript.{format_name}"


def work_of(job_id: str) -> str:
    """Prefix of all runs of a job in the work bucket."""
    return f"{WORK_PREFIX}{job_id}/"


def results_of(job_id: str) -> str:
    """Prefix of all runs of a job in the results bucket."""
    return f"{RESULTS_PREFIX}{job_id}/"


class Topic(StrEnum):
    """Topic names without the prefix."""

    JOBS = "jobs"
    CONTROL = "control"
    PROGRESS = "progress"
    PARTIALS = "partials"
    RESULTS = "results"
    DEAD_LETTERS = "dead-letters"
    AUDIT = "audit"
    JOB_EVENTS = "job-events"
    JOB_STATE = "job-state"
    PLAN_WORK = "plan-work"
    CHUNK_WORK_HIGH = "chunk-work.high"
    CHUNK_WORK_NORMAL = "chunk-work.normal"
    CHUNK_WORK_LOW = "chunk-work.low"
    ASSEMBLY_WORK = "assembly-work"
    CLEANUP_WORK = "cleanup-work"


CHUNK_LANES = (Topic.CHUNK_WORK_HIGH, Topic.CHUNK_WORK_NORMAL, Topic.CHUNK_WORK_LOW)
"""Lanes in order of precedence."""
