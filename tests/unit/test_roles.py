"""What becomes of a record in each role: an answer, a failure in the form of an answer, or a dead letter."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import pytest

from consumer.control import Cancel
from consumer.core.layout import Topic
from consumer.core.retries import RetryPolicy
from consumer.errors import (
    Abandoned,
    Cancelled,
    DecoderCrashed,
    Rejected,
    StoreUnavailable,
    UnreadableAudio,
    WhisperXError,
)
from consumer.events import Event, JobControl, JobOptions, RecordingRef
from consumer.functions.intake import Intake, received_of
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.patience import ALONE_S, ALONE_TRIES, Patience
from consumer.ports import Attempt, Headers, Outgoing, Received
from consumer.refusals import RefusalLimit
from consumer.roles import IntakeHandler, Post, WorkHandler
from consumer.wire import Codec
from consumer.work import (
    CancelRequested,
    ChunkFailed,
    ChunkProgressed,
    ChunkSkipped,
    ChunkWork,
    CleanupFinished,
    CleanupWork,
    JobReceived,
    PlanFailed,
    PlanWork,
    RetryRequested,
)

POST = Post(Codec(None, "/test"), "t.", lambda: 1000.0)
PATIENCE = Patience("test", RetryPolicy(3, 0.5, 5.0), Health(60, 60), lambda: False)
REFUSALS = RefusalLimit("test", Health(60, 60), 100, 60.0)
CANCEL = Cancel(1, "ada")
WORK = ChunkWork(job_id="job", run=1, chunk_index=3, attempt=2, audio_s=60.0, options=JobOptions())
DONE = ChunkSkipped(job_id="job", run=1, chunk_index=3, reason="gone")


class Ticket:
    """Notes what the function says on its way; `lost_after` waits makes it abandoned."""

    number = 1

    def __init__(self, lost_after: int = 99) -> None:
        self.said: list[Outgoing] = []
        self.reported: list[Outgoing] = []
        self.waits: list[float] = []
        self._lost_after = lost_after

    def announce(self, records: Sequence[Outgoing]) -> None:
        self.said.extend(records)

    def report(self, record: Outgoing) -> None:
        self.reported.append(record)

    def check(self) -> None:
        if len(self.waits) >= self._lost_after:
            raise Abandoned("lost")

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.check()


def record_of(event: Event, topic: Topic = Topic.CHUNK_WORK_NORMAL) -> Received:
    made = POST.record(topic, event, "00-trace-parent-01")
    return Received(made.topic, 0, 7, made.key, made.value, made.headers, timestamp_ms=5_000)


def received(value: bytes, topic: str = "t.jobs", headers: Headers = ()) -> Received:
    return Received(topic, 0, 7, b"key", value, headers, timestamp_ms=5_000)


def handler(
    function: Callable[[ChunkWork, Attempt], Event], cancelled: bool = False, metrics: Metrics | None = None
) -> WorkHandler[ChunkWork]:
    return WorkHandler(
        "transcribe",
        ChunkWork,
        function,
        POST,
        patience=PATIENCE,
        refusals=REFUSALS,
        cancelled=lambda job_id, run: CANCEL if cancelled and job_id == "job" else None,
        metrics=metrics or Metrics(),
    )


def answer_of(records: Sequence[Outgoing], *kinds: type[Event]) -> Event:
    (record,) = records
    return POST.codec.decode(Received(record.topic, 0, 0, record.key, record.value, record.headers), kinds)


def failing(error: WhisperXError, times: int = 99) -> Callable[[ChunkWork, Attempt], Event]:
    left = [times]

    def function(work: ChunkWork, attempt: Attempt) -> Event:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return DONE

    return function


def test_the_answer_goes_to_job_events_under_the_job_id_with_the_trace() -> None:
    (record,) = handler(lambda work, attempt: DONE)(record_of(WORK), Ticket())
    assert (record.topic, record.key) == ("t.job-events", b"job")
    assert answer_of([record], ChunkSkipped) == DONE


def test_a_rejected_work_is_answered_as_failed_with_its_code() -> None:
    failed = answer_of(handler(failing(UnreadableAudio("broken")))(record_of(WORK), Ticket()), ChunkFailed)
    assert isinstance(failed, ChunkFailed)
    assert (failed.attempt, failed.error.code, failed.error.retryable, failed.error.chunk_index) == (
        2,
        "AUDIO_UNREADABLE",
        False,
        3,
    )


def test_what_may_pass_is_tried_in_place_a_few_times_and_then_answered_as_retryable() -> None:
    ticket = Ticket()
    failed = answer_of(handler(failing(DecoderCrashed("gone")))(record_of(WORK), ticket), ChunkFailed)
    assert isinstance(failed, ChunkFailed)
    assert (len(ticket.waits), failed.error.retryable) == (2, True)


def test_a_server_that_is_away_is_waited_for_without_burning_an_attempt() -> None:
    ticket = Ticket()
    records = handler(failing(StoreUnavailable("away"), times=50))(record_of(WORK), ticket)
    assert answer_of(records, ChunkSkipped) == DONE
    assert len(ticket.waits) == 50
    assert max(ticket.waits) <= 5.0


def test_waiting_ends_when_the_partition_is_lost() -> None:
    with pytest.raises(Abandoned):
        handler(failing(StoreUnavailable("away")))(record_of(WORK), Ticket(lost_after=3))


def test_a_cancelled_chunk_is_answered_as_skipped_and_not_computed() -> None:
    def never(work: ChunkWork, attempt: Attempt) -> Event:
        raise AssertionError("must not be called")

    skipped = answer_of(handler(never, cancelled=True)(record_of(WORK), Ticket()), ChunkSkipped)
    assert isinstance(skipped, ChunkSkipped)
    assert (skipped.reason, skipped.cancelled_by) == ("cancelled", "ada")


def test_a_cancel_in_the_middle_is_answered_as_skipped() -> None:
    records = handler(failing(Cancelled("by the sender")))(record_of(WORK), Ticket())
    assert isinstance(answer_of(records, ChunkSkipped), ChunkSkipped)


def test_an_object_that_alone_cannot_be_read_is_given_up_after_a_while() -> None:
    """The store works for others: waiting on would hold up everybody behind this one."""
    patience = Patience("test", RetryPolicy(3, 0.5, 5.0), Health(60, 60), lambda: True)
    waits: list[float] = []

    def never() -> None:
        raise StoreUnavailable("503")

    with pytest.raises(StoreUnavailable):
        patience(never, waits.append, "chunk")
    assert ALONE_S <= sum(waits) <= ALONE_S + ALONE_TRIES * 5.0
    asked = [sum(waits[:n]) >= ALONE_S for n in range(len(waits) + 1)].count(True)
    assert asked == ALONE_TRIES, "the store was asked as often"


def test_cancelled_plans_and_assemblies_are_answered_too() -> None:
    """Nobody else would end such a job: the coordinator may have heard the cancel before it knew the job."""
    work = PlanWork(
        job_id="job", run=1, epoch=1, recording=RecordingRef(bucket="bucket", key="k"), options=JobOptions()
    )
    plan = WorkHandler(
        "plan",
        PlanWork,
        lambda work, attempt: DONE,
        POST,
        patience=PATIENCE,
        refusals=REFUSALS,
        cancelled=lambda job_id, run: CANCEL,
        metrics=Metrics(),
    )
    failed = answer_of(plan(record_of(work, Topic.PLAN_WORK), Ticket()), PlanFailed)
    assert isinstance(failed, PlanFailed)
    assert (failed.error.code, failed.cancelled_by) == ("CANCELLED", "ada")


def test_cleanup_goes_on_although_its_job_was_cancelled() -> None:
    work = CleanupWork(job_id="job", run=1, status="cancelled")
    done = CleanupFinished(job_id="job", run=1, removed=2)
    cleanup = WorkHandler(
        "cleanup",
        CleanupWork,
        lambda work, attempt: done,
        POST,
        patience=PATIENCE,
        refusals=REFUSALS,
        cancelled=lambda job_id, run: CANCEL,
        metrics=Metrics(),
    )
    assert answer_of(cleanup(record_of(work, Topic.CLEANUP_WORK), Ticket()), CleanupFinished) == done


def test_a_bug_passes_through() -> None:
    def bug(work: ChunkWork, attempt: Attempt) -> Event:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        handler(bug)(record_of(WORK), Ticket())


def test_announcements_and_reports_leave_as_events() -> None:
    progress = ChunkProgressed(job_id="job", run=1, chunk_index=3, fraction=0.5)

    def function(work: ChunkWork, attempt: Attempt) -> Event:
        attempt.announce(DONE, DONE)
        attempt.report(progress)
        return DONE

    ticket = Ticket()
    handler(function)(record_of(WORK), ticket)
    assert [record.topic for record in ticket.said] == ["t.job-events"] * 2
    assert answer_of(ticket.reported, ChunkProgressed) == progress


def test_work_that_cannot_be_read_becomes_a_dead_letter() -> None:
    letter, _ = handler(lambda work, attempt: DONE)(received(b"garbage", "t.chunk-work.normal"), Ticket())
    assert (letter.topic, letter.key, letter.value) == ("t.dead-letters", b"key", b"garbage")


def test_chunks_weigh_their_seconds() -> None:
    assert handler(lambda work, attempt: DONE).weight(record_of(WORK)) == 60.0


def test_work_that_keeps_killing_its_process_is_answered_as_failed() -> None:
    failed = answer_of(handler(lambda work, attempt: DONE).give_up(record_of(WORK), 3), ChunkFailed)
    assert isinstance(failed, ChunkFailed)
    assert failed.error.code == "WORKER_KILLED"


def test_each_outcome_of_work_is_counted_once() -> None:
    metrics = Metrics()
    handler(lambda work, attempt: DONE, metrics=metrics)(record_of(WORK), Ticket())
    handler(failing(DecoderCrashed("gone")), metrics=metrics)(record_of(WORK), Ticket())
    handler(lambda work, attempt: DONE, metrics=metrics).give_up(record_of(WORK), 3)
    handler(lambda work, attempt: DONE, metrics=metrics)(received(b"garbage", "t.chunk-work.normal"), Ticket())
    handler(lambda work, attempt: DONE, cancelled=True, metrics=metrics)(record_of(WORK), Ticket())
    with pytest.raises(Abandoned):
        handler(lambda work, attempt: DONE, metrics=metrics)(record_of(WORK), Ticket(lost_after=0))

    value = metrics.registry.get_sample_value
    for outcome, times in (("done", 1), ("failed", 3), ("stopped", 2)):
        assert value("whisperx_work_finished_total", {"role": "transcribe", "outcome": outcome}) == times, outcome
    assert value("whisperx_chunks_finished_total", {"outcome": "failed"}) == 2
    assert value("whisperx_chunks_finished_total", {"outcome": "skipped"}) == 2
    for code in ("DECODER_CRASHED", "WORKER_KILLED"):
        assert value("whisperx_work_failures_total", {"role": "transcribe", "code": code}) == 1, code
    assert value("whisperx_dead_letters_total", {"code": "EVENT_UNREADABLE"}) == 1


def test_work_closes_with_one_line_whatever_its_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    handler(lambda work, attempt: DONE)(record_of(WORK), Ticket())
    handler(failing(UnreadableAudio("broken")))(record_of(WORK), Ticket())
    handler(lambda work, attempt: DONE, cancelled=True)(record_of(WORK), Ticket())
    closing = [record.message for record in caplog.records]
    assert closing == ["Chunk skipped", "Work failed", "Work is left, its job was cancelled"]


def test_only_chunks_weigh_audio() -> None:
    assert handler(lambda work, attempt: DONE).weighs_audio
    assert not INTAKE.weighs_audio


# ── intake ──────────────────────────────────────────────────────────────────────────────────────────────────────────

INTAKE = IntakeHandler(Intake(), POST, PATIENCE, REFUSALS, Metrics())
RECORDING = {"bucket": "recordings", "key": "a.wav"}


def taken_in(**fields: object) -> JobReceived:
    event = answer_of(INTAKE(received(json.dumps({"recording": RECORDING, **fields}).encode()), Ticket()), JobReceived)
    assert isinstance(event, JobReceived)
    return event


def test_the_job_id_is_the_senders_or_derived_and_always_the_same() -> None:
    assert taken_in(job_id="mine").job_id == "mine"
    assert taken_in(idempotency_key="call-17").job_id == "call-17"
    assert taken_in(idempotency_key="a key with spaces").job_id == taken_in(idempotency_key="a key with spaces").job_id
    assert taken_in().job_id == taken_in().job_id


def test_a_request_that_differs_only_in_who_and_when_has_the_same_digest() -> None:
    first, second = taken_in(submitted_by="a"), taken_in(submitted_by="b", priority="high")
    assert first.request_digest == second.request_digest
    assert first.request_digest != taken_in(options={"language": "de"}).request_digest


def test_an_unknown_option_is_refused_by_its_name_under_its_job_id() -> None:
    event = taken_in(job_id="job", options={"temperature": 0.5})
    assert event.refusal is not None
    assert event.refusal.code == "OPTION_UNKNOWN"
    assert "temperature" in event.refusal.message


def test_garbage_becomes_a_dead_letter_with_its_bytes_and_position() -> None:
    letter, _ = INTAKE(received(b"\xff\x00garbage", headers=(("h", b"1"),)), Ticket())
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == ("t.dead-letters", b"key", b"\xff\x00garbage")
    assert headers["h"] == b"1"
    assert (headers["dead-letter-topic"], headers["dead-letter-offset"]) == (b"t.jobs", b"7")
    assert headers["dead-letter-code"] == b"EVENT_UNREADABLE"


def test_intake_that_can_read_nothing_stops_and_goes_on_with_what_is_readable() -> None:
    health = Health(60, 60)
    intake = IntakeHandler(Intake(), POST, PATIENCE, RefusalLimit("intake", health, 20, 60.0), Metrics())
    ticket = Ticket()
    for _ in range(21):
        intake(received(b"garbage"), ticket)
    assert ticket.waits == [60.0]
    assert not health.ready().ok
    for _ in range(2):
        intake(received(json.dumps({"recording": RECORDING}).encode()), ticket)
    assert health.ready().ok


def test_a_request_without_a_recording_is_a_dead_letter() -> None:
    letter, _ = INTAKE(received(b'{"job_id": "x"}'), Ticket())
    assert dict(letter.headers)["dead-letter-code"] == b"EVENT_INVALID"


def test_a_cancel_is_passed_on() -> None:
    record = record_of(JobControl(job_id="job", action="cancel", reason="why"), Topic.CONTROL)
    event = answer_of(INTAKE(record, Ticket()), CancelRequested)
    assert isinstance(event, CancelRequested)
    assert (event.job_id, event.reason) == ("job", "why")


def test_a_retry_is_passed_on_with_the_run_that_it_means() -> None:
    record = record_of(JobControl(job_id="job", action="retry", run=2, requested_by="ada"), Topic.CONTROL)
    event = answer_of(INTAKE(record, Ticket()), RetryRequested)
    assert isinstance(event, RetryRequested)
    assert (event.job_id, event.run, event.requested_by) == ("job", 2, "ada")


def test_a_timestamp_that_is_no_instant_is_a_dead_letter() -> None:
    record = Received("t.jobs", 0, 7, None, b'{"recording": {"bucket": "bbb", "key": "k"}}', timestamp_ms=1 << 60)
    letter, _ = INTAKE(record, Ticket())
    assert dict(letter.headers)["dead-letter-code"] == b"EVENT_INVALID"


def test_a_request_that_is_too_large_with_its_headers_is_a_dead_letter_with_its_own_bytes() -> None:
    value = json.dumps({"recording": RECORDING, "job_id": "big"}).encode()
    letter, _ = INTAKE(received(value + b" " * 262_000), Ticket())
    assert letter.value is not None
    assert letter.value.startswith(value)


def test_nothing_that_intake_raises_is_unexpected() -> None:
    for value in (b"", b"{", b"[]", b"null", b"\xc3\x01", b"\x00\x00\x00\x00\x01", b"{}" * 100_000):
        letters = INTAKE(received(value), Ticket())
        assert letters[0].topic == "t.dead-letters", value[:10]
    assert issubclass(UnreadableAudio, Rejected)


def test_a_record_is_kept_as_it_came_also_where_a_header_has_no_value() -> None:
    record = received(b'{"recording": {"bucket": "calls", "key": "k"}}', headers=(("a", None), ("a", b""), ("b", b"1")))
    said = answer_of(INTAKE(record, Ticket()), JobReceived)
    assert isinstance(said, JobReceived)
    assert received_of(said.original) == record
