"""Every check says yes to a run in which all is well, and no to the same run with one thing wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumer.core.audit import Action
from tests.chaos import campaign
from tests.chaos import checks_of_audit as audit
from tests.chaos import checks_of_contents as contents
from tests.chaos import checks_of_time as time
from tests.chaos.campaign import total
from tests.chaos.checks import CHECKS, check, summary
from tests.chaos.evidence import Attempted, DeadLetter, Evidence, HandOver, Life, Partial, Result, Told
from tests.chaos.made_up import FILES, GOOD, LANE, RUN, T0, TRAIL, computed, fault, letter, noted, standing, submission
from tests.chaos.scenario import Kind
from tests.chaos.verdict import Verdict, percentile

Check = Callable[[Evidence], Verdict]


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: str(one.__name__))
def test_a_run_in_which_all_is_well_passes(one: Check) -> None:
    assert one(GOOD).findings == ()


def test_the_summary_of_a_good_run_is_ok_and_names_every_verdict() -> None:
    found = summary(check(GOOD))
    assert found["ok"] is True
    assert isinstance(found["verdicts"], dict)
    assert len(found["verdicts"]) == len(CHECKS)


SECOND = Result(RUN, "failed", "X", 2, {})
POISON = submission(Kind.UNREADABLE, "poison", offset=7)
AGAIN = Attempted("chunk", RUN, "job/0", 2, T0 + 2.2, failed=False)
WRONG: dict[str, tuple[Check, dict[str, Any], str]] = {
    "a run without a terminal event": (contents.terminal_events, {"results": ()}, "no terminal event"),
    "a run with two terminal events": (
        contents.terminal_events,
        {"results": (*GOOD.results, SECOND)},
        "2 terminal events",
    ),
    "a run that nobody asked for": (
        contents.terminal_events,
        {"results": (*GOOD.results, replace(SECOND, run=("other", 1)))},
        "never asked for",
    ),
    "a plain job that failed": (contents.terminal_events, {"results": (SECOND,)}, "ended as failed with X"),
    "a lost partial": (contents.partials, {"partials": (Partial(RUN, 0),)}, "chunk 1 of ('job', 1) has no partial"),
    "a doubled partial": (contents.partials, {"partials": (*GOOD.partials, Partial(RUN, 1))}, "has 2 partials"),
    "another transcript": (
        contents.transcripts,
        {"results": (replace(GOOD.results[0], artifacts={**FILES, "srt": "c3"}),)},
        "job: srt differ",
    ),
    "a missing file": (
        contents.transcripts,
        {"results": (replace(GOOD.results[0], artifacts={"json": "a1"}),)},
        "job: srt differ",
    ),
    "a lost dead letter": (contents.dead_letters, {"dead_letters": ()}, "has 0 dead letters"),
    "a doubled dead letter": (contents.dead_letters, {"dead_letters": (letter(), letter())}, "has 2 dead letters"),
    "a dead letter that was neither": (
        contents.dead_letters,
        {"dead_letters": (letter(), letter(offset=99))},
        "that was neither",
    ),
    "a dead letter with other bytes": (
        contents.dead_letters,
        {"dead_letters": (replace(letter(), value=b"other"),)},
        "not the original ones",
    ),
    "a dead letter without the original headers": (
        contents.dead_letters,
        {"dead_letters": (DeadLetter(b"key", b"value", letter().headers[1:]),)},
        "headers are not kept",
    ),
    "a dead letter with a wrong code": (contents.dead_letters, {"dead_letters": (letter("JOB_CONFLICT"),)}, "its code"),
    "a chunk sent again too early": (
        contents.due_times,
        {"attempts": (*GOOD.attempts[:2], replace(AGAIN, time_s=T0 + 1.3))},
        "0.300 s after its failure",
    ),
    "a chunk sent again without a failure": (
        contents.due_times,
        {"attempts": (GOOD.attempts[0], AGAIN)},
        "did not fail",
    ),
    "an attempt sent twice": (contents.due_times, {"attempts": (*GOOD.attempts, AGAIN)}, "was sent 2 times"),
    "progress that goes back": (contents.progress, {"progress": (*GOOD.progress, Told(RUN, 4, 0.9))}, "4/0.9"),
    "progress that comes twice": (contents.progress, {"progress": (*GOOD.progress, Told(RUN, 3, 1.0))}, "3/1.0"),
    "lag that is left": (
        contents.lag,
        {"lag_zero_after_s": None, "lag_left": {"jobs": 3}},
        "3 records of lag are left on jobs",
    ),
    "lag that went late": (contents.lag, {"lag_zero_after_s": 61.0}, "61 s after"),
    "an event of the audit trail twice": (
        audit.audit_trail,
        {"noted": (*TRAIL, TRAIL[3])},
        "2 events of the audit trail have the id result_written/3",
    ),
    "a fact in the audit trail under two ids": (
        audit.audit_trail,
        {"noted": (*TRAIL, replace(TRAIL[3], id="another"))},
        "is in the audit trail 2 times",
    ),
    "a result that the audit trail does not know": (
        audit.audit_trail,
        {"noted": (*TRAIL[:3], *TRAIL[4:]), "logged": ()},
        "has 0 result_written in the audit trail, and 1 are due",
    ),
    "a try to read that the audit trail does not know": (
        audit.audit_trail,
        {"noted": (TRAIL[0], *TRAIL[2:]), "logged": ()},
        "has 1 recording_read in the audit trail, and 2 are due",
    ),
    "an end in the audit trail without a result": (
        audit.audit_trail,
        {"noted": (*TRAIL, noted(Action.JOB_FINISHED, 9, run=("other", 1)))},
        "and no result",
    ),
    "a cancelled run of which the audit trail does not know who asked": (
        audit.audit_trail,
        {"results": (replace(GOOD.results[0], status="cancelled", code="CANCELLED"),)},
        "has 0 job_cancelled in the audit trail, and 1 are due",
    ),
    "a deletion that nobody asked for": (
        audit.audit_trail,
        {"noted": (*TRAIL, noted(Action.RECORDING_DELETED, 9))},
        "has 1 recording_deleted in the audit trail, and 0 are due",
    ),
    "a repeated request that the audit trail does not know": (
        audit.audit_trail,
        {"noted": (*TRAIL[:6], *TRAIL[7:]), "logged": ()},
        "was asked for 2 times, and 1 requests",
    ),
    "a dead letter that the audit trail does not know": (
        audit.audit_trail,
        {"noted": TRAIL[:7], "logged": ()},
        "jobs/0@7 with EVENT_UNREADABLE was parked 1 times, and the audit trail says 0 times",
    ),
    "an end with another code than the result": (
        audit.audit_trail,
        {"noted": (*TRAIL[:4], replace(TRAIL[4], outcome="CANCELLED"), *TRAIL[5:]), "logged": ()},
        "should be ok",
    ),
    "a log line of what is not in the audit trail": (
        audit.audit_trail,
        {"logged": (*TRAIL, noted(Action.JOB_CANCELLED, 9))},
        "is logged 1 times more",
    ),
    "an event of the audit trail that says what was said": (
        audit.audit_trail,
        {"noted": (replace(TRAIL[0], said=b"\x0arumpelstilzchen"), *TRAIL[1:])},
        "holds 1 words",
    ),
    "a log line of the audit trail that says what was said": (
        audit.audit_trail,
        {"logged": (replace(TRAIL[0], said=b"rumpelstilzchen"),)},
        "holds 1 words",
    ),
    "a fault that did not happen": (time.faults, {"asked_faults": 2}, "only 1 of 2"),
    "a fault that failed": (time.faults, {"faults": (replace(fault(), ok=False),)}, "failed"),
    "a process that did not drain": (
        time.faults,
        {"faults": (replace(fault(), detail="did not end by itself"),)},
        "did not end after SIGTERM",
    ),
    "a process that ended by a bug": (
        time.endings,
        {"lives": (*GOOD.lives, Life("rest-0.001", "plan", T0, T0 + 1, 70))},
        "rest-0.001 ended with 70",
    ),
    "a takeover that came late": (
        time.takeovers,
        {"hand_overs": (*GOOD.hand_overs[:2], HandOver("transcriber-1.001", T0 + 9.5, "assigned", LANE[0], (0,)))},
        "p95 of 1 takeovers is 9.5 s",
    ),
    "chunks computed again and again": (
        time.computed_again,
        {"computations": (*GOOD.computations, computed(T0 + 7.5, "transcriber-2.001"))},
        "2 chunks were begun again in 1 faults",
    ),
    "a finished chunk computed again": (
        time.computed_again,
        {"computations": (*GOOD.computations[1:], computed(T0 + 20, "transcriber-2.001"))},
        "12.0 s after it was finished",
    ),
    "work that stands still": (
        time.standstill,
        {"standings": tuple(standing(T0 + second, 0) for second in range(100, 120))},
        "transcriber-1.001 had work and moved nothing for 19.0 s",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_and_said(name: str) -> None:
    one, changes, words = WRONG[name]
    assert words in " ".join(one(replace(GOOD, **changes)).findings)


def test_an_event_whose_delivery_is_unknown_may_be_there_or_not() -> None:
    unknown = replace(submission(), confirmed=False)
    poison = replace(POISON, confirmed=False, partition=None, offset=None)
    for results, letters in (((), ()), (GOOD.results, GOOD.dead_letters)):
        seen = replace(GOOD, submissions=(unknown, poison), results=results, dead_letters=letters, partials=())
        assert contents.terminal_events(seen).ok
        assert contents.dead_letters(seen).ok


def test_a_cancelled_job_may_have_been_faster_than_its_cancel() -> None:
    for status in ("cancelled", "completed"):
        seen = replace(
            GOOD, submissions=(submission(Kind.CANCELLED_JOB),), results=(replace(GOOD.results[0], status=status),)
        )
        assert contents.terminal_events(seen).ok


def test_a_takeover_near_another_fault_of_the_group_is_counted_apart() -> None:
    late = HandOver("transcriber-1.001", T0 + 14, "assigned", LANE[0], (0,))
    other = fault(2, "freeze", "transcriber-1.001", T0 + 2)
    seen = replace(GOOD, faults=(fault(), other), hand_overs=(*GOOD.hand_overs[:2], late))
    found = time.takeovers(seen)
    assert found.ok
    assert found.figures["takeovers"] == 0
    assert found.figures["takeover_p95_with_others_s"] == 14.0


def test_markers_behind_the_last_chunk_are_no_work() -> None:
    seen = replace(GOOD, standings=tuple(standing(T0 + second, 3) for second in range(100, 120)))
    assert time.standstill(seen).figures["longest_standstill_s"] == 0.0


def test_a_standstill_during_a_fault_is_the_faults() -> None:
    store = replace(fault(2, "store", "store", T0 + 101), end_s=T0 + 119)
    still = tuple(standing(T0 + second, 0) for second in range(100, 120))
    assert time.standstill(replace(GOOD, standings=still, faults=(*GOOD.faults, store))).ok


@pytest.mark.parametrize(("values", "expected"), [([], None), ([5.0], 5.0), ([float(n) for n in range(1, 101)], 95.0)])
def test_a_percentile_is_a_value_that_was_seen(values: list[float], expected: float | None) -> None:
    assert percentile(values, 0.95) == expected


def test_a_campaign_adds_up_its_runs_and_keeps_the_worst() -> None:
    asked = {"seed": 1, "wall_s": 10}
    good: dict[str, Any] = {**asked, **summary(check(GOOD))}
    bad: dict[str, Any] = {**good, "seed": 2, "ok": False, "lost_runs": 1, "takeover_p95_s": 99.0}
    bad["verdicts"] = {**good["verdicts"], "terminal-events": False}
    found = total([good, bad])
    assert (found["ok"], found["seeds"], found["lost_runs"]) == (False, [1, 2], 1)
    assert found["faults"] == 2 * good["faults"] > 0
    assert found["largest_takeover_p95_s"] == 99.0
    assert found["not_ok"] == {2: ["terminal-events"]}
    assert total([good])["ok"]
    assert not total([good], broken=[3])["ok"]


def test_a_campaign_that_was_stopped_goes_on_behind_its_last_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []

    def run(folder: Path, number: int, asked: argparse.Namespace) -> dict[str, Any]:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(number)
        return {**summary(check(GOOD)), "seed": asked.seed + number, "wall_s": 10, "faults": 100}

    monkeypatch.setattr(campaign, "_run", run)
    asked = ["--folder", str(tmp_path), "--seed", "7", "--faults", "300"]
    with pytest.raises(KeyboardInterrupt):
        campaign.main(asked)
    started.clear()
    assert campaign.main(asked) == 0
    assert started == [2]
    found = json.loads(capsys.readouterr().out)
    assert (found["seeds"], found["faults"], found["wall_s"]) == ([7, 8, 9], 300, 30)
