"""What a decision leads to: the next state and what goes out with it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from consumer.coordinator.policy import Command, Send
from consumer.coordinator.state import JobState
from consumer.core.audit import Action
from consumer.core.layout import Topic
from consumer.errors import MissingRecording
from consumer.events import AuditRecorded

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")


class Step(NamedTuple):
    """The next state and what goes out with it."""

    state: JobState
    commands: tuple[Command, ...] = ()


def preceded(commands: tuple[Command, ...], step: Step) -> Step:
    """The step, with these before what goes out with it."""
    return Step(step.state, (*commands, *step.commands))


def audit(
    state: JobState, actor: str, action: Action, target: str, now_s: float, outcome: str = "ok", run: int | None = None
) -> Send:
    """One line of the audit trail, about the present run or an earlier one."""
    line = audit_line(state.job_id, run or state.run, actor, action, target, now_s, outcome, state.traceparent)
    return Send(Topic.AUDIT, line, state.traceparent)


def audit_of_recording(state: JobState, outcome: str, now_s: float, run: int | None = None) -> tuple[Send, ...]:
    """What became of a recording that was to be deleted; nothing where none was ("")."""
    if not outcome:
        return ()
    is_gone = outcome in ("ok", MissingRecording.code)  # missing: deleted in a try whose answer was lost, or by others
    action = Action.RECORDING_DELETED if is_gone else Action.RECORDING_KEPT
    return (audit(state, "cleanup", action, recording_of(state), now_s, outcome, run),)


def recording_of(state: JobState) -> str:
    return f"{state.request.recording.bucket}/{state.request.recording.key}"


def audit_line(
    job_id: str,
    run: int,
    actor: str,
    action: Action,
    target: str,
    now_s: float,
    outcome: str,
    traceparent: str | None = None,
) -> AuditRecorded:
    return AuditRecorded(
        job_id=job_id,
        run=run,
        actor=actor,
        action=action,
        target=target,
        outcome=outcome,
        happened_at=instant(now_s),
        trace_id=trace_id(traceparent),
    )


def trace_id(traceparent: str | None) -> str | None:
    """The second field of a W3C trace context; None where there is none, or it is malformed.

    trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") -> '4bf92f3577b34da6a3ce929d0e0e4736'
    """
    found = _TRACE.match(traceparent or "")
    return found[1] if found else None


def instant(now_s: float) -> datetime:
    return datetime.fromtimestamp(now_s, UTC)
