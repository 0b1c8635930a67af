"""A recording of several channels: more chunks than time, and no second of it counted twice."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.core.layout import Topic
from consumer.events import JobOptions, JobProgress, JobStatus
from consumer.work import (
    AssemblyWork,
    ChunkPlanned,
    ChunkProgressed,
    ChunkWork,
    PlanFailed,
    PlanFinished,
    PlanStarted,
    PlanWork,
    RetryRequested,
)
from tests.unit.coordinator.world import BROKEN, World, assembled, chunk_failed, facts, requested, transcribed

CHUNKS = [(0, 50), (0, 70), (50, 110), (70, 120), (110, 120)]
"""Spans in order of their ends, seconds: those of channel 0 are number 0, 2 and 4, those of channel 1 the others."""


def answers(work: PlanWork, streams: int = 2) -> list[Any]:
    name: dict[str, Any] = {"job_id": work.job_id, "run": work.run, "epoch": work.epoch}
    planned = [
        ChunkPlanned(**name, chunk_index=index, start_s=start, end_s=end, windows=1, sample_ready=True)
        for index, (start, end) in enumerate(CHUNKS)
    ]
    recording = facts(2).model_copy(update={"channels": streams})
    return [
        PlanStarted(**name, etag="e", size_bytes=1, duration_hint_s=120.0, streams=streams),
        *planned,
        PlanFinished(**name, chunks_total=len(CHUNKS), recording=recording, plan_s=1.0),
    ]


def done(index: int, run: int = 1) -> Any:
    start_s, end_s = CHUNKS[index]
    return transcribed("job", index, run=run).model_copy(update={"start_s": start_s, "end_s": end_s})


def last_plan(world: World) -> PlanWork:
    work = world.sent(Topic.PLAN_WORK)[-1]
    assert isinstance(work, PlanWork)
    return work


def started() -> World:
    world = World()
    world.apply(requested("job", options=JobOptions(language="en", multichannel=True)))
    world.apply(*answers(last_plan(world)))
    return world


def told(world: World) -> JobProgress:
    event = world.sent(Topic.PROGRESS)[-1]
    assert isinstance(event, JobProgress)
    return event


def test_what_is_done_of_the_audio_never_exceeds_the_recording() -> None:
    world = started()
    seconds = []
    for index in (1, 3, 0, 2, 4):
        world.now_s += 10
        world.apply(done(index))
        seconds.append(told(world).audio_done_s)
    assert seconds == [35, 60, 85, 115, 120]
    assert told(world).audio_total_s == 120
    assert world.states["job"].audio_done_s == pytest.approx(120)
    assembly = world.sent(Topic.ASSEMBLY_WORK)[0]
    assert isinstance(assembly, AssemblyWork)
    world.apply(assembled(assembly))
    assert [(r.status, r.chunks_total) for r in world.results()] == [(JobStatus.COMPLETED, 5)]


def test_the_fraction_counts_each_channel_as_its_share() -> None:
    world = started()
    world.now_s += 10
    world.apply(done(1), done(3))  # all of one channel
    assert told(world).fraction == pytest.approx(0.05 + 0.9 / 2)
    assert told(world).eta_s == pytest.approx(10.0)


def test_progress_within_a_chunk_counts_as_its_share_too() -> None:
    world = started()
    world.now_s += 10
    world.apply(ChunkProgressed(job_id="job", run=1, chunk_index=0, fraction=0.5))
    assert told(world).fraction == pytest.approx(0.05 + 0.9 * (0.5 * 240 / 5 / 2) / 120)


def test_planned_ahead_audio_counts_every_channel() -> None:
    world = started()
    assert world.states["job"].unfinished_s == pytest.approx(240)
    world.apply(done(0))
    assert world.states["job"].unfinished_s == pytest.approx(190)


def test_the_hand_off_hears_how_long_a_chunk_is_and_not_its_share() -> None:
    world = started()
    works = [work for work in world.sent(Topic.CHUNK_WORK_NORMAL) if isinstance(work, ChunkWork)]
    assert [work.chunk_index for work in works] == [0, 1, 2, 3]
    assert works[-1].audio_s == pytest.approx(240 / 5)


def test_a_retry_goes_on_with_the_same_channels() -> None:
    world = started()
    works = [work for work in world.sent(Topic.CHUNK_WORK_NORMAL) if isinstance(work, ChunkWork)]
    world.apply(done(0), chunk_failed(works[1], BROKEN))
    assert world.results()[-1].status is JobStatus.FAILED
    world.apply(RetryRequested(job_id="job", run=1, requested_at=world.results()[-1].finished_at))
    world.apply(*answers(last_plan(world)))
    for index in range(len(CHUNKS)):
        world.apply(done(index, run=2))
    assert world.states["job"].audio_done_s == pytest.approx(120)


def test_a_plan_that_begins_again_counts_as_before() -> None:
    world = World()
    world.apply(requested("job", options=JobOptions(language="en", multichannel=True)))
    first = last_plan(world)
    world.apply(*answers(first)[:3], done(0))
    world.apply(PlanFailed(job_id="job", run=1, epoch=first.epoch, error=BROKEN.model_copy(update={"retryable": True})))
    world.now_s += 60
    world.apply()
    world.apply(*answers(last_plan(world)))
    for index in range(1, len(CHUNKS)):
        world.apply(done(index))
    assert world.states["job"].audio_done_s == pytest.approx(120)
    assert len(world.sent(Topic.ASSEMBLY_WORK)) == 1
