"""What is finished and not yet published. It survives a failed transaction: nothing is computed twice for that.

The reasons are in docs/decisions/0006.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from consumer.audit import log_published
from consumer.broker import Inbox, Marks, Outbox, PublishAborted, PublishInDoubt
from consumer.errors import BrokerUnavailable
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.tasks import Lane, Output, Task

log = logging.getLogger(__name__)

MAX_OUTPUTS_PER_TRANSACTION = 64
MAX_UNPUBLISHED = 256
"""More is not collected: the workers' announcements wait."""


class Publisher:
    """Called from the loop's thread only. `condition` is the name of its readiness."""

    def __init__(
        self, outbox: Outbox, health: Health, metrics: Metrics, clock: Callable[[], float], condition: str
    ) -> None:
        self._outbox = outbox
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._condition = condition
        self._waiting: list[Output] = []
        self._doubtful: list[Output] = []
        """Those of `_waiting` whose transaction is in doubt: nothing else is published before that is settled."""
        self._retry_at = 0.0
        self._failures = 0
        self.last_error = ""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_in_doubt(self) -> bool:
        """Whether more may be published than we know of: a position committed now could move it back."""
        return bool(self._doubtful)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= MAX_UNPUBLISHED

    def add(self, output: Output) -> None:
        self._waiting.append(output)

    def holds(self, task: Task) -> bool:
        return any(output.task is task for output in self._waiting)

    def drop_revoked(self) -> None:
        """What belongs to somebody else by now is not ours to publish."""
        self._waiting = [output for output in self._waiting if not output.task.ledger.revoked]
        self._doubtful = [output for output in self._doubtful if not output.task.ledger.revoked]
        if not self._waiting:
            self._recover()

    def publish_due(self) -> list[Task]:
        """Publish unless a failure is too fresh; the tasks that have come to their end."""
        if not self._waiting or self._clock() < self._retry_at or _is_noting(self._batch()):
            return []
        return self.publish()

    def publish_all(self) -> list[Task]:
        """Publish everything, or as much as goes through: the partitions are about to be handed over."""
        ended: list[Task] = []
        before = None
        while self._waiting and (left := (len(self._waiting), self.is_in_doubt)) != before:
            before = left
            ended += self.publish()
        return ended

    def publish(self) -> list[Task]:
        """One transaction for the oldest outputs: their records, and how far each partition is done."""
        if self._doubtful:
            return self._settle()
        batch = self._batch()
        ended = [output.task for output in batch if output.finished]
        try:
            with self._metrics.transaction_seconds.time():
                self._outbox.publish([r for output in batch for r in output.records], _marks_after(batch, ended))
        except PublishAborted as error:
            return self._failed("aborted", str(error))
        except BrokerUnavailable as error:
            return self._failed("unavailable", error.message)
        except PublishInDoubt as error:
            self._doubtful = batch
            return self._failed("in_doubt", str(error))
        self._count(batch)
        del self._waiting[: len(batch)]
        return _closed(ended)

    def _batch(self) -> list[Output]:
        return self._waiting[:MAX_OUTPUTS_PER_TRANSACTION]

    def _count(self, batch: list[Output]) -> None:
        for output in batch:
            for record in output.records:
                self._metrics.records_published.labels(record.topic).inc()
            log_published(output.records)
        self._metrics.transactions.labels("committed").inc()
        self._recover()

    def _recover(self) -> None:
        self._failures = 0
        self.last_error = ""
        self._health.set_ready(self._condition, True)

    def _failed(self, outcome: str, reason: str) -> list[Task]:
        """Keep what is finished and try again soon."""
        self._failures += 1
        self.last_error = reason
        self._retry_at = self._clock() + min(5.0, 0.1 * 2**self._failures)
        self._metrics.transactions.labels(outcome).inc()
        if outcome != "aborted" or self._failures > 3:  # a rebalance aborts one or two; no answer is no answer
            self._health.set_ready(self._condition, False, reason)
        log.warning("Publishing failed and is tried again", extra={"outcome": outcome, "reason": reason})
        return []

    def _settle(self) -> list[Task]:
        """Close what the committed offsets prove to be published; the rest is published again."""
        try:
            self._outbox.settle()
            finished = [output.task for output in self._doubtful if output.finished]
            visible = [task for task in finished if _is_committed(task)]
        except BrokerUnavailable as error:
            return self._failed("unavailable", error.message)
        for output in self._doubtful:
            if output.task in visible:
                log_published(output.records)
        self._doubtful = []
        self._waiting = [output for output in self._waiting if output.task not in visible]
        return _closed(visible)


def _marks_after(batch: list[Output], ended: list[Task]) -> list[tuple[Inbox, Marks]]:
    """Positions as they will be when the batch is published; unchanged ones fence an announcing zombie."""
    places = _places(batch)
    return [(lane.inbox, {p: lane.mark(p, _offsets(ended, lane, p)) for p in held}) for lane, held in places.items()]


def _places(batch: list[Output]) -> dict[Lane, set[int]]:
    places: dict[Lane, set[int]] = {}
    for output in batch:
        places.setdefault(output.task.lane, set()).add(output.task.record.partition)
    return places


def _is_noting(batch: list[Output]) -> bool:
    """A note that is still on its way could overtake the transaction and undo its positions."""
    return any(lane.inbox.is_noting(held) for lane, held in _places(batch).items())


def _offsets(tasks: list[Task], lane: Lane, partition: int) -> frozenset[int]:
    return frozenset(t.record.offset for t in tasks if t.lane is lane and t.record.partition == partition)


def _is_committed(task: Task) -> bool:
    partition = task.record.partition
    found = task.lane.inbox.committed({partition}).get(partition)
    return found is not None and found.offset is not None and found.offset > task.record.offset


def _closed(tasks: list[Task]) -> list[Task]:
    for task in tasks:
        task.ledger.finish(task.record.offset)
        task.lane.forget(task.record)
    return tasks
