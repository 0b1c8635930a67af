"""What we know of the jobs that we watch, and how a line says it. No I/O: events in, lines out.

A job can have several runs: a forced one, a retry. The newest that is known stands for the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from consumer.core.results import ResultManifest
from consumer.errors import Superseded
from consumer.events import JobFinished, JobProgress, JobStatus, Stage
from producer_tools.terminal import duration, printable

STEP = 0.1
"""Where lines are not redrawn, a new one comes when the share of done work has grown by this much."""

MAX_CODES = 3
"""A line names so many different warnings."""

MAX_NAME = 40
"""Characters of a recording's name in a line; of a longer one the end."""


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: the news of the results topic, or what a manifest in the store tells."""

    job_id: str
    run: int
    status: JobStatus
    text: str
    """'completed  1:00:00 in 5:00  12.0 x real time  en  2 speakers'"""
    error_code: str = ""

    @classmethod
    def of_event(cls, event: JobFinished) -> End:
        code = printable(event.error.code) if event.error else ""
        return cls(event.job_id, event.run, event.status, "  ".join(_words_of_event(event)), code)

    @classmethod
    def of_manifest(cls, manifest: ResultManifest) -> End:
        words = [manifest.status.value, duration(manifest.recording.duration_s), *_words(manifest)]
        return cls(manifest.job_id, manifest.run, manifest.status, "  ".join(words))


@dataclass
class WatchedJob:
    """A job and the newest that is known of it."""

    job_id: str
    after: int = 0
    """Runs up to this one are of the past, and nothing is heard of them."""
    name: str = ""
    """What the sender calls the recording, where we were told."""
    progress: JobProgress | None = None
    end: End | None = None
    said: tuple[object, ...] = field(default=(), repr=False)

    def hear(self, event: JobProgress | JobFinished) -> None:
        """Take an event in. Events of the two topics come in any order, and some come twice."""
        if event.run <= self.after:
            return
        if isinstance(event, JobFinished):
            self.found(End.of_event(event))
        elif self.progress is None or _order(event) > _order(self.progress):
            self.progress = event

    def found(self, end: End) -> None:
        if end.run > max(self.after, self.end.run if self.end else 0):
            self.end = end

    @property
    def run(self) -> int:
        """The newest run that is known; 0 when none is."""
        return max(self.after, self.end.run if self.end else 0, self.progress.run if self.progress else 0)

    @property
    def outcome(self) -> End | None:
        """The end of the newest run; None while a newer run goes on, or is bound to come."""
        if self.end is None or self.run > self.end.run or self.end.error_code == Superseded.code:
            return None
        return self.end

    @property
    def title(self) -> str:
        """'job-17  talk.wav'"""
        name = printable(self.name)
        short = name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"
        return f"{self.job_id}  {short}" if short else self.job_id

    @property
    def line(self) -> str:
        if self.outcome is not None:
            return f"{self.title}  {self.outcome.text}"
        if self.progress is not None:
            return f"{self.title}  {progress_text(self.progress)}"
        return f"{self.title}  waiting for news"

    def news(self) -> str | None:
        """The line, when there is something to say that was not said before."""
        mark = self._mark()
        if mark == self.said:
            return None
        self.said = mark
        return self.line

    def _mark(self) -> tuple[object, ...]:
        if self.outcome is not None:
            return ("finished", self.outcome.run)
        if self.progress is not None:
            now = self.progress
            return (now.run, now.stage, now.queue_position, int(now.fraction / STEP + 1e-9))
        return ()


class Watched:
    """The jobs of one call, in its order."""

    def __init__(
        self,
        job_ids: Iterable[str],
        after: Mapping[str, int] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """`after`: of these jobs only runs after this one are meant. `names`: of their recordings."""
        past, called = after or {}, names or {}
        self._jobs = {job_id: WatchedJob(job_id, past.get(job_id, 0), called.get(job_id, "")) for job_id in job_ids}

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def hear(self, event: JobProgress | JobFinished) -> None:
        self._jobs[event.job_id].hear(event)

    def found(self, end: End) -> None:
        self._jobs[end.job_id].found(end)

    @property
    def jobs(self) -> tuple[WatchedJob, ...]:
        return tuple(self._jobs.values())

    @property
    def unfinished(self) -> tuple[WatchedJob, ...]:
        return tuple(job for job in self.jobs if job.outcome is None)

    @property
    def unheard(self) -> tuple[WatchedJob, ...]:
        """Jobs of which we know nothing."""
        return tuple(job for job in self.unfinished if job.progress is None and job.end is None)

    @property
    def statuses(self) -> tuple[JobStatus, ...]:
        return tuple(job.outcome.status for job in self.jobs if job.outcome is not None)

    def lines(self) -> list[str]:
        """A line for each job that has not ended."""
        return [job.line for job in self.unfinished]

    def news(self) -> list[str]:
        return [line for job in self.jobs if (line := job.news()) is not None]


def _order(progress: JobProgress) -> tuple[int, int]:
    return progress.run, progress.sequence


def progress_text(now: JobProgress) -> str:
    """'transcribing  42%  5 of 12 chunks  50:00 of 2:00:00  3:20 left'"""
    if now.stage is Stage.QUEUED:
        return "queued" if now.queue_position is None else f"queued, number {now.queue_position} in its lane"
    parts = [f"{now.stage.value} {100 * now.fraction:3.0f}%"]
    if now.chunks_total is not None:
        parts.append(f"{now.chunks_done} of {now.chunks_total} chunks")
    if now.audio_total_s is not None:
        parts.append(f"{duration(now.audio_done_s)} of {duration(now.audio_total_s)}")
    if now.eta_s is not None:
        parts.append(f"{duration(now.eta_s)} left")
    return "  ".join(parts)


def _words_of_event(end: JobFinished) -> list[str]:
    words = [end.status.value]
    whole = end.status in (JobStatus.COMPLETED, JobStatus.PARTIAL)  # else the recording was not done in that time
    if whole and end.recording is not None and end.timings.wall_s:
        words.append(f"{duration(end.recording.duration_s)} in {duration(end.timings.wall_s)}")
    if whole and end.timings.real_time_factor:
        words.append(f"{end.timings.real_time_factor:.1f} x real time")
    words += _words(end)
    if end.error is not None:
        words.append(printable(f"{end.error.code}: {end.error.message}"))
    return words


def _words(end: JobFinished | ResultManifest) -> list[str]:
    """What both documents know."""
    words = [printable(end.language)] if end.language else []
    if end.speakers:
        words.append(_counted(len(end.speakers), "speaker"))
    if end.chunks_failed:
        words.append(f"{len(end.chunks_failed)} of {end.chunks_total} chunks are missing")
    if end.warnings:
        codes = list(dict.fromkeys(printable(warning.code) for warning in end.warnings))
        more = " …" if len(codes) > MAX_CODES else ""
        words.append(f"{_counted(len(end.warnings), 'warning')}: {', '.join(codes[:MAX_CODES])}{more}")
    return words


def _counted(number: int, what: str) -> str:
    """_counted(2, "speaker") -> '2 speakers'"""
    return f"{number} {what}{'' if number == 1 else 's'}"
