"""A made-up run in which all is well: tests take one thing away, or add one, and the checks must say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from consumer.core import dead_letters as dead
from consumer.core.audit import NO_RUN, Action
from tests.chaos.evidence import (
    Attempted,
    Computation,
    DeadLetter,
    Evidence,
    FaultDone,
    HandOver,
    Life,
    Noted,
    Partial,
    Result,
    Standing,
    Submission,
    Told,
)
from tests.chaos.scenario import Kind

RUN = ("job", 1)
FILES = {"json": "a1", "srt": "b2"}
LANE = ("chunk-work.normal", 0)
OTHER_LANE = ("chunk-work.normal", 1)
T0 = 1_000.0


def submission(kind: Kind = Kind.JOB, job: str = "job", **changes: Any) -> Submission:
    made = Submission(kind, job, True, "jobs", b"key", b"value", (("x", b"1"),), "talk.wav", 0, 3)
    return replace(made, **changes)


def letter(code: str = "EVENT_UNREADABLE", offset: int = 7) -> DeadLetter:
    ours = {
        dead.TOPIC: "jobs",
        dead.PARTITION: "0",
        dead.OFFSET: str(offset),
        dead.TIMESTAMP: "1",
        dead.CODE: code,
        dead.MESSAGE: "why",
    }
    return DeadLetter(b"key", b"value", (("x", b"1"), *((name, text.encode()) for name, text in ours.items())))


def fault(number: int = 1, kind: str = "kill", target: str = "transcriber-0.001", start_s: float = T0) -> FaultDone:
    return FaultDone(number, kind, target, start_s, start_s + 0.1, True, "ended")


def computed(at_s: float, life: str = "transcriber-0.001", step: str = "begun", chunk: int = 0) -> Computation:
    return Computation(life, at_s, step, RUN, chunk, 1.0 if step == "stored" else 0.0)


def noted(action: Action, number: int = 0, **changes: Any) -> Noted:
    """An event of the audit trail; events with the same number happened at the same time."""
    at = f"2026-01-01T00:00:{number:02}.000+00:00"
    made = Noted(RUN, "coordinate", action, "calls/talk.wav", "ok", at, f"{action}/{number}", b"nothing that was said")
    return replace(made, **changes)


def standing(at_s: float, committed: int, end: int = 8) -> Standing:
    return Standing(at_s, {LANE: (committed, end)})


PARKED = {"run": ("poison", NO_RUN), "target": "jobs/0@7", "outcome": "EVENT_UNREADABLE"}
TRAIL = (
    noted(Action.JOB_ACCEPTED),
    noted(Action.RECORDING_READ, 1),
    noted(Action.RECORDING_READ, 2),
    noted(Action.RESULT_WRITTEN, 3),
    noted(Action.JOB_FINISHED, 3),
    noted(Action.DATA_REMOVED, 4, target="7 objects"),
    noted(Action.REQUEST_REPEATED, 5),
    noted(Action.EVENT_PARKED, 6, **PARKED),
)

GOOD = Evidence(
    asked_faults=1,
    session_timeout_s=6.0,
    retry_base_s=1.0,
    retry_max_s=20.0,
    lag_zero_after_s=4.0,
    submissions=(submission(), submission(Kind.DUPLICATE, offset=5), submission(Kind.UNREADABLE, "poison", offset=7)),
    references={"talk.wav": FILES},
    results=(Result(RUN, "completed", None, 2, FILES),),
    partials=(Partial(RUN, 0), Partial(RUN, 1)),
    progress=(Told(RUN, 1, 0.0), Told(RUN, 2, 0.5), Told(RUN, 3, 1.0)),
    dead_letters=(letter(),),
    attempts=(
        Attempted("chunk", RUN, "job/0", 1, T0, failed=False),
        Attempted("chunk", RUN, "job/0", 1, T0 + 1, failed=True),
        Attempted("chunk", RUN, "job/0", 2, T0 + 2.2, failed=False),
    ),
    noted=TRAIL,
    logged=TRAIL[1:],
    words=frozenset({"rumpelstilzchen"}),
    readings=frozenset({(RUN, 1), (RUN, 2)}),
    cleanings=((RUN, False),),
    faults=(fault(),),
    lives=(
        Life("transcriber-0.001", "transcribe", T0 - 100, T0, -9),
        Life("transcriber-1.001", "transcribe", T0 - 100, T0 + 300, 0),
    ),
    hand_overs=(
        HandOver("transcriber-0.001", T0 - 90, "assigned", *LANE[:1], (0,)),
        HandOver("transcriber-1.001", T0 - 90, "assigned", *LANE[:1], (1,)),
        HandOver("transcriber-1.001", T0 + 6.5, "assigned", *LANE[:1], (0,)),
    ),
    computations=(
        computed(T0 - 1),
        computed(T0 + 7, "transcriber-1.001"),
        computed(T0 + 8, "transcriber-1.001", "stored"),
        computed(T0 + 8.5, "transcriber-1.001", chunk=1),
        computed(T0 + 9.5, "transcriber-1.001", "stored", chunk=1),
    ),
    standings=tuple(standing(T0 + second, 0 if second < 102 else 4) for second in range(100, 120)),
    records={LANE: (0, 2)},
    ways={"transcriber-0": "LEFT", "transcriber-1": "RIGHT"},
)
