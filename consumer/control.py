"""Which runs are cancelled: every worker reads the whole control topic by itself, because a cancel must reach the one
that holds the job.

A cancel that names no run means the first. Later ones are stopped by the coordinator, which names the run on the same
topic when it ends one early: so an old cancel, which the topic keeps for days, never stops a new run, in whatever order
the partitions of the topic are read.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass

from consumer.broker import Tail
from consumer.errors import Rejected, Unavailable
from consumer.events import JobControl
from consumer.ports import Received
from consumer.wire import Codec

log = logging.getLogger(__name__)

MAX_REMEMBERED = 100_000
MAX_RECORDS_PER_LOOK = 100


@dataclass(frozen=True, slots=True)
class Cancel:
    """It ends this run; those before it have ended too."""

    run: int
    requested_by: str | None


class ControlWatch:
    """Fed by the loop's thread, asked by the worker threads between batches."""

    def __init__(self, tail: Tail, codec: Codec) -> None:
        self._tail = tail
        self._codec = codec
        self._cancelled: OrderedDict[str, Cancel] = OrderedDict()
        """Job → the first cancel of its newest cancelled run."""
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

    def cancelled(self, job_id: str, run: int) -> Cancel | None:
        """What ended this run, if anything did."""
        known = self._cancelled.get(job_id)
        return known if known is not None and run <= known.run else None

    def _remember(self, control: JobControl) -> None:
        if control.action != "cancel":
            return
        known, heard = self._cancelled.pop(control.job_id, None), Cancel(control.run or 1, control.requested_by)
        self._cancelled[control.job_id] = heard if known is None or heard.run > known.run else known
        if len(self._cancelled) > MAX_REMEMBERED:
            self._cancelled.popitem(last=False)
