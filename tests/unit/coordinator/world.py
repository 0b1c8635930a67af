"""A small world around the coordinator: functions that answer at once, and a log that survives crashes."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.coordinator.coordinator import Coordinator, Past
from consumer.coordinator.policy import Command, Park, Policy, Send
from consumer.coordinator.state import JobState
from consumer.core.identity import request_digest
from consumer.core.layout import Topic
from consumer.core.retries import RetryPolicy
from consumer.events import (
    ChunkTranscribed,
    ClaimCheck,
    Event,
    JobFinished,
    JobOptions,
    JobRequested,
    Priority,
    Problem,
    RecordingFacts,
    RecordingRef,
)
from consumer.work import (
    AssemblyFinished,
    AssemblyWork,
    CancelRequested,
    ChunkFailed,
    ChunkPlanned,
    ChunkWork,
    CleanupFinished,
    CleanupWork,
    JobReceived,
    OriginalRecord,
    PlanFinished,
    PlanStarted,
    PlanWork,
    RetryRequested,
)

CHUNK_S = 60.0
POLICY = Policy(
    models=("demo",),
    vad_policy="silero",
    plan=RetryPolicy(3, 1.0, 10.0),
    chunk=RetryPolicy(3, 1.0, 10.0),
    assembly=RetryPolicy(3, 1.0, 10.0),
    cleanup=RetryPolicy(3, 1.0, 10.0),
    chunks_in_flight=4,
    planned_ahead_s=3600.0,
    progress_interval_s=2.0,
    evict_after_s=1e9,
    evict_failed_after_s=1e9,
    work_retention_s=1e6,
    keep_work_on_failure=True,
)
CHECK = ClaimCheck(bucket="b", key="k", size_bytes=1, sha256="0" * 64)
AWAY = Problem(code="DECODER_CRASHED", message="m", retryable=True)
BROKEN = Problem(code="AUDIO_UNREADABLE", message="m", retryable=False)


def requested(
    job_id: str,
    *,
    options: JobOptions | None = None,
    priority: Priority = Priority.NORMAL,
    key: str = "a.wav",
    force: bool = False,
    offset: int = 0,
    received_at_s: float = 0.0,
) -> JobReceived:
    request = JobRequested(
        job_id=job_id,
        recording=RecordingRef(bucket="bucket", key=key),
        options=options or JobOptions(language="en"),
        priority=priority,
        force=force,
    )
    return JobReceived(
        job_id=job_id,
        request=request,
        request_digest=request_digest(request),
        original=OriginalRecord(topic="jobs", partition=0, offset=offset, timestamp_ms=0, value=b"{}"),
        received_at=datetime.fromtimestamp(received_at_s, UTC),
    )


def facts(chunks: int) -> RecordingFacts:
    return RecordingFacts(
        bucket="bucket",
        key="a.wav",
        etag="e",
        size_bytes=1,
        media_type="audio/x-wav",
        duration_s=CHUNK_S * chunks,
        speech_s=CHUNK_S,
        channels=1,
        sample_rate_hz=16000,
    )


def planned(job_id: str, index: int, *, epoch: int = 1, ready: bool = True, run: int = 1) -> ChunkPlanned:
    return ChunkPlanned(
        job_id=job_id,
        run=run,
        epoch=epoch,
        chunk_index=index,
        start_s=index * CHUNK_S,
        end_s=(index + 1) * CHUNK_S,
        windows=3,
        sample_ready=ready,
    )


def plan_answers(work: PlanWork, chunks: int) -> list[Event]:
    """What a planner announces for a recording of this many chunks."""
    name: dict[str, Any] = {"job_id": work.job_id, "run": work.run, "epoch": work.epoch}
    start = PlanStarted(**name, etag="e", size_bytes=1, duration_hint_s=CHUNK_S * chunks)
    announced = [planned(work.job_id, index, epoch=work.epoch, run=work.run) for index in range(chunks)]
    end = PlanFinished(**name, chunks_total=chunks, recording=facts(chunks), plan_s=1.0)
    return [start, *announced, end]


def transcribed(job_id: str, index: int, language: str | None = "en", run: int = 1) -> ChunkTranscribed:
    return ChunkTranscribed(
        job_id=job_id,
        run=run,
        chunk_index=index,
        start_s=index * CHUNK_S,
        end_s=(index + 1) * CHUNK_S,
        language=language,
        checkpoint=CHECK,
    )


def chunk_failed(work: ChunkWork, error: Problem = AWAY) -> ChunkFailed:
    return ChunkFailed(
        job_id=work.job_id, run=work.run, chunk_index=work.chunk_index, attempt=work.attempt, error=error
    )


def assembled(work: AssemblyWork) -> AssemblyFinished:
    return AssemblyFinished(job_id=work.job_id, run=work.run, manifest=CHECK, artifacts=())


@dataclass
class World:
    """The coordinator, its stored states, the events on their way to it, and everything it ever published."""

    policy: Policy = POLICY
    now_s: float = 1000.0
    states: dict[str, JobState] = field(default_factory=dict)
    published: list[Command] = field(default_factory=list)
    coordinator: Coordinator = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Kill the coordinator and restore it from what was stored."""
        self.coordinator = Coordinator(self.policy)
        self.coordinator.restore(JobState.from_bytes(state.to_bytes()) for state in self.states.values())

    def apply(self, *events: Event, past: Past | None = None, commit: bool = True) -> list[Command]:
        """One batch in one transaction; without `commit` the process dies before it."""
        for event in events:
            self.coordinator.handle(event, self.now_s, past)
        self.coordinator.tick(self.now_s)
        outcome = self.coordinator.outcome(self.now_s)
        if not commit:
            self.restart()
            return []
        for job_id, state in outcome.states.items():
            if state is None:
                self.states.pop(job_id, None)
            else:
                self.states[job_id] = state
        self.published.extend(outcome.commands)
        return list(outcome.commands)

    def sent(self, topic: Topic) -> list[Event]:
        return [c.event for c in self.published if isinstance(c, Send) and c.topic is topic]

    def parked(self) -> list[Park]:
        return [c for c in self.published if isinstance(c, Park)]

    def results(self) -> list[JobFinished]:
        return [event for event in self.sent(Topic.RESULTS) if isinstance(event, JobFinished)]

    def partials(self) -> Counter[tuple[str, int, int]]:
        """How often each chunk of each run was shown: (job, run, chunk)."""
        return Counter(
            (e.job_id, e.run, e.chunk_index) for e in self.sent(Topic.PARTIALS) if isinstance(e, ChunkTranscribed)
        )

    def play(
        self,
        requests: Sequence[JobReceived | RetryRequested | CancelRequested],
        chunks: dict[str, int],
        chance: random.Random,
    ) -> None:
        """Run all jobs to their end with functions that repeat themselves, fail, and answer in any order.

        What one function says of one job stays in its order, as the records of one producer under one key do.
        """
        streams: list[deque[Event]] = [deque([request]) for request in requests]
        for _ in range(10_000):
            streams = [stream for stream in streams if stream]
            if not streams and not any(job.is_open for job in self.coordinator.jobs.values()):
                return
            self.now_s += chance.random() * 3
            picked = [chance.choice(streams) for _ in range(chance.randint(0, 4))] if streams else []
            batch = [(stream, stream.popleft()) for stream in picked if stream]
            commit = chance.random() > 0.15
            commands = self.apply(*(event for _, event in batch), commit=commit)
            if not commit:
                for stream, event in reversed(batch):
                    stream.appendleft(event)
            events = [command.event for command in commands if isinstance(command, Send)]
            streams.extend(deque(answers) for event in events for answers in _answers(event, chunks, chance))
        raise AssertionError("the jobs did not come to an end")


def _answers(event: Event, chunks: dict[str, int], chance: random.Random) -> list[list[Event]]:
    """What the functions say, at least once."""
    repeats = 2 if chance.random() < 0.2 else 1
    match event:
        case PlanWork():
            return [plan_answers(event, chunks[event.job_id])] * repeats
        case ChunkWork():
            if event.attempt == 1 and chance.random() < 0.2:
                return [[chunk_failed(event)]] * repeats
            return [[transcribed(event.job_id, event.chunk_index, run=event.run)]] * repeats
        case AssemblyWork():
            return [[assembled(event)]] * repeats
        case CleanupWork():
            return [[CleanupFinished(job_id=event.job_id, run=event.run, removed=1, results=event.results)]] * repeats
        case _:
            return []
