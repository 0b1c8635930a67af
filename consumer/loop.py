"""The loop: one thread owns the Kafka clients, work runs in others, finished work and its offset go out together.

    poll ─► hand-off (bounded in seconds of audio) ─► worker threads ─► finished ─► transaction: answers + offsets

The thread polls also while everything is paused; it blocks only in a transaction's end, with a bound. Records finish
in any order, and a partition's offset moves to its contiguous done mark. What a record means, the handler knows: here
are only bytes, offsets and ownership. The evidence for each rule is in docs/kafka.md.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from consumer.broker import Inbox, Mark, Marks, Outbox, PublishAborted, PublishInDoubt, Rebalance
from consumer.core.attempts import read_note, write_note
from consumer.core.offsets import Ledger
from consumer.errors import Abandoned, BrokerUnavailable
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.ports import Outgoing, Received

log = logging.getLogger(__name__)

POLL_S = 0.05
IDLE_COMMIT_S = 5.0
LAG_INTERVAL_S = 1.0
MAX_OUTPUTS_PER_TRANSACTION = 64
MAX_UNPUBLISHED = 256
"""Announcements that wait for a transaction; a worker that is faster than that waits."""


class Ticket(Protocol):
    """What the loop lends to the handler for one record."""

    @property
    def number(self) -> int:
        """How often this record has been begun, this time included: more than 1 after its worker died."""
        ...

    def announce(self, records: Sequence[Outgoing]) -> None: ...

    def report(self, record: Outgoing) -> None: ...

    def check(self) -> None:
        """Raise Abandoned when the record belongs to somebody else by now."""
        ...

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up with Abandoned as soon as that is the case."""
        ...


class Handler(Protocol):
    """What is done with a record: called in a worker thread."""

    @property
    def role(self) -> str: ...

    @property
    def weighs_audio(self) -> bool:
        """Whether weights are seconds of audio."""
        ...

    def weight(self, record: Received) -> float:
        """What the record takes of the hand-off: seconds of audio, or 1 where work has no length."""
        ...

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        """The answer. Raises Abandoned to leave the record to its new owner; anything else ends the process."""
        ...

    def give_up(self, record: Received, attempts: int) -> Sequence[Outgoing]:
        """The answer for a record that has killed its worker this often."""
        ...


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """From the settings. `capacity` bounds the hand-off in the handler's weights."""

    capacity: float
    workers: int = 1
    grace_s: float = 60.0
    low_lane_share: float = 0.1
    fatal_attempts: int = 3
    """A record that was begun this often without an end is given up."""


@dataclass(eq=False, slots=True)
class _Lane:
    """One topic of the loop; lanes are polled in their order."""

    inbox: Inbox
    ledgers: dict[int, Ledger] = field(default_factory=dict)
    begun: dict[int, dict[int, int]] = field(default_factory=dict)
    """Per partition: offset → how often it was begun, for the attempt marks."""
    paused: bool = False

    def mark(self, partition: int) -> Mark:
        """What to commit for a partition: its contiguous done mark and the notes on what is in work."""
        ledger = self.ledgers[partition]
        offset = ledger.mark
        notes = {o: n for o, n in self.begun.get(partition, {}).items() if offset is not None and o >= offset}
        return Mark(offset, write_note(notes))


@dataclass(eq=False, slots=True)
class _Task:
    """One record in work. Its ledger tells whether it still belongs to us."""

    lane: _Lane
    ledger: Ledger
    record: Received
    weight: float
    number: int
    stop: threading.Event = field(default_factory=threading.Event)
    started: bool = False

    @property
    def abandoned(self) -> bool:
        return self.ledger.revoked or self.stop.is_set()


@dataclass(frozen=True, slots=True)
class _Output:
    """Records to publish for a task; `finished` moves its offset as well."""

    task: _Task
    records: tuple[Outgoing, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class _Crash:
    """A handler raised what it must not: the process ends without committing."""

    task: _Task
    error: BaseException


class Loop:
    """See the module. `run` returns after `stop`, or raises what ended it."""

    def __init__(
        self,
        handler: Handler,
        inboxes: Sequence[Inbox],
        outbox: Outbox,
        limits: LoopLimits,
        *,
        health: Health,
        metrics: Metrics,
        clock: Callable[[], float],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._handler = handler
        self._lanes = [_Lane(inbox) for inbox in inboxes]
        self._outbox = outbox
        self._limits = limits
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._watch = watch
        self._tasks: list[_Task] = []
        self._todo: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._outputs: queue.Queue[_Output | _Crash] = queue.Queue(MAX_UNPUBLISHED)
        self._unpublished: list[_Output] = []
        self._retry_at = 0.0
        self._failed_publishes = 0
        self._idle_commit_at = 0.0
        self._lag_at = 0.0
        self._taken = 0
        self._stopping = threading.Event()
        self._last_error = ""

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Work until `stop`. Raises BrokenWorker, Misconfigured, or the bug that a handler had."""
        self.open()
        try:
            while not self._stopping.is_set():
                self.turn()
            self.drain()
        finally:
            self._close()

    def open(self) -> None:
        """Start the worker threads and join the groups."""
        self._start_workers()
        for lane in self._lanes:
            lane.inbox.open(self._rebalance(lane))

    def drain(self) -> None:
        """After `stop`: finish what runs within the grace period, give the rest back."""
        self._health.drain()
        log.info("Draining", extra={"role": self._handler.role, "in_work": len(self._tasks)})
        for task in self._tasks:
            if not task.started:
                task.stop.set()
        stop_at = self._clock() + self._limits.grace_s
        while self._is_busy() and self._clock() < stop_at:
            self.turn()
        self._give_back()

    def stop(self) -> None:
        """Take nothing more; finish what runs if it fits into the grace period. Safe to call from a signal handler."""
        self._stopping.set()

    def turn(self) -> None:
        """One round: poll every lane, publish what is finished, tidy up."""
        self._take()
        self._watch()
        self._publish()
        self._commit_idle()
        self._sign_of_life()

    def describe(self) -> dict[str, object]:
        """Why is it not moving? For /debug/consumer."""
        return {
            "role": self._handler.role,
            "draining": self._stopping.is_set(),
            "assignment": {lane.inbox.topic: sorted(lane.ledgers) for lane in self._lanes},
            "paused": {lane.inbox.topic: "hand-off is full" for lane in self._lanes if lane.paused},
            "in_work": [
                f"{t.record.topic}[{t.record.partition}]@{t.record.offset} attempt {t.number}" for t in self._tasks
            ],
            "unpublished": len(self._unpublished),
            "last_publish_error": self._last_error,
        }

    def _start_workers(self) -> None:
        for number in range(self._limits.workers):
            name = f"{self._handler.role}-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _is_busy(self) -> bool:
        running = any(not task.abandoned for task in self._tasks)
        return running or bool(self._unpublished) or not self._outputs.empty()

    def _give_back(self) -> None:
        """Leave in good order: what was not finished was not its fault, so its attempt marks go."""
        for task in self._tasks:
            task.stop.set()
            task.lane.begun.get(task.record.partition, {}).pop(task.record.offset, None)
        for lane in self._lanes:
            marks = {p: lane.mark(p) for p in lane.ledgers if lane.ledgers[p].mark is not None}
            try:
                lane.inbox.commit(marks)
            except (PublishAborted, BrokerUnavailable) as error:
                log.info("Attempt marks stay", extra={"topic": lane.inbox.topic, "reason": str(error)})

    def _close(self) -> None:
        for task in self._tasks:
            task.stop.set()
        for _ in range(self._limits.workers):
            self._todo.put(None)
        for lane in self._lanes:
            if not lane.inbox.close(timeout_s=10.0):
                log.warning("Leaving the group took too long", extra={"topic": lane.inbox.topic})
        self._outbox.close(timeout_s=5.0)
        self._health.loop_ended(self._handler.role)

    # ── rebalances: called from inside poll ─────────────────────────────────────────────────────────────────────────

    def _rebalance(self, lane: _Lane) -> Rebalance:
        return Rebalance(
            assigned=lambda partitions: self._assigned(lane, partitions),
            revoked=lambda partitions: self._revoked(lane, partitions),
            lost=lambda partitions: self._lost(lane, partitions),
        )

    def _assigned(self, lane: _Lane, partitions: set[int]) -> None:
        """New partitions arrive un-paused whatever the others are: say explicitly what they are to be."""
        for partition in partitions:
            lane.ledgers[partition] = Ledger()
            lane.begun[partition] = {}
        if lane.paused:
            lane.inbox.pause(partitions)
        else:
            lane.inbox.resume(partitions)
        for partition, mark in self._committed(lane, partitions).items():
            lane.begun[partition] = read_note(mark.note)
        self._count_rebalance("assigned", lane, partitions)

    def _committed(self, lane: _Lane, partitions: set[int]) -> Marks:
        try:
            return lane.inbox.committed(partitions)
        except BrokerUnavailable as error:
            log.info("Attempt marks cannot be read now", extra={"topic": lane.inbox.topic, "reason": str(error)})
            return {}

    def _revoked(self, lane: _Lane, partitions: set[int]) -> None:
        """Still ours until we return: publish what is finished, give the rest back without a mark."""
        self._collect()
        self._publish_now()
        given_back = {task.record.partition for task in self._of(lane, partitions)}
        try:
            lane.inbox.commit({p: Mark(lane.ledgers[p].mark) for p in given_back})
        except (PublishAborted, BrokerUnavailable) as error:
            log.info("Attempt marks stay", extra={"topic": lane.inbox.topic, "reason": str(error)})
        self._lost(lane, partitions, "revoked")

    def _lost(self, lane: _Lane, partitions: set[int], kind: str = "lost") -> None:
        """Somebody else owns them: commit nothing, drop at once. The checkpoint makes that cheap."""
        for partition in partitions & lane.ledgers.keys():
            lane.ledgers.pop(partition).revoked = True
            lane.begun.pop(partition, None)
        for task in self._tasks:
            if task.abandoned:
                task.stop.set()
        self._unpublished = [output for output in self._unpublished if not output.task.ledger.revoked]
        self._count_rebalance(kind, lane, partitions)

    def _of(self, lane: _Lane, partitions: set[int]) -> list[_Task]:
        return [task for task in self._tasks if task.lane is lane and task.record.partition in partitions]

    def _count_rebalance(self, kind: str, lane: _Lane, partitions: set[int]) -> None:
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.assigned_partitions.labels(lane.inbox.topic).set(len(lane.ledgers))
        fields = {"topic": lane.inbox.topic, "kind": kind, "partitions": sorted(partitions)}
        log.info("Partitions changed hands", extra=fields)

    # ── taking work ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> None:
        """Poll every lane once, highest first; with room, every n-th record is looked for in the lowest first."""
        self._set_flow()
        for lane in self._in_order():
            record = self._poll(lane, POLL_S if lane is self._lanes[-1] else 0.0)
            if record is not None:
                self._accept(lane, record)
                return

    def _in_order(self) -> list[_Lane]:
        share = self._limits.low_lane_share
        turn_of_low = share > 0 and len(self._lanes) > 1 and self._taken % max(1, round(1 / share)) == 0
        return self._lanes[::-1] if turn_of_low and self._taken else self._lanes

    def _poll(self, lane: _Lane, timeout_s: float) -> Received | None:
        try:
            record = lane.inbox.poll(timeout_s)
        except BrokerUnavailable as error:
            self._health.set_ready("broker", False, error.message)
            return None
        self._health.poll_seen(self._handler.role)
        return record

    def _room(self) -> bool:
        held = sum(task.weight for task in self._tasks)
        return not self._stopping.is_set() and (not self._tasks or held < self._limits.capacity)

    def _set_flow(self) -> None:
        full = not self._room()
        for lane in self._lanes:
            if lane.paused != full:
                lane.paused = full
                (lane.inbox.pause if full else lane.inbox.resume)(set(lane.ledgers))

    def _accept(self, lane: _Lane, record: Received) -> None:
        """Take the record, or put it back when there is no room (it was on its way when we paused)."""
        ledger = lane.ledgers.get(record.partition)
        if ledger is None:
            return
        if not self._room():
            lane.inbox.seek(record.partition, record.offset)
            lane.inbox.pause({record.partition})
            lane.paused = True
            return
        ledger.take(record.offset)
        begun = lane.begun[record.partition]
        number = begun[record.offset] = begun.get(record.offset, 0) + 1
        task = _Task(lane, ledger, record, self._handler.weight(record), number)
        self._tasks.append(task)
        self._taken += 1
        self._metrics.records_consumed.labels(record.topic).inc()
        if number > self._limits.fatal_attempts:
            self._abandon_poison(task)
        elif self._mark_attempt(task):
            self._todo.put(task)

    def _mark_attempt(self, task: _Task) -> bool:
        """Write the attempt down before it begins, so that the next process knows. False: no longer ours."""
        partition = task.record.partition
        try:
            task.lane.inbox.commit({partition: task.lane.mark(partition)})
        except PublishAborted:
            task.stop.set()
            self._tasks.remove(task)
            return False
        except BrokerUnavailable as error:
            log.info("The attempt mark is not stored", extra={"topic": task.record.topic, "reason": error.message})
        return True

    def _abandon_poison(self, task: _Task) -> None:
        log.error(
            "A record keeps killing its worker and is given up",
            extra={"topic": task.record.topic, "partition": task.record.partition, "offset": task.record.offset},
        )
        records = tuple(self._handler.give_up(task.record, task.number - 1))
        self._unpublished.append(_Output(task, records, finished=True))

    # ── work: in the worker threads ─────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            if task.abandoned:
                continue
            task.started = True
            self._health.step_started(self._handler.role)
            try:
                records = tuple(self._handler(task.record, _LoopTicket(task, self)))
            except Abandoned:
                task.stop.set()
            except BaseException as error:  # noqa: BLE001  (handed to the loop's thread, which raises it)
                self._outputs.put(_Crash(task, error))
            else:
                self._outputs.put(_Output(task, records, finished=True))
            self._health.step_finished(self._handler.role)

    # ── publishing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _collect(self) -> None:
        """Take over what the workers made. Raises what a handler raised."""
        while True:
            try:
                output = self._outputs.get_nowait()
            except queue.Empty:
                break
            if isinstance(output, _Crash):
                raise output.error
            if not output.task.ledger.revoked:
                self._unpublished.append(output)
        self._tasks = [task for task in self._tasks if not (task.abandoned and task not in self._with_output())]

    def _with_output(self) -> set[_Task]:
        return {output.task for output in self._unpublished}

    def _publish(self) -> None:
        self._collect()
        if self._unpublished and self._clock() >= self._retry_at:
            self._publish_now()

    def _publish_now(self) -> None:
        """One transaction for what is finished: the answers, and how far each partition is done."""
        batch = self._unpublished[:MAX_OUTPUTS_PER_TRANSACTION]
        if not batch:
            return
        finished = {output.task for output in batch if output.finished}
        records = [record for output in batch for record in output.records]
        try:
            marks = self._marks_after(batch, finished)
            with self._metrics.transaction_seconds.time():
                self._outbox.publish(records, marks)
        except PublishAborted as error:
            self._publish_failed("aborted", str(error))
        except BrokerUnavailable as error:
            self._publish_failed("unavailable", error.message)
        except PublishInDoubt as error:
            self._settle_doubt(batch)
            self._publish_failed("in_doubt", str(error))
        else:
            self._published(batch, finished)

    def _marks_after(self, batch: list[_Output], finished: set[_Task]) -> list[tuple[Inbox, Marks]]:
        """Positions as they will be when the batch is published; unchanged ones fence an announcing zombie."""
        marks: dict[_Lane, dict[int, Mark]] = {}
        for output in batch:
            task = output.task
            lane, partition = task.lane, task.record.partition
            done = {t.record.offset for t in finished if t.lane is lane and t.record.partition == partition}
            offset = task.ledger.mark_without(done)
            notes = {o: n for o, n in lane.begun[partition].items() if o not in done and offset is not None}
            marks.setdefault(lane, {})[partition] = Mark(offset, write_note(notes))
        return [(lane.inbox, of_lane) for lane, of_lane in marks.items()]

    def _published(self, batch: list[_Output], finished: set[_Task]) -> None:
        del self._unpublished[: len(batch)]
        for task in finished:
            task.ledger.finish(task.record.offset)
            task.lane.begun.get(task.record.partition, {}).pop(task.record.offset, None)
            self._tasks.remove(task)
        for output in batch:
            for record in output.records:
                self._metrics.records_published.labels(record.topic).inc()
        self._metrics.transactions.labels("committed").inc()
        self._failed_publishes = 0
        self._last_error = ""
        self._health.set_ready("broker", True)

    def _publish_failed(self, outcome: str, reason: str) -> None:
        """Keep the finished work and try again soon: nothing is computed twice for a broker's sake."""
        self._failed_publishes += 1
        self._last_error = reason
        self._retry_at = self._clock() + min(5.0, 0.1 * 2**self._failed_publishes)
        self._metrics.transactions.labels(outcome).inc()
        if self._failed_publishes > 3:
            self._health.set_ready("broker", False, reason)
        log.warning("Publishing failed and is tried again", extra={"outcome": outcome, "reason": reason})

    def _settle_doubt(self, batch: list[_Output]) -> None:
        """Drop what the committed offsets prove to be published; the new producer has settled the old transaction."""
        visible: list[_Task] = []
        for task in {output.task for output in batch if output.finished}:
            partition = task.record.partition
            found = self._committed(task.lane, {partition}).get(partition)
            if found is not None and found.offset is not None and found.offset > task.record.offset:
                visible.append(task)
        for task in visible:
            task.ledger.finish(task.record.offset)
            self._tasks.remove(task)
        self._unpublished = [output for output in self._unpublished if output.task not in visible]

    # ── tidying up ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _commit_idle(self) -> None:
        """Move idle partitions behind the commit markers, else their lag stays 1 and nothing scales to zero."""
        if self._clock() < self._idle_commit_at:
            return
        self._idle_commit_at = self._clock() + IDLE_COMMIT_S
        for lane in self._lanes:
            try:
                self._commit_positions(lane)
            except (PublishAborted, BrokerUnavailable) as error:
                log.info("Idle positions are not committed", extra={"topic": lane.inbox.topic, "reason": str(error)})

    def _commit_positions(self, lane: _Lane) -> None:
        moved: dict[int, Mark] = {}
        for partition, ledger in lane.ledgers.items():
            position = lane.inbox.position(partition) if ledger.idle else None
            if position is not None and position > (ledger.committed_idle or 0):
                moved[partition] = Mark(position)
        lane.inbox.commit(moved)
        for partition, mark in moved.items():
            lane.ledgers[partition].committed_idle = mark.offset

    def _sign_of_life(self) -> None:
        role = self._handler.role
        self._metrics.handoff_events.labels(role).set(len(self._tasks))
        if self._handler.weighs_audio:
            self._metrics.handoff_audio_seconds.labels(role).set(sum(task.weight for task in self._tasks))
        for lane in self._lanes:
            paused = len(lane.ledgers) if lane.paused else 0
            self._metrics.paused_partitions.labels(lane.inbox.topic).set(paused)
        self._tell_lag()

    def _tell_lag(self) -> None:
        if self._clock() < self._lag_at:
            return
        self._lag_at = self._clock() + LAG_INTERVAL_S
        for lane in self._lanes:
            self._metrics.tell_lag(lane.inbox.topic, lane.inbox.lag())


class _LoopTicket:
    """The worker thread's side of a task."""

    def __init__(self, task: _Task, loop: Loop) -> None:
        self._task = task
        self._loop = loop

    @property
    def number(self) -> int:
        return self._task.number

    def announce(self, records: Sequence[Outgoing]) -> None:
        self.check()
        output = _Output(self._task, tuple(records), finished=False)
        while True:
            try:
                self._loop._outputs.put(output, timeout=1.0)
                return
            except queue.Full:
                self.check()

    def report(self, record: Outgoing) -> None:
        if not self._loop._outbox.send(record):
            self._loop._metrics.progress_dropped.inc()

    def check(self) -> None:
        self._loop._health.step_started(self._loop._handler.role)
        if self._task.abandoned:
            raise Abandoned("the partition changed hands or the process ends; the next owner goes on")

    def wait(self, seconds: float) -> None:
        self._task.stop.wait(seconds)
        self.check()
