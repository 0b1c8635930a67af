"""Ask for another run of jobs that ended without their whole text, and know which runs there were before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from pydantic import ValidationError

from consumer.contracts import faults
from consumer.core.layout import Topic
from consumer.events import JobControl, JobFinished, JobProgress, JobStatus
from producer_tools.connection import Connection
from producer_tools.faults import NotFound, WrongUsage
from producer_tools.publishing import Publisher, as_avro
from producer_tools.result import require_job_id
from producer_tools.submit import Now
from producer_tools.tail import Tail
from producer_tools.terminal import Terminal
from producer_tools.watch import read_event, stored_result
from producer_tools.watched import End, Watched, WatchedJob, progress_text


def retry(
    jobs: Sequence[str],
    reason: str | None,
    who: str | None,
    since: datetime,
    connection: Connection,
    terminal: Terminal,
    now: Now,
) -> dict[str, int]:
    """Publish one request per job; the run of each that is to be made good. All are asked for, or none is.

    Raises NotFound, WrongUsage (there is nothing to retry), and what Publisher and Tail raise.
    """
    known = look_up(jobs, since, connection, terminal)
    controls = [_control(job, reason, who) for job in known.jobs]
    Publisher(connection, Topic.CONTROL, as_avro(connection.codec()), now).publish(controls)
    for control in controls:
        terminal.say(f"asked to run {control.job_id} again, to make good run {control.run}")
    return {job.job_id: job.run for job in known.jobs}


def look_up(jobs: Sequence[str], since: datetime, connection: Connection, terminal: Terminal) -> Watched:
    """What is known of these jobs by now: from the topics, and from the store where those are silent."""
    known = Watched(map(require_job_id, jobs))
    for event in _news(since, connection, terminal, known.__contains__):
        known.hear(event)
    for job in known.unheard:
        manifest = stored_result(connection, job.job_id)
        if manifest is not None:
            job.found(End.of_manifest(manifest))
    return known


class RunsBefore:
    """The newest run of each job before one is forced, so that its end is not taken for that of the new one."""

    def __init__(self, since: datetime, connection: Connection, terminal: Terminal) -> None:
        self._connection = connection
        self.runs: dict[str, int] = {}
        """Of the jobs that were noted: the newest run, 0 when none is known."""
        self._heard: dict[str, int] = {}
        for event in _news(since, connection, terminal, lambda _: True):
            self._heard[event.job_id] = max(event.run, self._heard.get(event.job_id, 0))

    def note(self, job_id: str) -> None:
        """To be called before the job is forced."""
        manifest = stored_result(self._connection, job_id) if job_id not in self._heard else None
        self.runs[job_id] = manifest.run if manifest is not None else self._heard.get(job_id, 0)


def _news(
    since: datetime, connection: Connection, terminal: Terminal, wanted: Callable[[str], bool]
) -> Iterator[JobProgress | JobFinished]:
    codec = connection.codec()
    topics = [connection.topic(Topic.PROGRESS), connection.topic(Topic.RESULTS)]
    with Tail.since(connection.settings.kafka, topics, int(since.timestamp() * 1000)) as tail:
        for record in tail.read_to_end():
            if wanted((record.key or b"").decode(errors="replace")):
                event = read_event(codec, record, terminal)
                if event is not None and wanted(event.job_id):
                    yield event


def _control(job: WatchedJob, reason: str | None, who: str | None) -> JobControl:
    """Raises NotFound, or WrongUsage when there is nothing to retry."""
    _require_failure(job)
    try:
        return JobControl(job_id=job.job_id, action="retry", run=job.run, reason=reason, requested_by=who)
    except ValidationError as exc:
        raise WrongUsage(f"this retry cannot be: {faults(exc)}") from exc


def _require_failure(job: WatchedJob) -> None:
    outcome = job.outcome
    if not job.run:
        raise NotFound(
            f"nothing is known of {job.job_id}, so nothing was sent; look further back with --since, or submit it again"
        )
    if outcome is None:
        how = progress_text(job.progress) if job.progress else "its newest run has not ended"
        raise WrongUsage(f"{job.job_id} is still running ({how}), so nothing was sent; `whisperx-jobs cancel` ends it")
    if outcome.status is JobStatus.COMPLETED:
        raise WrongUsage(
            f"run {outcome.run} of {job.job_id} is completed: there is nothing to retry, and nothing was sent; "
            "`whisperx-jobs submit --force` makes a new run"
        )
