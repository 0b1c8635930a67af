"""Follow jobs until they have ended, from the progress and results topics."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumer.core.layout import Topic
from consumer.core.results import ResultManifest
from consumer.errors import InvalidEvent, UnreadableEvent, WhisperXError
from consumer.events import JobFinished, JobProgress
from consumer.ports import Received
from consumer.results_lookup import find_result
from consumer.wire import Codec
from producer_tools.connection import Connection
from producer_tools.exit_codes import Exit, of_outcomes
from producer_tools.result import require_job_id
from producer_tools.tail import Tail
from producer_tools.terminal import Terminal, printable
from producer_tools.watched import End, Watched, WatchedJob

_STEP_S = 0.2
"""How long one wait is: Ctrl-C is heard between two."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds of `clock`; None: for ever."""

    timeout_s: float | None
    clock: Callable[[], float] = time.monotonic

    def ends_at(self) -> float:
        return float("inf") if self.timeout_s is None else self.clock() + self.timeout_s


def watch(
    job_ids: Sequence[str],
    since: datetime,
    patience: Patience,
    connection: Connection,
    terminal: Terminal,
    after: Mapping[str, int] | None = None,
    names: Mapping[str, str] | None = None,
) -> Exit:
    """Show how the jobs are doing; on stdout one line per job as it ends: id, status, error code.

    Of a job with several runs the newest one counts; of those in `after` only runs after that one. `names` are what
    the sender calls their recordings.

    Raises WrongUsage, Misconfigured, BrokerUnavailable.
    """
    watched = Watched(map(require_job_id, job_ids), after, names)
    topics = [connection.topic(Topic.PROGRESS), connection.topic(Topic.RESULTS)]
    with Tail.since(connection.settings.kafka, topics, int(since.timestamp() * 1000)) as tail:
        watcher = _Watcher(watched, tail, connection, terminal)
        try:
            done = watcher.run(patience)
        except KeyboardInterrupt:
            terminal.erase()
            terminal.say(f"Not watching any more; the jobs go on. Watch again: {again(watched)}")
            return Exit.INTERRUPTED
    if not done:
        terminal.say(f"Time is over; what has not ended goes on. Watch again: {again(watched)}")
        return Exit.TIMED_OUT
    return of_outcomes(watched.statuses)


def again(watched: Watched) -> str:
    return shlex.join(["whisperx-jobs", "watch", *(job.job_id for job in watched.unfinished or watched.jobs)])


class _Watcher:
    def __init__(self, watched: Watched, tail: Tail, connection: Connection, terminal: Terminal) -> None:
        self._watched = watched
        self._tail = tail
        self._connection = connection
        self._terminal = terminal
        self._codec = connection.codec()
        self._reported: set[str] = set()
        self._looked_up = False

    def run(self, patience: Patience) -> bool:
        """Whether all jobs ended in time."""
        ends_at = patience.ends_at()
        while patience.clock() < ends_at:
            record = self._tail.poll(_STEP_S)
            if record is not None:
                self._hear(record)
            # Before the end of what is there we may hold the end of an old run for the end of the job.
            if self._tail.caught_up and self._show():
                return True
        self._terminal.erase()
        return False

    def _hear(self, record: Received) -> None:
        if (record.key or b"").decode(errors="replace") not in self._watched:
            return
        event = read_event(self._codec, record, self._terminal)
        if event is not None and event.job_id in self._watched:
            self._watched.hear(event)

    def _show(self) -> bool:
        """Show what is new; whether all jobs have ended."""
        if not self._looked_up:
            self._looked_up = True
            self._look_up_unheard()
        if self._terminal.interactive:
            self._terminal.draw(self._watched.lines())
        else:
            for line in self._watched.news():
                self._terminal.say(line)
        return self._report_ended()

    def _report_ended(self) -> bool:
        for job in self._watched.jobs:
            end = job.outcome
            if end is not None and job.job_id not in self._reported:
                self._reported.add(job.job_id)
                if self._terminal.interactive:
                    self._terminal.say(job.line)
                self._terminal.data(f"{job.job_id}\t{end.status.value}\t{end.error_code}")
        return not self._watched.unfinished

    def _look_up_unheard(self) -> None:
        """A job may have ended before the time from which we read: then its manifest is in the store."""
        for job in self._watched.unheard:
            manifest = stored_result(self._connection, job.job_id)
            if manifest is not None:
                self._watched.found(End.of_manifest(manifest))
            if job.outcome is None:
                self._terminal.say(_waiting_for(job))


def _waiting_for(job: WatchedJob) -> str:
    if job.after:
        return f"Nothing is known yet of a run of {job.job_id} after run {job.after}; waiting"
    return f"Nothing is known of {job.job_id} yet; waiting. If it is older, look further back with --since"


def read_event(codec: Codec, record: Received, terminal: Terminal) -> JobProgress | JobFinished | None:
    """None, and a word to the reader, for what is no event of ours."""
    expected: tuple[type[JobProgress] | type[JobFinished], ...] = (JobProgress, JobFinished)
    try:
        return codec.decode(record, expected)
    except (UnreadableEvent, InvalidEvent) as exc:
        terminal.say(printable(f"skipped a record: {exc.message}"))
        return None


def stored_result(connection: Connection, job_id: str) -> ResultManifest | None:
    """None also where the store cannot be asked: then the topics will tell."""
    try:
        return find_result(connection.store(), connection.settings.store.results_bucket, job_id)
    except (WhisperXError, ValueError):
        return None
