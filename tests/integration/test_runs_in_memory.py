"""Several runs of one job through all functions on the fakes: forced ones, retries, cancels, workers that die."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from consumer.core.layout import Topic
from consumer.errors import Rejected
from consumer.events import ChunkTranscribed, JobFinished, JobStatus
from consumer.ports import Outgoing
from tests.integration.memory_system import RESULTS, WORK_BUCKET, MemorySystem
from tests.integration.test_whole_path_in_memory import system, transcript
from tests.standin import StandInEngine

TRANSCRIBER = 3
"""Its place among the loops of a system."""


def runs(made: MemorySystem) -> dict[int, JobFinished]:
    found = made.seen(Topic.RESULTS, JobFinished)
    assert len({result.run for result in found}) == len(found), "one terminal event per run"
    return {result.run: result for result in found}


def finish(made: MemorySystem, run: int) -> JobFinished:
    made.turn_until(lambda: run in runs(made))
    return runs(made)[run]


def control(made: MemorySystem, **fields: object) -> None:
    value = json.dumps({"job_id": "job", **fields}).encode()
    made.broker.append(Outgoing(made.post.topic(Topic.CONTROL), b"job", value))


def partials(made: MemorySystem) -> Counter[tuple[int, int]]:
    """(run, chunk) → how often it was shown."""
    return Counter((event.run, event.chunk_index) for event in made.seen(Topic.PARTIALS, ChunkTranscribed))


def work_is_gone(made: MemorySystem) -> bool:
    return not list(made.store.list_keys(WORK_BUCKET, "work/job/"))


def broken_at(index: int) -> StandInEngine:
    engine = StandInEngine()

    def during(chunk: int) -> None:
        if chunk == index:
            raise Rejected("this chunk cannot be done")

    engine.during = during
    return engine


def test_a_forced_run_takes_the_place_of_the_open_one() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    made.turn_until(lambda: bool(partials(made)))
    made.submit(job_id="job", force=True)
    second = finish(made, 2)

    first = runs(made)[1]
    assert (first.status, first.error.code if first.error else "") == (JobStatus.CANCELLED, "SUPERSEDED")
    assert (second.status, second.manifest.key if second.manifest else "") == (
        JobStatus.COMPLETED,
        "results/job/2/manifest.json",
    )
    assert set(partials(made).values()) == {1}
    made.turn_until(lambda: work_is_gone(made))
    assert list(made.store.list_keys(RESULTS, "results/job/1/")) == []


def test_a_forced_run_of_a_finished_job_says_the_same_under_its_own_keys() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    first = finish(made, 1)
    made.submit(job_id="job", force=True)
    second = finish(made, 2)
    assert transcript(made, first) == transcript(made, second)


def test_a_forced_request_that_arrives_twice_is_one_run() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    finish(made, 1)
    at = "2026-11-22T20:00:00.000Z"
    for _ in range(2):  # the sender's client repeats itself
        made.submit(job_id="job", force=True, submitted_at=at)
    finish(made, 2)
    made.submit(job_id="job")
    made.submit(job_id="next")
    made.finish("next")
    assert sorted(runs_of(made, "job")) == [1, 2]
    assert made.dead_letters() == []


def runs_of(made: MemorySystem, job_id: str) -> list[int]:
    return [result.run for result in made.seen(Topic.RESULTS, JobFinished) if result.job_id == job_id]


def test_a_retry_computes_only_what_the_failed_run_has_not_finished() -> None:
    broken = broken_at(3)
    made = system(15.0, broken)
    made.start()
    made.submit(job_id="job", options={"language": "en"})
    assert finish(made, 1).status is JobStatus.FAILED
    lane = Topic.CHUNK_WORK_NORMAL
    made.turn_until(lambda: made.broker.lag(made.post.topic(lane), f"transcribe.{lane}") == 0)
    stored = list(made.store.list_keys(WORK_BUCKET, "work/job/1/checkpoints/"))
    assert stored

    heir = StandInEngine()
    made.kill(made.loops[TRANSCRIBER])
    made.add_transcriber(heir)
    control(made, action="retry", run=1)
    control(made, action="retry", run=1)
    second = finish(made, 2)

    assert second.status is JobStatus.COMPLETED
    assert sum(heir.calls.values()) == second.chunks_total - len(stored)
    assert set(heir.calls.values()) == {1}
    assert transcript(made, second) == undisturbed()
    made.turn_until(lambda: work_is_gone(made))
    assert sorted(runs(made)) == [1, 2]


def undisturbed() -> bytes:
    made = system(15.0)
    made.start()
    made.submit(job_id="job", options={"language": "en"})
    return transcript(made, finish(made, 1))


def test_a_retry_notices_that_the_recording_was_overwritten() -> None:
    made = system(15.0, broken_at(3))
    made.start()
    made.submit(job_id="job")
    finish(made, 1)
    made.upload("a", b"something else")
    control(made, action="retry")
    second = finish(made, 2)
    assert (second.status, second.error.code if second.error else "") == (JobStatus.FAILED, "SOURCE_CHANGED")
    control(made, action="retry")
    third = finish(made, 3)
    assert third.error is not None
    assert third.error.code == "MEDIA_UNSUPPORTED"  # it was read, as nothing is pinned now


def test_a_cancelled_job_can_be_retried_although_the_control_topic_keeps_the_cancel() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    made.turn_until(lambda: bool(partials(made)))
    control(made, action="cancel")
    assert finish(made, 1).status is JobStatus.CANCELLED
    control(made, action="retry", run=1)
    assert finish(made, 2).status is JobStatus.COMPLETED
    made.kill(made.loops[TRANSCRIBER])
    made.add_transcriber()  # reads the control topic from its start, the old cancel first
    made.submit(job_id="job", force=True)
    assert finish(made, 3).status is JobStatus.COMPLETED


def test_a_later_run_can_be_cancelled_too() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    finish(made, 1)
    made.submit(job_id="job", force=True)
    made.turn_until(lambda: any(run == 2 for run, _ in partials(made)))
    control(made, action="cancel")
    assert finish(made, 2).status is JobStatus.CANCELLED
    made.turn_until(lambda: work_is_gone(made))


@pytest.mark.parametrize(("wish", "status"), [("partial", JobStatus.PARTIAL), ("fail", JobStatus.FAILED)])
def test_a_chunk_that_kills_its_workers_ends_the_job_as_its_options_say(wish: str, status: JobStatus) -> None:
    deadly = StandInEngine()

    def die(index: int) -> None:
        if index == 1:
            raise SystemExit("killed")

    deadly.during = die
    made = system(30.0, deadly)
    made.start()
    made.submit(job_id="job", options={"language": "en", "on_chunk_failure": wish})
    deaths = 0
    while not runs(made):
        try:
            finish(made, 1)
        except SystemExit:
            deaths += 1
            made.kill(made.loops[TRANSCRIBER] if deaths == 1 else made.loops[-1])
            made.add_transcriber()
    result = runs(made)[1]
    problems = [*result.warnings, *([result.error] if result.error else [])]
    assert (result.status, deaths) == (status, 3)
    assert {(problem.code, problem.chunk_index) for problem in problems} >= {("WORKER_KILLED", 1)}
