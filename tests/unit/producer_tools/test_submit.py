from __future__ import annotations

import argparse
import dataclasses
from datetime import timedelta

import pytest

from consumer.core.identity import request_digest
from consumer.events import JobOptions, Priority, RecordingRef
from producer_tools.faults import WrongUsage
from producer_tools.parser import build_parser
from producer_tools.submit import Wishes, request_for, wishes_from
from tests.unit.producer_tools.installation import NOW

RECORDING = RecordingRef(bucket="calls", key="one.wav")


def arguments(*more: str) -> argparse.Namespace:
    return build_parser().parse_args(["submit", "one.wav", "--submitted-by", "ann", *more])


def wishes(*more: str) -> Wishes:
    return wishes_from(arguments(*more), NOW)


def test_the_same_work_has_the_same_id_whenever_and_however_urgently_it_is_asked_for() -> None:
    later = dataclasses.replace(wishes("--priority", "high", "--deadline", "2h"), submitted_at=NOW + timedelta(1))
    assert request_for(RECORDING, wishes()).job_id == request_for(RECORDING, later).job_id


@pytest.mark.parametrize("more", [["--language", "de"], ["--metadata", "case=17"]])
def test_other_work_has_another_id_so_that_it_never_conflicts(more: list[str]) -> None:
    one, other = request_for(RECORDING, wishes()), request_for(RECORDING, wishes(*more))
    assert request_digest(one) != request_digest(other)
    assert one.job_id != other.job_id


def test_an_id_that_is_given_is_kept() -> None:
    request = request_for(RECORDING, wishes("--job-id", "standup-1"))
    assert (request.job_id, request.idempotency_key) == ("standup-1", None)


def test_an_idempotency_key_names_the_job_as_intake_would() -> None:
    assert request_for(RECORDING, wishes("--idempotency-key", "call-17")).job_id == "call-17"
    odd = request_for(RECORDING, wishes("--idempotency-key", "call 17/a"))
    assert odd.idempotency_key == "call 17/a"
    assert str(odd.job_id).startswith("key-")


def test_everything_that_was_asked_for_is_in_the_request() -> None:
    request = request_for(
        RECORDING,
        wishes("--priority", "low", "--deadline", "90m", "--metadata", "a=b=c", "--metadata", "d=", "--no-align"),
    )
    assert request.priority is Priority.LOW
    assert request.deadline_at == NOW + timedelta(minutes=90)
    assert request.metadata == {"a": "b=c", "d": ""}
    assert request.options == JobOptions.model_validate({"align": {"enabled": False}})
    assert (request.submitted_by, request.submitted_at) == ("ann", NOW)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--job-id", "../other"], "'../other' is no job id: letters, digits"),
        (["--job-id", "ä b"], "'ä b' is no job id: letters, digits"),
        (["--job-id", ""], "'' is no job id: letters, digits"),
        (["--metadata", "nothing"], "name=value"),
        (["--metadata", "x=" + "y" * 2000], "1024 characters"),
        (["--deadline", "tomorrow"], "tomorrow"),
        (["--deadline", "2024-05-01T11:59:59Z"], "--deadline '2024-05-01T11:59:59Z' has passed"),
        (["--deadline", "2024-05-01T13:59:59+02:00"], "has passed"),
        (["--deadline", "0s"], "has passed"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(more: list[str], reason: str) -> None:
    with pytest.raises(WrongUsage, match=reason):
        request_for(RECORDING, wishes(*more))


def test_a_deadline_to_come_is_taken_in_any_time_zone() -> None:
    assert wishes("--deadline", "2024-05-01T14:00:01+02:00").deadline_at == NOW + timedelta(seconds=1)


def test_flags_cannot_be_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments("--meta", "a=b")
    assert "--meta" in capsys.readouterr().err
