"""What a decision leads to: the next state and what goes out with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from consumer.coordinator.policy import Command, Send
from consumer.coordinator.state import JobState
from consumer.core.layout import Topic
from consumer.events import AuditRecorded


class Step(NamedTuple):
    """The next state and what goes out with it."""

    state: JobState
    commands: tuple[Command, ...] = ()


def audit(
    state: JobState, actor: str, action: str, target: str, now_s: float, outcome: str = "ok", run: int | None = None
) -> Send:
    """One line of the audit trail, about the present run or an earlier one."""
    line = audit_line(state.job_id, run or state.run, actor, action, target, now_s, outcome)
    return Send(Topic.AUDIT, line, state.traceparent)


def audit_line(
    job_id: str, run: int, actor: str, action: str, target: str, now_s: float, outcome: str
) -> AuditRecorded:
    return AuditRecorded(
        job_id=job_id,
        run=run,
        actor=actor,
        action=action,
        target=target,
        outcome=outcome,
        happened_at=instant(now_s),
    )


def instant(now_s: float) -> datetime:
    return datetime.fromtimestamp(now_s, UTC)
