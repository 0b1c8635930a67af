"""Which runs are cancelled: every worker reads the whole control topic by itself, because a cancel must reach the one
that holds the job.

A cancel that names no run means the first. Later ones are stopped by the coordinator, which names the run on the same
topic when it ends one early: so an old cancel, which the topic keeps for days, never stops a new run, in whatever order
the partitions of the topic are read.
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
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        """Job → its newest cancelled run; those before it have ended too."""
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
                control = self._codec.decode(record, (JobControl,))
            except Rejected as error:
                log.debug("A control event is skipped here, intake parks it", extra={"reason": error.message})
            except Unavailable as error:
                log.debug("A control event cannot be read now", extra={"reason": error.message})
                self._unread = record
                return
            else:
                self._remember(control)

    def cancelled(self, job_id: str, run: int) -> bool:
        return run <= self._cancelled.get(job_id, 0)

    def _remember(self, control: JobControl) -> None:
        if control.action != "cancel":
            return
        known = self._cancelled.pop(control.job_id, 0)
        self._cancelled[control.job_id] = max(known, control.run or 1)
        if len(self._cancelled) > MAX_REMEMBERED:
            self._cancelled.popitem(last=False)
