"""Several runs of one job: forced ones, retries, and what they must not forget of each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from consumer.coordinator.coordinator import Past
from consumer.coordinator.leftovers import MAX_LEFTOVERS, STRAGGLERS_S
from consumer.coordinator.state import Status
from consumer.core.layout import Topic
from consumer.events import AuditRecorded, Event, JobControl, JobOptions, JobStatus, Problem
from consumer.work import (
    AssemblyWork,
    CancelRequested,
    ChunkWork,
    CleanupFailed,
    CleanupFinished,
    CleanupWork,
    JobReceived,
    PlanFailed,
    PlanWork,
    RetryRequested,
)
from tests.unit.coordinator.world import (
    AWAY,
    BROKEN,
    POLICY,
    World,
    assembled,
    chunk_failed,
    plan_answers,
    requested,
    transcribed,
)

COMPLETED, PARTIAL = JobStatus.COMPLETED, JobStatus.PARTIAL
FAILED, CANCELLED = JobStatus.FAILED, JobStatus.CANCELLED
FORCED = requested("job", force=True, offset=1)


def retry(run: int | None = None, at_s: float = 1000.0) -> RetryRequested:
    return RetryRequested(job_id="job", run=run, requested_by="ada", requested_at=datetime.fromtimestamp(at_s, UTC))


def cancel(run: int | None = None) -> CancelRequested:
    return CancelRequested(job_id="job", run=run, requested_at=datetime.fromtimestamp(0, UTC))


def with_options(request: JobReceived, **options: object) -> JobReceived:
    wanted = JobOptions.model_validate({"language": "en", **options})
    return request.model_copy(update={"request": request.request.model_copy(update={"options": wanted})})


def plan(world: World) -> PlanWork:
    work = world.sent(Topic.PLAN_WORK)[-1]
    assert isinstance(work, PlanWork)
    return work


def chunk(world: World) -> ChunkWork:
    work = world.sent(Topic.CHUNK_WORK_NORMAL)[-1]
    assert isinstance(work, ChunkWork)
    return work


def cleanups(world: World) -> list[CleanupWork]:
    return [event for event in world.sent(Topic.CLEANUP_WORK) if isinstance(event, CleanupWork)]


def controls(world: World) -> list[tuple[str, int | None]]:
    return [(event.action, event.run) for event in world.sent(Topic.CONTROL) if isinstance(event, JobControl)]


def audited(world: World, action: str) -> list[AuditRecorded]:
    return [e for e in world.sent(Topic.AUDIT) if isinstance(e, AuditRecorded) and e.action == action]


def ends(world: World) -> list[tuple[int, JobStatus, str | None]]:
    return [(result.run, result.status, result.error.code if result.error else None) for result in world.results()]


def open_job(chunks: int = 2, request: JobReceived | None = None, world: World | None = None) -> World:
    world = world or World()
    world.apply(request or requested("job"))
    world.apply(*plan_answers(plan(world), chunks))
    return world


def completed(world: World) -> World:
    """The newest run to its end, whatever chunks it has."""
    state = world.coordinator.jobs["job"]
    for index in range(state.planned):
        world.apply(transcribed("job", index, run=state.run))
    assembly = world.sent(Topic.ASSEMBLY_WORK)[-1]
    assert isinstance(assembly, AssemblyWork)
    world.apply(assembled(assembly))
    world.apply(CleanupFinished(job_id="job", run=state.run, removed=1))
    return world


def failed(world: World | None = None, error: Problem = BROKEN) -> World:
    """The newest run is failed by its last chunk."""
    world = world or open_job()
    world.apply(chunk_failed(chunk(world), error))
    return world


class TestForced:
    def test_a_forced_request_ends_the_open_run_and_starts_the_next_in_one_transaction(self) -> None:
        world = open_job()
        commands = world.apply(FORCED)
        topics = [command.topic for command in commands if hasattr(command, "topic")]
        assert ends(world) == [(1, CANCELLED, "SUPERSEDED")]
        assert plan(world).run == 2
        assert {Topic.RESULTS, Topic.CLEANUP_WORK, Topic.CONTROL, Topic.PLAN_WORK} <= set(topics)
        assert controls(world) == [("cancel", 1)]
        assert [(e.run, e.actor) for e in audited(world, "job_forced")] == [(2, "intake")]

    def test_the_same_sending_starts_no_second_run(self) -> None:
        world = open_job()
        world.apply(FORCED)
        world.restart()
        world.apply(FORCED, requested("job"))
        world.apply(requested("job", force=True, offset=2))
        world.apply(FORCED, requested("job"))
        assert world.coordinator.jobs["job"].run == 3
        assert world.parked() == []

    def test_a_client_that_repeats_its_bytes_starts_no_second_run(self) -> None:
        world = open_job()
        at = FORCED.request.model_copy(update={"submitted_at": datetime.fromtimestamp(5, UTC)})
        first = FORCED.model_copy(update={"request": at})
        again = first.model_copy(update={"original": first.original.model_copy(update={"offset": 9})})
        world.apply(first, again)
        assert world.coordinator.jobs["job"].run == 2

    def test_a_forced_request_may_ask_for_something_else(self) -> None:
        world = open_job()
        world.apply(requested("job", force=True, offset=1, key="other.wav"))
        assert plan(world).recording.key == "other.wav"
        world.apply(requested("job", key="other.wav", offset=2))
        assert world.parked() == []

    @pytest.mark.parametrize(("past", "run"), [(Past(), 1), (Past(3, "digest"), 4)])
    def test_a_forced_request_for_a_job_that_is_not_here_starts_its_next_run(self, past: Past, run: int) -> None:
        world = World()
        world.apply(FORCED, past=past)
        assert plan(world).run == run
        assert world.results() == []

    def test_a_forced_request_that_is_refused_is_a_failed_run_of_its_own(self) -> None:
        world = completed(open_job())
        world.apply(with_options(FORCED, model="huge"))
        assert ends(world) == [(1, COMPLETED, None), (2, FAILED, "MODEL_NOT_ALLOWED")]

    def test_answers_of_the_run_before_change_nothing(self) -> None:
        world = open_job()
        world.apply(FORCED)
        before = world.coordinator.jobs["job"]
        world.apply(*plan_answers(plan(world).model_copy(update={"run": 1}), 2), transcribed("job", 0), cancel(run=1))
        assert world.coordinator.jobs["job"] == before
        assert world.partials() == {}

    def test_the_cleanup_of_the_run_before_is_noted_once_and_repeated_when_it_fails(self) -> None:
        world = failed(open_job(1))
        world.apply(FORCED)
        world.apply(CleanupFailed(job_id="job", run=1, attempt=1, error=AWAY))
        world.now_s += 10
        world.apply()
        assert [(work.run, work.attempt) for work in cleanups(world)] == [(1, 1), (1, 2)]
        done = CleanupFinished(job_id="job", run=1, removed=7)
        world.apply(done, done)
        assert [(e.run, e.target) for e in audited(world, "data_removed")] == [(1, "7 objects")]

    def test_a_state_whose_newest_run_was_forced_stays_as_long_as_requests_do(self) -> None:
        world = World(policy=replace(POLICY, evict_after_s=5.0))
        open_job(request=FORCED, world=world)
        completed(world)
        world.now_s += 6
        world.apply(FORCED)
        assert world.coordinator.jobs["job"].run == 1


class TestRetries:
    def test_a_failed_job_is_run_again_in_the_same_folder_on_the_same_bytes(self) -> None:
        world = failed()
        world.apply(retry(run=1))
        assert (plan(world).run, plan(world).work_run, plan(world).recording.etag) == (2, 1, "e")
        world.apply(*plan_answers(plan(world), 2))
        assert (chunk(world).run, chunk(world).work_run) == (2, 1)
        completed(world)
        assembly = world.sent(Topic.ASSEMBLY_WORK)[-1]
        assert isinstance(assembly, AssemblyWork)
        assert (assembly.run, assembly.work_run) == (2, 1)
        assert [(work.run, work.work_run, work.status) for work in cleanups(world)][-1] == (2, 1, COMPLETED)
        assert ends(world) == [(1, FAILED, BROKEN.code), (2, COMPLETED, None)]
        assert [(e.run, e.actor, e.outcome) for e in audited(world, "job_retried")] == [(2, "ada", "ok")]

    def test_retries_of_retries_keep_the_first_folder(self) -> None:
        world = failed()
        for run in (1, 2):
            world.apply(retry(run))
            world.apply(*plan_answers(plan(world), 2))
            failed(world)
        world.apply(retry(3))
        assert (plan(world).run, plan(world).work_run) == (4, 1)

    def test_the_language_that_was_detected_stays(self) -> None:
        world = open_job(request=requested("job", options=JobOptions(language="auto")))
        world.apply(transcribed("job", 0, "de"))
        failed(world)
        world.apply(retry(1))
        world.apply(*plan_answers(plan(world), 3))
        sent = [work for work in world.sent(Topic.CHUNK_WORK_NORMAL) if isinstance(work, ChunkWork)]
        assert [(work.chunk_index, work.language) for work in sent if work.run == 2] == [
            (0, "de"),
            (1, "de"),
            (2, "de"),
        ]

    @pytest.mark.parametrize("code", ["SOURCE_CHANGED", "OBJECT_CHANGED", "DOCUMENT_UNREADABLE"])
    def test_nothing_of_a_recording_that_was_overwritten_is_used(self, code: str) -> None:
        world = failed(error=Problem(code=code, message="m"))
        world.apply(retry(1))
        assert (plan(world).work_run, plan(world).recording.etag) == (None, None)

    def test_nothing_is_used_where_the_work_of_failed_runs_is_removed(self) -> None:
        world = failed(open_job(world=World(policy=replace(POLICY, keep_work_on_failure=False))))
        world.apply(retry(1))
        assert (plan(world).work_run, plan(world).recording.etag) == (None, None)

    def test_a_cancelled_job_starts_anew(self) -> None:
        world = open_job()
        world.apply(cancel())
        world.apply(retry(1))
        assert (plan(world).run, plan(world).work_run, plan(world).recording.etag) == (2, None, None)
        assert completed(open_job_again(world)).results()[-1].status is COMPLETED

    def test_a_partial_job_starts_anew(self) -> None:
        world = open_job(request=requested("job", options=JobOptions(language="en", on_chunk_failure="partial")))
        world.apply(chunk_failed(chunk(world), BROKEN), transcribed("job", 0))
        assembly = world.sent(Topic.ASSEMBLY_WORK)[-1]
        assert isinstance(assembly, AssemblyWork)
        world.apply(assembled(assembly), retry(1))
        assert [status for _, status, _ in ends(world)] == [PARTIAL]
        assert (plan(world).run, plan(world).work_run) == (2, None)

    def test_a_repeated_retry_changes_nothing(self) -> None:
        world = failed()
        world.apply(retry(1), retry(1))
        failed(open_job_again(world))
        world.apply(retry(1))
        assert world.coordinator.jobs["job"].run == 2
        assert [e.outcome for e in audited(world, "job_retried")] == ["ok", "NOTHING_TO_RETRY", "NOTHING_TO_RETRY"]

    @pytest.mark.parametrize("make", [World, open_job, lambda: completed(open_job())])
    def test_what_is_unknown_or_open_or_complete_is_not_retried(self, make: type[World]) -> None:
        world = make()
        before = dict(world.coordinator.jobs)
        world.apply(retry())
        assert dict(world.coordinator.jobs) == before
        assert [e.outcome for e in audited(world, "job_retried")] == ["NOTHING_TO_RETRY"]

    def test_a_retry_has_no_deadline_and_is_as_young_as_it_was_asked_for(self) -> None:
        world, request = World(), requested("job")
        late = request.request.model_copy(update={"deadline_at": datetime.fromtimestamp(world.now_s + 5, UTC)})
        world.apply(request.model_copy(update={"request": late}))
        world.now_s += world.policy.work_retention_s
        world.apply()
        world.apply(retry(1, at_s=world.now_s))
        world.apply()
        assert ends(world) == [(1, FAILED, "DEADLINE_PASSED")]
        assert (world.coordinator.jobs["job"].run, world.coordinator.jobs["job"].is_open) == (2, True)

    def test_a_request_that_was_refused_is_refused_again(self) -> None:
        world = World()
        world.apply(requested("job").model_copy(update={"refusal": BROKEN}))
        world.apply(retry(1))
        assert ends(world) == [(1, FAILED, BROKEN.code), (2, FAILED, BROKEN.code)]

    def test_a_retry_that_is_cancelled_before_its_plan_removes_the_old_folder(self) -> None:
        world = World(policy=replace(POLICY, planned_ahead_s=1.0))
        failed(open_job(world=world))
        world.apply(requested("other"))
        world.apply(retry(1), cancel(run=2))
        assert world.coordinator.jobs["job"].status is Status.FINISHED
        assert [(work.run, work.work_run) for work in cleanups(world)][-1] == (2, 1)


def open_job_again(world: World) -> World:
    world.apply(*plan_answers(plan(world), 2))
    return world


class TestWorkersAreStopped:
    @pytest.mark.parametrize("end", [cancel(), FORCED])
    def test_what_a_worker_wrote_while_it_was_being_stopped_is_removed_too(self, end: Event) -> None:
        world = open_job()
        world.apply(end)
        done = CleanupFinished(job_id="job", run=1, removed=7)
        world.apply(done, done)
        world.restart()
        assert [(work.run, work.attempt) for work in cleanups(world)] == [(1, 1)]
        world.now_s += STRAGGLERS_S
        world.apply()
        world.apply(done)
        world.apply(done)
        assert [(work.run, work.attempt) for work in cleanups(world)] == [(1, 1), (1, 1)]
        assert len(audited(world, "data_removed")) == 2
        assert world.coordinator.jobs["job"].leftovers == ()

    def test_when_a_run_ends_early_its_work_that_is_out_is_stopped(self) -> None:
        for end in (cancel(), chunk_failed(chunk(open_job(3)), BROKEN), FORCED):
            world = open_job(3)
            world.apply(end)
            assert controls(world) == [("cancel", 1)]

    def test_nobody_is_told_when_nothing_is_out(self) -> None:
        planless = World()
        planless.apply(requested("job"))
        planless.apply(PlanFailed(job_id="job", run=1, epoch=1, error=BROKEN))
        for world in (completed(open_job()), failed(open_job(1)), planless):
            assert controls(world) == []

    def test_the_coordinators_own_cancel_that_comes_back_ends_no_other_run(self) -> None:
        world = open_job()
        world.apply(FORCED)
        world.apply(cancel(run=1))
        assert world.coordinator.jobs["job"].is_open


class TestEarlierResults:
    def test_the_files_of_an_earlier_run_go_when_their_retention_is_over(self) -> None:
        hours = with_options(requested("job"), retention_hours=2)
        world = completed(open_job(request=hours, world=World(policy=replace(POLICY, evict_failed_after_s=5.0))))
        world.apply(with_options(FORCED, model="huge"))
        world.now_s += 2 * 3600 - 1
        world.apply()
        assert [work.results for work in cleanups(world)] == [False]
        assert "job" in world.states
        world.restart()
        world.now_s += 2
        world.apply()
        world.apply(CleanupFailed(job_id="job", run=1, attempt=1, error=AWAY, results=True))
        world.now_s += 10
        world.apply()
        assert [(work.run, work.attempt) for work in cleanups(world) if work.results] == [(1, 1), (1, 2)]
        world.apply(CleanupFinished(job_id="job", run=1, removed=3, results=True))
        world.apply()
        assert world.states == {}

    def test_a_cleanup_that_never_succeeds_is_given_up_and_noted(self) -> None:
        world = open_job()
        world.apply(FORCED)
        for attempt in range(1, world.policy.cleanup.attempts + 1):
            world.apply(CleanupFailed(job_id="job", run=1, attempt=attempt, error=AWAY))
            world.now_s += 60
            world.apply()
        assert [e.outcome for e in audited(world, "data_removed")] == [AWAY.code]
        assert world.coordinator.jobs["job"].leftovers == ()

    def test_a_recording_that_cannot_be_deleted_is_left_and_noted_and_the_job_stays_completed(self) -> None:
        wish = with_options(requested("job"), delete_recording=True)
        world = open_job(request=wish, world=World(replace(POLICY, may_delete_recordings=True)))
        for index in range(world.coordinator.jobs["job"].planned):
            world.apply(transcribed("job", index))
        (assembly,) = world.sent(Topic.ASSEMBLY_WORK)
        assert isinstance(assembly, AssemblyWork)
        world.apply(assembled(assembly))
        assert cleanups(world)[0].recording is not None
        for attempt in range(1, world.policy.cleanup.attempts + 1):
            world.apply(CleanupFailed(job_id="job", run=1, attempt=attempt, error=AWAY))
            world.now_s += 60
            world.apply()
        assert len(cleanups(world)) == world.policy.cleanup.attempts
        assert [e.outcome for e in audited(world, "recording_kept")] == [AWAY.code]
        assert [result.status for result in world.results()] == [JobStatus.COMPLETED]

    def test_what_is_to_be_deleted_is_what_the_first_plan_of_the_run_found(self) -> None:
        """A later plan may find the same bytes, uploaded again for another job; a later run was asked for with them."""
        uploaded = [datetime.fromtimestamp(at_s, UTC) for at_s in (100, 200, 300)]
        wish = with_options(requested("job"), delete_recording=True)
        world = World(replace(POLICY, may_delete_recordings=True))
        world.apply(wish)
        for at, error in zip(uploaded, (AWAY, BROKEN), strict=False):
            work = plan(world)
            started = plan_answers(work, 1)[0].model_copy(update={"modified_at": at})
            world.apply(started, PlanFailed(job_id="job", run=1, epoch=work.epoch, error=error))
            world.restart()
            world.now_s += 100.0
            world.apply()
        assert world.coordinator.jobs["job"].modified_at_s == 100
        world.apply(retry())
        started, *planned = plan_answers(plan(world), 1)
        world.apply(started.model_copy(update={"modified_at": uploaded[2]}), *planned)
        completed(world)
        assert [work.modified_at for work in cleanups(world) if work.recording] == [uploaded[2]]

    def test_however_often_a_job_is_forced_its_state_stays_small(self) -> None:
        world = completed(open_job(request=with_options(requested("job"), retention_hours=2)))
        for number in range(1, 40):
            world.apply(with_options(requested("job", force=True, offset=number), retention_hours=2))
            completed(open_job_again(world))
        state = world.coordinator.jobs["job"]
        assert len(state.leftovers) == MAX_LEFTOVERS
        assert len(state.to_bytes()) < 4096
        gone = [work.run for work in cleanups(world) if work.results]
        assert gone == list(range(1, 40 - MAX_LEFTOVERS))


class TestTheTrailOfReading:
    def test_a_try_that_could_not_begin_to_read_is_in_the_trail_with_its_code(self) -> None:
        world = World()
        world.apply(requested("job"))
        first = plan(world)
        world.apply(PlanFailed(job_id="job", run=1, epoch=first.epoch, error=AWAY))
        world.now_s += 100.0
        world.apply()
        world.apply(PlanFailed(job_id="job", run=1, epoch=plan(world).epoch, error=BROKEN))
        assert ends(world) == [(1, FAILED, BROKEN.code)]
        assert [e.outcome for e in audited(world, "recording_read")] == [AWAY.code, BROKEN.code]

    def test_a_planner_that_began_to_read_and_then_failed_has_one_line(self) -> None:
        world = World()
        world.apply(requested("job"))
        work = plan(world)
        world.apply(plan_answers(work, 1)[0], PlanFailed(job_id="job", run=1, epoch=work.epoch, error=BROKEN))
        assert [e.outcome for e in audited(world, "recording_read")] == ["ok"]

    def test_a_planner_whose_run_ended_before_it_said_that_it_reads_is_in_the_trail_once(self) -> None:
        world = World()
        world.apply(requested("job"))
        world.apply(cancel())
        late = plan_answers(plan(world), 1)[0]
        world.apply(late)
        world.apply(late)
        assert ends(world) == [(1, CANCELLED, "CANCELLED")]
        assert [(e.run, e.outcome) for e in audited(world, "recording_read")] == [(1, "ok")]
