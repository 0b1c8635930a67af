"""Which runs are cancelled: every worker reads the whole control topic by itself, because a cancel must reach the one
that holds the job.

A cancel means the runs that the topic has told of so far, so a later run of the same job is not stopped by it, however
long the topic keeps it. A worker that has read less of the topic than it could stops less than it could, never more.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from consumer.broker import Tail
from consumer.errors import Rejected, Unavailable
from consumer.events import JobControl
from consumer.ports import Received
from consumer.wire import Codec

log = logging.getLogger(__name__)

MAX_REMEMBERED = 100_000
MAX_RECORDS_PER_LOOK = 100


class ControlWatch:
    """Fed by the loop's thread, asked by the worker threads between batches."""

    def __init__(self, tail: Tail, codec: Codec) -> None:
        self._tail = tail
        self._codec = codec
        self._newest: OrderedDict[str, int] = OrderedDict()
        """Runs that were restarted: job → its newest run; every other job is in its first."""
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        """Job → the newest run that a cancel was meant for."""
        self._unread: Received | None = None
        """Came while the schema registry was away: read first of all next time."""

    def look(self) -> None:
        """Take in what is new; returns at once when nothing is."""
        for _ in range(MAX_RECORDS_PER_LOOK):
            record = self._unread or self._tail.poll(0.0)
            if record is None:
                return
            self._unread = None
            try:
                self._apply(self._codec.decode(record, (JobControl,)))
            except Rejected as error:
                log.debug("A control event is skipped here, intake parks it", extra={"reason": error.message})
            except Unavailable as error:
                log.debug("A control event cannot be read now", extra={"reason": error.message})
                self._unread = record
                return

    def cancelled(self, job_id: str, run: int) -> bool:
        return run <= self._cancelled.get(job_id, 0)

    def _apply(self, control: JobControl) -> None:
        """A retry says nothing yet: only the coordinator knows whether a new run comes of it."""
        job_id, newest = control.job_id, self._newest.get(control.job_id, 1)
        match control.action:
            case "cancel":
                _remember(self._cancelled, job_id, newest)
            case "restarted":
                _remember(self._newest, job_id, max(newest, control.run or newest))


def _remember(runs: OrderedDict[str, int], job_id: str, run: int) -> None:
    runs[job_id] = run
    runs.move_to_end(job_id)
    if len(runs) > MAX_REMEMBERED:
        runs.popitem(last=False)
