"""P1 and P2 of the coordinator: whatever the order, the repetitions and the crashes, each run ends exactly once."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from consumer.coordinator.policy import Send
from consumer.core.audit import Action
from consumer.core.layout import Topic
from consumer.events import AuditRecorded, JobOptions, JobProgress, JobStatus
from consumer.work import CancelRequested, CleanupWork, JobReceived, RetryRequested
from tests.unit.coordinator.world import BROKEN, POLICY, World, requested


@given(st.integers(0, 2**32), st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_each_run_ends_once_and_each_chunk_is_shown_once(seed: int, sizes: list[int]) -> None:
    world, chance = World(), random.Random(seed)
    chunks = {f"job-{number}": size for number, size in enumerate(sizes)}
    requests = [requested(job_id) for job_id in chunks] * 2
    chance.shuffle(requests)

    world.play(requests, chunks, chance)

    assert sorted(result.job_id for result in world.results()) == sorted(chunks)
    assert {result.status for result in world.results()} == {JobStatus.COMPLETED}
    assert world.partials() == {(job_id, 1, index): 1 for job_id, size in chunks.items() for index in range(size)}
    assert world.parked() == []


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_progress_never_goes_back_and_ends_at_one(seed: int, size: int) -> None:
    world = World()
    world.play([requested("job")], {"job": size}, random.Random(seed))
    told = [event for event in world.sent(Topic.PROGRESS) if isinstance(event, JobProgress)]
    assert [event.sequence for event in told] == sorted({event.sequence for event in told})
    assert [event.fraction for event in told] == sorted(event.fraction for event in told)
    assert told[-1].fraction == 1.0


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_cleanup_is_asked_for_only_with_the_result(seed: int, size: int) -> None:
    world = World()
    world.play([requested("job")], {"job": size}, random.Random(seed))
    topics = [command.topic for command in world.published if hasattr(command, "topic")]
    assert topics.index(Topic.CLEANUP_WORK) > topics.index(Topic.RESULTS)


@given(st.integers(0, 2**32), st.lists(st.sampled_from(["force", "again", "retry", "cancel"]), max_size=8))
def test_p6_a_recording_is_deleted_only_after_its_run_has_completed(seed: int, asked: list[str]) -> None:
    """Whatever fails, is cancelled or repeated, and wherever the coordinator dies."""
    world, chance = World(replace(POLICY, may_delete_recordings=True)), random.Random(seed)
    options, at = JobOptions(language="en", delete_recording=True), datetime.fromtimestamp(0, UTC)
    wishes: dict[str, JobReceived | RetryRequested | CancelRequested] = {
        "again": requested("job", options=options, force=True, offset=99).model_copy(update={"refusal": BROKEN}),
        "retry": RetryRequested(job_id="job", requested_at=at),
        "cancel": CancelRequested(job_id="job", requested_at=at),
    }
    forced = [requested("job", options=options, force=True, offset=n) for n in range(1, len(asked) + 1)]
    events = [wishes.get(wish) or forced[n] for n, wish in enumerate(asked)]

    world.play([requested("job", options=options), *events], {"job": 2}, chance)

    ends = {result.run: result.status for result in world.results()}
    order = [command.event for command in world.published if isinstance(command, Send)]
    deleting = [event for event in order if isinstance(event, CleanupWork) and event.recording is not None]
    for event in deleting:
        assert ends[event.run] is JobStatus.COMPLETED
        assert event.recording is not None
        assert event.recording.etag == "e"
        (result,) = [one for one in world.results() if one.run == event.run]
        assert order.index(result) < order.index(event)
    assert {run for run, status in ends.items() if status is JobStatus.COMPLETED} == {event.run for event in deleting}
    trail = [event for event in order if isinstance(event, AuditRecorded)]
    assert sorted(line.run for line in trail if line.action == Action.JOB_FINISHED) == sorted(ends), "one line per end"


@given(st.integers(0, 2**32), st.lists(st.sampled_from(["force", "again", "retry", "cancel"]), max_size=8))
def test_each_of_many_runs_of_one_job_ends_once(seed: int, asked: list[str]) -> None:
    world, chance = World(), random.Random(seed)
    at = datetime.fromtimestamp(0, UTC)
    refused = requested("job", force=True, offset=99).model_copy(update={"refusal": BROKEN})
    wishes: dict[str, JobReceived | RetryRequested | CancelRequested] = {
        "again": refused,
        "retry": RetryRequested(job_id="job", run=chance.randint(1, 3), requested_at=at),
        "cancel": CancelRequested(job_id="job", requested_at=at),
    }
    events = [wishes.get(wish) or requested("job", force=True, offset=number) for number, wish in enumerate(asked, 1)]

    world.play([requested("job"), *events, *events], {"job": 2}, chance)

    runs = [result.run for result in world.results()]
    assert sorted(runs) == list(range(1, world.coordinator.jobs["job"].run + 1))
    sendings = asked.count("force") + len({*asked} & {"again", "retry"})
    assert len(runs) <= 1 + sendings  # each was sent twice
    assert set(world.partials().values()) <= {1}
    assert world.parked() == []
