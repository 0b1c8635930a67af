"""The trail that whole jobs leave on the fakes: which lines, in which order, by whom, and what is never in them."""

from __future__ import annotations

import json
import logging

import pytest

from consumer.core.audit import MEANING, Action
from consumer.core.layout import Topic
from consumer.errors import MissingObject
from consumer.events import AuditRecorded, JobStatus
from consumer.settings import LimitSettings, ModelSettings, Settings, TopicSettings
from consumer.work import CancelRequested
from tests.integration.memory_system import RECORDINGS, MemorySystem
from tests.integration.test_runs_in_memory import broken_at, control
from tests.integration.test_whole_path_in_memory import system
from tests.standin import StandInEngine

SECRET = "Rumpelstilzchen"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def started(*, deletion: bool = False, engine: StandInEngine | None = None) -> MemorySystem:
    made = system(30.0)
    made.engine = engine or made.engine
    made.settings = settings(deletion)
    made.start()
    return made


def settings(deletion: bool) -> Settings:
    return Settings(
        models=ModelSettings(allowed=("tiny",)),
        topics=TopicSettings(state_partitions=2, work_partitions=2),
        limits=LimitSettings(may_delete_recordings=deletion),
    )


def trail(made: MemorySystem, last: Action) -> list[tuple[str, str, str]]:
    """(actor, action, outcome) of all lines, once there is one of the last action."""
    made.turn_until(lambda: any(line.action == last for line in made.seen(Topic.AUDIT, AuditRecorded)))
    return [(line.actor, line.action, line.outcome) for line in made.seen(Topic.AUDIT, AuditRecorded)]


def test_a_completed_job_that_gives_its_recording_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "consumer.audit")
    made = started(deletion=True)
    made.submit(job_id="job", submitted_by="ada", options={"delete_recording": True})
    assert trail(made, Action.RECORDING_DELETED) == [
        ("ada", "job_accepted", "ok"),
        ("plan", "recording_read", "ok"),
        ("assemble", "result_written", "ok"),
        ("coordinate", "job_finished", "ok"),
        ("cleanup", "data_removed", "ok"),
        ("cleanup", "recording_deleted", "ok"),
    ]
    with pytest.raises(MissingObject):
        made.store.stat(RECORDINGS, "a")
    lines = [vars(record) for record in caplog.records if record.name == "consumer.audit"]
    assert [line["action"] for line in lines] == [line.action for line in made.seen(Topic.AUDIT, AuditRecorded)]


def test_a_job_that_may_not_ask_for_that_is_refused_by_name_and_its_recording_stays() -> None:
    made = started()
    made.submit(job_id="job", options={"delete_recording": True})
    result = made.finish("job")["job"]
    assert result.error is not None
    assert (result.error.code, "options.delete_recording" in result.error.message) == ("DELETION_NOT_ALLOWED", True)
    assert trail(made, Action.JOB_FINISHED) == [
        ("intake", "job_refused", "DELETION_NOT_ALLOWED"),
        ("coordinate", "job_finished", "DELETION_NOT_ALLOWED"),
    ]
    assert made.store.stat(RECORDINGS, "a").size_bytes > 0


def test_a_recording_stays_when_the_deletion_is_forbidden_before_it_is_due() -> None:
    """The job was admitted when it was allowed; the cleaner was started with the settings of now."""
    made = system(30.0)
    made.settings = settings(deletion=True)
    for add in (made.add_intake, made.add_coordinator, made.add_planner, made.add_transcriber, made.add_assembler):
        add()
    made.submit(job_id="job", options={"delete_recording": True})
    assert made.finish("job")["job"].status is JobStatus.COMPLETED
    made.settings = settings(deletion=False)
    made.add_cleaner()
    assert trail(made, Action.RECORDING_KEPT)[-2:] == [
        ("cleanup", "data_removed", "ok"),
        ("cleanup", "recording_kept", "DELETION_NOT_ALLOWED"),
    ]
    assert made.store.stat(RECORDINGS, "a").size_bytes > 0


def test_a_failed_job_keeps_the_recording_and_says_which_chunk_was_given_up() -> None:
    made = started(deletion=True, engine=broken_at(0))
    made.submit(job_id="job", options={"delete_recording": True})
    assert made.finish("job")["job"].status is JobStatus.FAILED
    lines = trail(made, Action.DATA_REMOVED)
    assert lines[:4] == [
        ("intake", "job_accepted", "ok"),
        ("plan", "recording_read", "ok"),
        ("coordinate", "chunk_given_up", "REJECTED"),
        ("coordinate", "job_finished", "REJECTED"),
    ]
    assert {action for _, action, _ in lines[4:]} == {"data_removed"}
    assert made.store.stat(RECORDINGS, "a").size_bytes > 0


def test_who_cancelled_and_who_retried_is_written_down() -> None:
    made = started()
    made.submit(job_id="job")
    made.turn_until(lambda: bool(made.seen(Topic.AUDIT, AuditRecorded)))
    control(made, action="cancel", requested_by="bob", reason=SECRET)
    made.finish("job")
    lines = trail(made, Action.JOB_CANCELLED)
    assert ("bob", "job_cancelled", "ok") in lines
    control(made, action="retry", requested_by="eve")
    assert ("eve", "job_retried", "ok") in trail(made, Action.JOB_RETRIED)
    assert [action for _, action, _ in lines].count("job_cancelled") == 1


def test_a_cancel_that_overtakes_its_job_is_in_the_trail_with_who_asked() -> None:
    """The coordinator knows no such job when it hears of the cancel; the planner has it from the control topic."""
    made = started()
    control(made, action="cancel", requested_by="bob", reason=SECRET)
    made.turn_until(lambda: bool(made.seen(Topic.JOB_EVENTS, CancelRequested)))
    made.submit(job_id="job", submitted_by="ada")
    assert made.finish("job")["job"].status is JobStatus.CANCELLED
    assert trail(made, Action.JOB_FINISHED) == [
        ("ada", "job_accepted", "ok"),
        ("plan", "recording_read", "CANCELLED"),
        ("bob", "job_cancelled", "ok"),
        ("coordinate", "job_finished", "CANCELLED"),
    ]


def test_duplicates_and_dead_letters_are_in_the_trail() -> None:
    made = started()
    made.submit(job_id="job")
    made.finish("job")
    made.submit(job_id="job")
    assert ("intake", "request_repeated", "ok") in trail(made, Action.REQUEST_REPEATED)
    made.submit_raw(b"garbage")
    assert ("intake", "event_parked", "EVENT_UNREADABLE") in trail(made, Action.EVENT_PARKED)
    made.submit(job_id="job", options={"language": "de"})
    made.turn_until(lambda: len(made.dead_letters()) == 2)
    assert ("coordinate", "event_parked", "JOB_CONFLICT") in trail(made, Action.EVENT_PARKED)


def test_nothing_that_was_said_or_is_to_be_said_is_in_the_trail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "consumer.audit")
    made = started()
    words = {"initial_prompt": SECRET, "hotwords": [SECRET]}
    request = {
        "job_id": "job",
        "options": words,
        "metadata": {"m": SECRET},
        "recording": {"bucket": RECORDINGS, "key": "a"},
    }
    made.submit_raw(json.dumps(request).encode(), (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode()),))
    made.finish("job")
    trail(made, Action.DATA_REMOVED)
    seen = made.seen(Topic.AUDIT, AuditRecorded)
    told = [line.model_dump_json() for line in seen]
    told += [str(vars(record)) for record in caplog.records if record.name == "consumer.audit"]
    assert not [line for line in told if SECRET in line]
    assert {line.trace_id for line in seen} == {TRACE}
    assert {line.action for line in seen} <= set(MEANING)


def test_every_action_is_explained() -> None:
    assert list(MEANING) == list(Action)
