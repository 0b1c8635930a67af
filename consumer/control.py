"""Which jobs were cancelled: every worker reads the whole control topic by itself, because a cancel must reach the one
that holds the job."""

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
        self._cancelled: OrderedDict[str, None] = OrderedDict()
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
                self._remember(self._codec.decode(record, (JobControl,)).job_id)
            except Rejected as error:
                log.debug("A control event is skipped here, intake parks it", extra={"reason": error.message})
            except Unavailable as error:
                log.debug("A control event cannot be read now", extra={"reason": error.message})
                self._unread = record
                return

    def cancelled(self, job_id: str) -> bool:
        return job_id in self._cancelled

    def _remember(self, job_id: str) -> None:
        self._cancelled[job_id] = None
        if len(self._cancelled) > MAX_REMEMBERED:
            self._cancelled.popitem(last=False)
