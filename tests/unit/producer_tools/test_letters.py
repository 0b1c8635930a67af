from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.dead_letters import How, Position, dead_letter, redriven, resolution
from consumer.core.identity import job_id_from_idempotency_key
from consumer.events import JobControl, Problem
from consumer.ports import Headers, Received
from consumer.wire import Codec
from producer_tools.letters import DeadLetter, Survey, Wanted, job_ids_of
from tests.unit.producer_tools.installation import NOW

LETTERS = "t.dead-letters"
CODEC = Codec(None, "/tests")
PARKED_MS = int(NOW.timestamp() * 1000)


def letter(
    offset: int = 0,
    *,
    value: bytes | None = b"{}",
    key: bytes | None = None,
    code: str = "EVENT_INVALID",
    topic: str = "t.jobs",
    headers: Headers = (),
) -> Received:
    original = Received(topic, 1, 5, key, value, headers, 7)
    parked = dead_letter(LETTERS, original, Problem(code=code, message="why"))
    return Received(LETTERS, 0, offset, parked.key, parked.value, parked.headers, PARKED_MS)


def settling(one: Received, offset: int, how: How = How.REDRIVEN) -> Received:
    made = resolution(one, how, "ann", NOW)
    return Received(LETTERS, made.partition or 0, offset, made.key, made.value, made.headers, PARKED_MS)


def fits(wanted: Wanted, one: Received) -> bool:
    return wanted.fits(one, lambda: CODEC)


def control(job_id: str) -> tuple[bytes, Headers]:
    return CODEC.encode(JobControl(job_id=job_id, action="cancel"), "t.control", event_id="1", time=NOW)


class TestWanted:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Wanted(), True),
            (Wanted(code="EVENT_INVALID"), True),
            (Wanted(code="JOB_CONFLICT"), False),
            (Wanted(topic="t.jobs"), True),
            (Wanted(topic="jobs"), False),
            (Wanted(position=Position(0, 0)), True),
            (Wanted(position=Position(1, 0)), False),
            (Wanted(since=NOW), True),
            (Wanted(until=NOW), False),
            (Wanted(since=datetime(2024, 5, 1, 12, 0, 1, tzinfo=UTC)), False),
            (Wanted(until=datetime(2024, 5, 1, 12, 0, 1, tzinfo=UTC)), True),
            (Wanted(job_id="a"), True),
            (Wanted(job_id="b"), False),
            (Wanted(code="EVENT_INVALID", job_id="b"), False),
        ],
    )
    def test_a_letter_is_meant_when_every_condition_fits(self, wanted: Wanted, expected: bool) -> None:
        assert fits(wanted, letter(key=b"a")) is expected

    def test_the_bytes_are_read_only_where_a_job_is_asked_for(self) -> None:
        def no_codec() -> Codec:
            raise AssertionError("nobody asked for a job")

        assert Wanted(code="EVENT_INVALID", topic="t.jobs", since=NOW).fits(letter(), no_codec)

    def test_no_condition_means_everything(self) -> None:
        assert Wanted().everything
        assert not Wanted(code="X").everything


class TestJobIds:
    @pytest.mark.parametrize(
        ("value", "key", "expected"),
        [
            (b'{"job_id": "a"}', None, {"a"}),
            (b'{"job_id": "a"}', b"b", {"a", "b"}),
            (b'{"idempotency_key": "call 17"}', None, {job_id_from_idempotency_key("call 17")}),
            (b'{"specversion": "1.0", "data": {"job_id": "inner"}}', None, {"inner"}),
            (b'{"job_id": 17}', b"../up", set()),
            (b"\xff\x00", b"\xff", set()),
            (b"[1]", None, set()),
            (None, b"a", {"a"}),
            (None, None, set()),
        ],
    )
    def test_they_come_from_the_bytes_and_from_the_key(
        self, value: bytes | None, key: bytes | None, expected: set[str]
    ) -> None:
        assert job_ids_of(letter(value=value, key=key), CODEC) == expected

    def test_an_avro_event_is_read_whatever_topic_it_was_on(self) -> None:
        value, headers = control("a")
        assert job_ids_of(letter(value=value, headers=headers, topic="t.jobs"), CODEC) == {"a"}

    @given(st.binary())
    def test_bytes_of_any_kind_are_no_trouble(self, value: bytes) -> None:
        job_ids_of(letter(value=value, key=value), CODEC)


class TestSurvey:
    def open_ones(self, records: Iterable[Received]) -> list[int]:
        there = list(records)
        return [one.offset for one, settled in Survey.of(there).letters(there) if settled is None]

    def test_a_letter_is_settled_by_what_lies_behind_it(self) -> None:
        first, second = letter(0), letter(1)
        assert self.open_ones([first, second, settling(first, 2)]) == [1]
        assert self.open_ones([first, second, settling(second, 2), settling(first, 4)]) == []

    def test_resolutions_are_no_letters(self) -> None:
        records = [letter(0), settling(letter(0), 1)]
        assert [one.offset for one, _ in Survey.of(records).letters(records)] == [0]

    def test_the_first_resolution_counts(self) -> None:
        records = [letter(0), settling(letter(0), 1), settling(letter(0), 2, How.DISCARDED)]
        ((_, found),) = Survey.of(records).letters(records)
        assert found is not None
        assert found.how == "redriven"

    def test_what_came_after_we_looked_is_for_another_time(self) -> None:
        """Else an original that fails again would be sent again and again by one call."""
        survey = Survey.of([letter(0)])
        assert [one.offset for one, _ in survey.letters([letter(0), letter(1)])] == [0]

    def test_an_original_that_claims_to_settle_others_is_a_letter(self) -> None:
        forged = letter(1, value=None, headers=(("dead-letter-resolves", b"0@0"), ("dead-letter-resolution", b"x")))
        assert self.open_ones([letter(0), forged]) == [0, 1]


def test_an_event_that_is_sent_again_reads_as_before() -> None:
    value, headers = control("a")
    again = redriven(letter(value=value, key=b"a", headers=headers))
    record = Received(again.topic, 0, 9, again.key, again.value, again.headers)
    assert CODEC.decode(record, (JobControl,)) == JobControl(job_id="a", action="cancel")


def test_a_line_says_how_often_it_was_redriven_and_what_became_of_it() -> None:
    again = redriven(letter(3))
    back = letter(9, headers=again.headers)
    ((_, found),) = Survey.of([back, settling(back, 10)]).letters([back])
    assert DeadLetter.of(back, found).line().split("\t")[-2:] == ["1", "redriven by ann at 2024-05-01T12:00:00+00:00"]
