"""The life of a run, step by step."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from consumer.coordinator.coordinator import Past
from consumer.coordinator.machine import TABLE
from consumer.coordinator.state import JobState, Status
from consumer.core.audit import Action
from consumer.core.layout import Topic
from consumer.events import AuditRecorded, JobOptions, JobProgress, JobStatus, Priority, Problem
from consumer.work import (
    AssemblyFailed,
    AssemblyWork,
    CancelRequested,
    ChunkProgressed,
    ChunkSkipped,
    ChunkWork,
    CleanupFinished,
    CleanupWork,
    PlanFailed,
    PlanWork,
)
from tests.unit.coordinator.world import (
    AWAY,
    BROKEN,
    POLICY,
    World,
    assembled,
    chunk_failed,
    plan_answers,
    planned,
    requested,
    transcribed,
)


def chunk_work(world: World, lane: Topic = Topic.CHUNK_WORK_NORMAL) -> list[ChunkWork]:
    return [event for event in world.sent(lane) if isinstance(event, ChunkWork)]


def last_plan(world: World) -> PlanWork:
    work = world.sent(Topic.PLAN_WORK)[-1]
    assert isinstance(work, PlanWork)
    return work


def started(chunks: int, options: JobOptions | None = None) -> World:
    world = World()
    world.apply(requested("job", options=options))
    world.apply(*plan_answers(last_plan(world), chunks))
    return world


def test_every_status_says_what_it_does_with_every_event() -> None:
    every = set.union(*(set(row) for row in TABLE.values()))
    assert set(TABLE) == set(Status)
    assert all(set(row) == every for row in TABLE.values())


def test_a_request_is_planned_at_once_when_nothing_else_is() -> None:
    world = World()
    world.apply(requested("job"))
    work = last_plan(world)
    assert (work.epoch, work.attempt, work.options.model, work.options.vad.policy) == (1, 1, "demo", "silero")


def test_chunks_go_out_while_the_plan_goes_on() -> None:
    world = World()
    world.apply(requested("job"))
    world.apply(*plan_answers(last_plan(world), 5)[:3])
    assert [work.chunk_index for work in chunk_work(world)] == [0, 1]


def test_at_most_so_many_chunks_are_in_flight() -> None:
    world = started(9)
    assert len(chunk_work(world)) == world.policy.chunks_in_flight
    world.apply(transcribed("job", 0))
    assert len(chunk_work(world)) == world.policy.chunks_in_flight + 1


def test_a_long_job_leaves_room_for_a_short_one() -> None:
    world = started(9)
    world.apply(requested("short"))
    world.apply(*plan_answers(last_plan(world), 1))
    assert chunk_work(world)[-1].job_id == "short"


def test_each_lane_has_its_own_topic() -> None:
    world = World()
    world.apply(requested("job", priority=Priority.HIGH))
    world.apply(*plan_answers(last_plan(world), 1))
    assert len(chunk_work(world, Topic.CHUNK_WORK_HIGH)) == 1


def test_the_language_is_detected_by_one_chunk_and_pinned_for_the_others() -> None:
    world = World()
    world.apply(requested("job", options=JobOptions(language="auto")))
    plan = last_plan(world)
    world.apply(planned("job", 0, epoch=plan.epoch, ready=False))
    assert chunk_work(world) == []
    world.apply(planned("job", 1, epoch=plan.epoch), planned("job", 2, epoch=plan.epoch))
    assert [(work.chunk_index, work.language) for work in chunk_work(world)] == [(0, None)]
    world.apply(transcribed("job", 0, "de"))
    assert [(work.chunk_index, work.language) for work in chunk_work(world)[1:]] == [(1, "de"), (2, "de")]


def test_a_chunk_that_may_work_later_is_sent_again_when_it_is_due() -> None:
    world = started(1)
    world.apply(chunk_failed(chunk_work(world)[0]))
    assert len(chunk_work(world)) == 1
    world.now_s += 10
    world.apply()
    assert [work.attempt for work in chunk_work(world)] == [1, 2]


def test_a_late_failure_of_an_older_attempt_changes_nothing() -> None:
    world = started(1)
    first = chunk_work(world)[0]
    world.apply(chunk_failed(first))
    world.now_s += 10
    world.apply(chunk_failed(first))
    assert world.coordinator.jobs["job"].in_flight == {0: 2}


def test_a_chunk_past_its_attempts_fails_the_job() -> None:
    world = started(2)
    for _ in range(world.policy.chunk.attempts):
        world.apply(chunk_failed([work for work in chunk_work(world) if work.chunk_index == 0][-1]))
        world.now_s += 60
        world.apply()
    (result,) = world.results()
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.chunk_index) == (AWAY.code, 0)


def test_a_partial_result_leaves_the_failed_chunk_out() -> None:
    world = started(2, JobOptions(language="en", on_chunk_failure="partial"))
    world.apply(chunk_failed(chunk_work(world)[0], BROKEN), transcribed("job", 1))
    (assembly,) = world.sent(Topic.ASSEMBLY_WORK)
    assert isinstance(assembly, AssemblyWork)
    assert assembly.chunks_failed == (0,)
    world.apply(assembled(assembly))
    assert [(r.status, r.chunks_failed) for r in world.results()] == [(JobStatus.PARTIAL, (0,))]


def test_a_job_without_a_single_chunk_fails_even_when_partial_is_allowed() -> None:
    world = started(1, JobOptions(language="en", on_chunk_failure="partial"))
    world.apply(chunk_failed(chunk_work(world)[0], BROKEN))
    assert [result.status for result in world.results()] == [JobStatus.FAILED]


def test_lost_chunk_audio_fails_the_job_with_its_code() -> None:
    world = started(1)
    world.apply(ChunkSkipped(job_id="job", run=1, chunk_index=0, reason="gone"))
    assert [r.error.code for r in world.results() if r.error] == ["INTERMEDIATE_MISSING"]


def test_a_cancel_that_overtook_its_job_cancels_it_all_the_same() -> None:
    cancelled = Problem(code="CANCELLED", message="m")
    planning = World()
    planning.apply(requested("job"))
    planning.apply(PlanFailed(job_id="job", run=1, epoch=1, error=cancelled, cancelled_by="ada"))
    transcribing = started(1)
    transcribing.apply(ChunkSkipped(job_id="job", run=1, chunk_index=0, reason="cancelled", cancelled_by="ada"))
    assembling = started(1)
    assembling.apply(transcribed("job", 0))
    assembling.apply(AssemblyFailed(job_id="job", run=1, attempt=1, error=cancelled, cancelled_by="ada"))
    late = CancelRequested(job_id="job", requested_at=datetime.fromtimestamp(0, UTC), requested_by="bob")
    for world in (planning, transcribing, assembling):
        world.apply(late)
        assert [result.status for result in world.results()] == [JobStatus.CANCELLED]
        assert cancels(world) == [("ada", "job", "ok")], "who was first, once"


def cancels(world: World) -> list[tuple[str, str, str]]:
    """(who, what, outcome) of those in the audit trail."""
    lines = [event for event in world.sent(Topic.AUDIT) if isinstance(event, AuditRecorded)]
    return [(one.actor, one.target, one.outcome) for one in lines if one.action == Action.JOB_CANCELLED]


def test_a_second_reading_of_other_bytes_is_not_mixed_with_the_first() -> None:
    world = World()
    world.apply(requested("job"))
    start = plan_answers(last_plan(world), 1)[0]
    world.apply(start, start.model_copy(update={"etag": "overwritten"}))
    assert [r.error.code for r in world.results() if r.error] == ["SOURCE_CHANGED"]


def test_a_job_that_waits_in_vain_expires() -> None:
    world = started(1)
    world.now_s = world.policy.work_retention_s + 1
    world.apply()
    assert [r.error.code for r in world.results() if r.error] == ["JOB_EXPIRED"]


def test_a_new_run_never_meets_the_objects_of_an_old_one() -> None:
    world = World()
    world.apply(requested("job"), past=Past(last_run=3))
    assert last_plan(world).run == 4


def test_a_plan_that_may_work_later_is_asked_for_under_a_new_epoch_with_the_pinned_etag() -> None:
    world = World()
    world.apply(requested("job"))
    world.apply(plan_answers(last_plan(world), 1)[0])
    world.apply(PlanFailed(job_id="job", run=1, epoch=1, error=AWAY))
    world.now_s += 60
    world.apply()
    work = last_plan(world)
    assert (work.epoch, work.attempt, work.recording.etag) == (2, 2, "e")


def test_answers_of_an_older_plan_are_dropped() -> None:
    world = World()
    world.apply(requested("job"))
    world.apply(PlanFailed(job_id="job", run=1, epoch=1, error=AWAY))
    world.now_s += 60
    world.apply()
    world.apply(planned("job", 0, epoch=1))
    assert world.coordinator.jobs["job"].planned == 0


def test_a_refused_recording_fails_the_job_at_once() -> None:
    world = World()
    world.apply(requested("job"))
    world.apply(PlanFailed(job_id="job", run=1, epoch=1, error=BROKEN))
    assert [(r.status, r.error.code if r.error else "") for r in world.results()] == [(JobStatus.FAILED, BROKEN.code)]
    assert [type(event) for event in world.sent(Topic.CLEANUP_WORK)] == [CleanupWork]


def test_a_refused_request_ends_without_plan_and_without_cleanup() -> None:
    world = World()
    refused = requested("job").model_copy(update={"refusal": BROKEN})
    world.apply(refused)
    assert [r.status for r in world.results()] == [JobStatus.FAILED]
    assert world.sent(Topic.PLAN_WORK) == []
    assert world.sent(Topic.CLEANUP_WORK) == []


def test_a_model_that_is_not_offered_is_refused_by_its_name() -> None:
    world = World()
    world.apply(requested("job", options=JobOptions(model="huge")))
    (result,) = world.results()
    assert result.error is not None
    assert result.error.code == "MODEL_NOT_ALLOWED"
    assert "huge" in result.error.message


def test_the_same_request_twice_is_one_run() -> None:
    world = World()
    world.apply(requested("job"), requested("job"))
    assert len(world.sent(Topic.PLAN_WORK)) == 1
    assert world.parked() == []


def test_the_same_id_with_another_recording_is_parked() -> None:
    world = World()
    world.apply(requested("job"), requested("job", key="other.wav", offset=1))
    assert [park.reason.code for park in world.parked()] == ["JOB_CONFLICT"]
    assert len(world.sent(Topic.PLAN_WORK)) == 1


def test_a_duplicate_of_an_evicted_job_is_known_by_its_manifest() -> None:
    world = World()
    request = requested("job")
    world.apply(request, past=Past(1, request.request_digest))
    world.apply(requested("job", key="other.wav"), past=Past(1, request.request_digest))
    assert world.sent(Topic.PLAN_WORK) == []
    assert [park.reason.code for park in world.parked()] == ["JOB_CONFLICT"]


def test_cancel_ends_the_job_in_every_open_status_and_only_once() -> None:
    cancel = CancelRequested(job_id="job", requested_at=datetime.fromtimestamp(0, UTC), reason="wrong file")
    for world in (World(), started(2)):
        world.apply(requested("job"))
        world.apply(cancel, cancel)
        world.apply(transcribed("job", 0))
        assert [result.status for result in world.results()] == [JobStatus.CANCELLED]
        assert cancels(world) == [("intake", "job", "ok")]
        assert world.partials() == {}


def test_only_a_run_with_a_transcript_has_a_speed() -> None:
    """What was cancelled half-way did not do its recording in that time."""
    speeds = []
    for act in ("complete", "cancel", "fail"):
        world = started(1)
        world.now_s += 10.0
        if act == "complete":
            world.apply(transcribed("job", 0))
            assembly = world.sent(Topic.ASSEMBLY_WORK)[0]
            assert isinstance(assembly, AssemblyWork)
            world.apply(assembled(assembly))
        elif act == "cancel":
            world.apply(CancelRequested(job_id="job", requested_at=datetime.fromtimestamp(0, UTC)))
        else:
            world.apply(chunk_failed(chunk_work(world)[0], BROKEN))
        (result,) = world.results()
        assert result.timings.wall_s >= 10.0
        speeds.append(result.timings.real_time_factor)
    assert [speed is None for speed in speeds] == [False, True, True]


def test_a_cancel_after_the_result_changes_nothing() -> None:
    world = started(1)
    world.apply(transcribed("job", 0))
    assembly = world.sent(Topic.ASSEMBLY_WORK)[0]
    assert isinstance(assembly, AssemblyWork)
    world.apply(assembled(assembly), CancelRequested(job_id="job", requested_at=datetime.fromtimestamp(0, UTC)))
    assert [result.status for result in world.results()] == [JobStatus.COMPLETED]


def test_a_cancel_that_races_the_result_has_one_winner_whichever_is_read_first() -> None:
    cancel = CancelRequested(job_id="job", requested_at=datetime.fromtimestamp(0, UTC))
    for cancel_first in (True, False):
        world = started(1)
        world.apply(transcribed("job", 0))
        assembly = world.sent(Topic.ASSEMBLY_WORK)[0]
        assert isinstance(assembly, AssemblyWork)
        result = assembled(assembly)
        world.apply(*((cancel, result) if cancel_first else (result, cancel)))
        assert [r.status for r in world.results()] == [JobStatus.CANCELLED if cancel_first else JobStatus.COMPLETED]


def test_a_cancel_frees_the_lane_for_the_next_job_at_once() -> None:
    world = started(9)
    world.apply(requested("next"))
    world.apply(*plan_answers(last_plan(world), 9))
    before = len([work for work in chunk_work(world) if work.job_id == "next"])
    world.apply(CancelRequested(job_id="job", requested_at=datetime.fromtimestamp(0, UTC)))
    after = len([work for work in chunk_work(world) if work.job_id == "next"])
    assert (before, after) == (1, world.policy.chunks_in_flight)


@pytest.mark.parametrize(("wish", "status"), [("partial", JobStatus.PARTIAL), ("fail", JobStatus.FAILED)])
def test_a_chunk_that_kills_its_workers_ends_the_job_as_its_options_say(wish: str, status: JobStatus) -> None:
    world = started(2, JobOptions.model_validate({"language": "en", "on_chunk_failure": wish}))
    world.apply(chunk_failed(chunk_work(world)[0], Problem(code="WORKER_KILLED", message="m")), transcribed("job", 1))
    for assembly in world.sent(Topic.ASSEMBLY_WORK):
        assert isinstance(assembly, AssemblyWork)
        world.apply(assembled(assembly))
    assert [(r.status, r.error.code if r.error else "") for r in world.results()] == [(status, "WORKER_KILLED")]


def test_a_job_past_its_deadline_fails() -> None:
    world = World()
    request = requested("job")
    late = request.request.model_copy(update={"deadline_at": datetime.fromtimestamp(world.now_s + 5, UTC)})
    world.apply(request.model_copy(update={"request": late}))
    world.now_s += 6
    world.apply()
    assert [r.error.code for r in world.results() if r.error] == ["DEADLINE_PASSED"]


def test_a_request_older_than_the_work_topics_is_failed() -> None:
    world = World()
    world.now_s = world.policy.work_retention_s + 10
    world.apply(requested("job"))
    assert [r.error.code for r in world.results() if r.error] == ["JOB_EXPIRED"]


def test_a_failed_assembly_is_tried_again_and_then_given_up() -> None:
    world = started(1)
    world.apply(transcribed("job", 0))
    for attempt in range(1, world.policy.assembly.attempts + 1):
        world.apply(AssemblyFailed(job_id="job", run=1, attempt=attempt, error=AWAY))
        world.now_s += 60
        world.apply()
    assert len(world.sent(Topic.ASSEMBLY_WORK)) == world.policy.assembly.attempts
    assert [result.status for result in world.results()] == [JobStatus.FAILED]


def test_progress_within_a_chunk_moves_the_fraction_and_gives_an_eta() -> None:
    world = started(2)
    world.now_s += 10
    world.apply(ChunkProgressed(job_id="job", run=1, chunk_index=0, fraction=0.5))
    told = world.sent(Topic.PROGRESS)[-1]
    assert isinstance(told, JobProgress)
    assert 0.2 < told.fraction < 0.4
    assert told.eta_s == pytest.approx(30.0)


def test_waiting_jobs_know_their_place() -> None:
    world = World(policy=replace(POLICY, planned_ahead_s=1.0))
    world.apply(requested("first"))
    world.apply(requested("second"), requested("third"))
    told = {e.job_id: e.queue_position for e in world.sent(Topic.PROGRESS) if isinstance(e, JobProgress)}
    assert told == {"first": 1, "second": 2, "third": 3}
    assert len(world.sent(Topic.PLAN_WORK)) == 1


def test_a_finished_job_is_forgotten_after_a_while() -> None:
    world = World(policy=replace(POLICY, evict_after_s=5.0, evict_failed_after_s=5.0))
    world.apply(requested("job").model_copy(update={"refusal": BROKEN}))
    assert "job" in world.states
    world.now_s += 6
    world.apply()
    assert world.states == {}


def test_result_files_go_when_the_retention_is_over_and_not_before() -> None:
    world = started(1, JobOptions(language="en", retention_hours=2))
    world.apply(transcribed("job", 0))
    assembly = world.sent(Topic.ASSEMBLY_WORK)[0]
    assert isinstance(assembly, AssemblyWork)
    world.apply(assembled(assembly))
    world.apply(CleanupFinished(job_id="job", run=1, removed=3))
    world.now_s += 2 * 3600 - 1
    world.apply()
    assert [work.results for work in cleanups(world)] == [False]
    world.restart()
    world.now_s += 2
    world.apply()
    assert [work.results for work in cleanups(world)] == [False, True]
    world.apply(CleanupFinished(job_id="job", run=1, removed=3))  # the first cleanup, heard again
    assert [state.expired for state in world.coordinator.jobs.values()] == [False]
    world.apply(CleanupFinished(job_id="job", run=1, removed=7, results=True))
    assert [state.expired for state in world.coordinator.jobs.values()] == [True]
    world.apply()
    assert len(cleanups(world)) == 2
    assert len(world.results()) == 1


def cleanups(world: World) -> list[CleanupWork]:
    return [event for event in world.sent(Topic.CLEANUP_WORK) if isinstance(event, CleanupWork)]


def test_the_state_of_a_job_with_600_chunks_stays_small() -> None:
    world = started(600)
    for index in range(600):
        world.apply(transcribed("job", index))
    assert len(world.coordinator.jobs["job"].to_bytes()) < 4096


def test_a_state_survives_its_stored_form() -> None:
    world = started(3)
    state = world.coordinator.jobs["job"]
    assert JobState.from_bytes(state.to_bytes()) == state


def test_a_state_that_a_later_version_has_added_to_is_read() -> None:
    """A partition may go back to an older coordinator while versions change; it must not stand still there."""
    state = started(3).coordinator.jobs["job"]
    later = json.loads(state.to_bytes())
    later["mood"] = later["request"]["mood"] = later["request"]["options"]["mood"] = "good"
    assert JobState.from_bytes(json.dumps(later).encode()) == state
