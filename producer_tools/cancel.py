"""Ask for the end of jobs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from consumer.contracts import faults
from consumer.core.layout import Topic
from consumer.events import JobControl
from producer_tools.connection import Connection
from producer_tools.faults import WrongUsage
from producer_tools.publishing import Publisher, as_avro
from producer_tools.result import require_job_id
from producer_tools.submit import Now
from producer_tools.terminal import Terminal


def cancel(
    jobs: Sequence[str], reason: str | None, who: str | None, connection: Connection, terminal: Terminal, now: Now
) -> None:
    """Publish one request per job. Raises WrongUsage, and what Publisher raises."""
    controls = controls_for(jobs, reason, who)
    Publisher(connection, Topic.CONTROL, as_avro(connection.codec()), now).publish(controls)
    for control in controls:
        terminal.say(
            f"asked to cancel {control.job_id}; if there is such a job and it has not ended, its result will say so"
        )


def controls_for(jobs: Sequence[str], reason: str | None, who: str | None) -> list[JobControl]:
    ids = [require_job_id(job) for job in dict.fromkeys(jobs)]
    try:
        return [JobControl(job_id=job, action="cancel", reason=reason, requested_by=who) for job in ids]
    except ValidationError as exc:
        raise WrongUsage(f"this cancel cannot be: {faults(exc)}") from exc
