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
from dataclasses import dataclass

from consumer.broker import Inbox, Mark, Marks, Outbox, PublishAborted, Rebalance
from consumer.core.offsets import Ledger
from consumer.core.turns import Turns, Waiting
from consumer.errors import Abandoned, BrokerUnavailable
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.ports import Outgoing, Received
from consumer.publishing import MAX_UNPUBLISHED, Publisher
from consumer.tasks import Crash, Handler, Lane, Output, Task

log = logging.getLogger(__name__)

POLL_S = 0.05
IDLE_COMMIT_S = 5.0
NOTE_AGAIN_ROUNDS = 6
LAG_INTERVAL_S = 5.0
CLOSE_S = 10.0
"""For leaving all groups: a pod's grace period has an end, and a group notices by itself."""
SILENCE_S = 5.0
"""After so long without a record the broker is asked whether it is there."""
ASK_AGAIN_S = 2.0
"""While it is away, how often it is asked whether it is back."""


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """From the settings. `capacity` bounds the hand-off in the handler's weights."""

    capacity: float
    workers: int = 1
    grace_s: float = 60.0
    revoke_wait_s: float = 0.0
    """How long running work may hold up the hand-over of its partition, to be published by us."""
    low_lane_share: float = 0.1
    fatal_attempts: int = 3
    """A record that was begun this often without an end is given up."""


class Loop:
    """See the module. `run` returns after `stop`, or raises what ended it. `clock` counts seconds, never back."""

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
        self._lanes = [Lane(inbox) for inbox in inboxes]
        self._outbox = outbox
        self._limits = limits
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._watch = watch
        self._tasks: list[Task] = []
        self._todo: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._outputs: queue.Queue[Output | Crash] = queue.Queue(MAX_UNPUBLISHED)
        self._publisher = Publisher(outbox, health, metrics, clock, f"{handler.role} broker")
        self._idle_commit_at = 0.0
        self._idle_rounds = 0
        self._lag_at = 0.0
        self._taken = 0
        self._turns: Turns[bytes] = Turns()
        self._stopping = threading.Event()
        self._failed = False
        """Ended by an error: publish nothing more, and leave the attempt marks as they are."""

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Work until `stop`. Raises BrokenWorker, Misconfigured, or the bug that a handler had."""
        self.open()
        try:
            while not self._stopping.is_set():
                self.turn()
            self.drain()
        except BaseException:
            self._failed = True
            raise
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
            if task.waits:
                task.stop.set()
        stop_at = self._clock() + self._limits.grace_s
        while self._is_busy() and self._clock() < stop_at:
            self.turn()
        self._give_back(self._lanes, self._tasks)

    def stop(self) -> None:
        """Take nothing more; finish what runs if it fits into the grace period. Safe to call from a signal handler."""
        self._stopping.set()

    def turn(self) -> None:
        """One round: poll every lane, start work, publish what is finished, tidy up."""
        self._take()
        self._begin()
        self._watch()
        self._collect()
        self._ended(self._publisher.publish_due())
        self._commit_idle()
        self._sign_of_life()

    def describe(self) -> dict[str, object]:
        """Why is it not moving? For /debug/consumer."""
        return {
            "role": self._handler.role,
            "draining": self._stopping.is_set(),
            "assignment": {lane.inbox.topic: sorted(lane.ledgers) for lane in self._lanes},
            "awaits_positions": [lane.inbox.topic for lane in self._lanes if lane.inbox.awaits_positions],
            "paused": {lane.inbox.topic: "hand-off is full" for lane in self._lanes if lane.paused},
            "in_work": [
                f"{t.record.topic}[{t.record.partition}]@{t.record.offset} begun {t.number} times" for t in self._tasks
            ],
            "unpublished": len(self._publisher),
            "last_publish_error": self._publisher.last_error,
        }

    def _start_workers(self) -> None:
        for number in range(self._limits.workers):
            name = f"{self._handler.role}-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _is_busy(self) -> bool:
        running = any(task.runs for task in self._tasks)
        return running or len(self._publisher) > 0 or not self._outputs.empty()

    def _give_back(self, lanes: Sequence[Lane], tasks: Sequence[Task]) -> None:
        """In good order: what was not finished was not its fault, so this beginning is taken off its count."""
        for task in tasks:
            task.stop.set()
            if task.number:
                task.lane.take_back(task.record)
        if self._publisher.is_in_doubt:  # a position from before the transaction would undo its own
            return
        for lane in lanes:
            held = {task.record.partition for task in tasks if task.lane is lane} & lane.ledgers.keys()
            self._commit(lane, {partition: lane.mark(partition) for partition in held})

    def _commit(self, lane: Lane, marks: Marks) -> None:
        """Positions and attempt marks outside a transaction; the next owner can do without them."""
        try:
            lane.inbox.commit(marks)
        except (PublishAborted, BrokerUnavailable) as error:
            log.info("Positions are not committed", extra={"topic": lane.inbox.topic, "reason": str(error)})

    def _close(self) -> None:
        for task in self._tasks:
            task.stop.set()
        for _ in range(self._limits.workers):
            self._todo.put(None)
        close_by = self._clock() + CLOSE_S
        for lane in self._lanes:
            if not lane.inbox.close(timeout_s=max(1.0, close_by - self._clock())):
                log.warning("Leaving the group took too long", extra={"topic": lane.inbox.topic})
        self._outbox.close(timeout_s=5.0)
        self._health.loop_ended(self._handler.role)

    # ── rebalances: called from inside poll ─────────────────────────────────────────────────────────────────────────

    def _rebalance(self, lane: Lane) -> Rebalance:
        return Rebalance(
            assigned=lambda marks: self._assigned(lane, marks),
            revoked=lambda partitions: self._revoked(lane, partitions),
            lost=lambda partitions: self._lost(lane, partitions),
        )

    def _assigned(self, lane: Lane, marks: Marks) -> None:
        """Some arrive paused and some not, whatever the others are: say explicitly what they are to be."""
        partitions = set(marks)
        for partition, mark in marks.items():
            lane.ledgers[partition] = Ledger()
            lane.take_over(partition, mark.note)
        if lane.paused:
            lane.inbox.pause(partitions)
        else:
            lane.inbox.resume(partitions)
        self._count_rebalance("assigned", lane, partitions)

    def _revoked(self, lane: Lane, partitions: set[int]) -> None:
        """Still ours until we return: wait a little for what runs, publish what is finished, give the rest back."""
        if self._failed:  # a fenced process must not fence its successor, a deadly record must not lose its count
            self._lost(lane, partitions, "revoked")
            return
        self._await([task for task in self._of(lane, partitions) if task.runs])
        self._collect()
        self._ended(self._publisher.publish_all())
        self._give_back([lane], self._of(lane, partitions))
        self._lost(lane, partitions, "revoked")

    def _await(self, tasks: Sequence[Task]) -> None:
        """Until these tasks have answered, for a bounded time."""
        awaited = set(tasks)
        for _ in range(int(self._limits.revoke_wait_s / POLL_S)):
            if not awaited or self._publisher.is_full:
                return
            try:
                output = self._outputs.get(timeout=POLL_S)
            except queue.Empty:
                awaited = {task for task in awaited if task.runs}
                continue
            self._keep(output)
            if isinstance(output, Output) and output.finished:
                awaited.discard(output.task)

    def _lost(self, lane: Lane, partitions: set[int], kind: str = "lost") -> None:
        """Somebody else owns them: commit nothing, drop at once. The checkpoint makes that cheap."""
        for partition in partitions & lane.ledgers.keys():
            lane.lose(
                partition, [t.record.offset for t in self._of(lane, {partition}) if t.number and not t.stop.is_set()]
            )
            lane.ledgers.pop(partition).revoked = True
        for task in self._tasks:
            if task.abandoned:
                task.stop.set()
        self._publisher.drop_revoked()
        self._count_rebalance(kind, lane, partitions)

    def _of(self, lane: Lane, partitions: set[int]) -> list[Task]:
        return [task for task in self._tasks if task.lane is lane and task.record.partition in partitions]

    def _count_rebalance(self, kind: str, lane: Lane, partitions: set[int]) -> None:
        self._metrics.rebalances.labels(kind).inc()
        self._metrics.assigned_partitions.labels(lane.inbox.topic).set(len(lane.ledgers))
        fields = {"topic": lane.inbox.topic, "kind": kind, "partitions": sorted(partitions)}
        log.info("Partitions changed hands", extra=fields)

    # ── taking work ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> None:
        """Poll every lane once, highest first; with room, every n-th record is looked for in the lowest first."""
        self._set_flow()
        for lane in self._in_order(self._taken):
            record = self._poll(lane, POLL_S if lane is self._lanes[-1] else 0.0)
            if record is not None:
                self._accept(lane, record)
                return

    def _in_order(self, count: int) -> list[Lane]:
        """Highest first; every n-th time the lower lanes come first, each of them in its turn."""
        share, lower = self._limits.low_lane_share, len(self._lanes) - 1
        every = round(1 / share) if share else 0
        if not (every and lower and count and count % every == 0):
            return self._lanes
        first = 1 + count // every % lower
        return self._lanes[first:] + self._lanes[:first]

    def _poll(self, lane: Lane, timeout_s: float) -> Received | None:
        condition = f"{self._handler.role} reading {lane.inbox.topic}"
        try:
            record = lane.inbox.poll(timeout_s)
        except BrokerUnavailable as error:
            self._health.set_ready(condition, False, error.message)
            lane.ask_at = self._clock() + ASK_AGAIN_S
            return None
        finally:
            self._health.poll_seen(self._handler.role)  # refused or not: the loop is not stuck
        if lane.inbox.awaits_positions:  # not ready, and `poll` has said why
            return record
        if record is not None or self._is_due(lane):
            there = record is not None or lane.inbox.is_answered()
            lane.ask_at = self._clock() + (SILENCE_S if there else ASK_AGAIN_S)
            self._health.set_ready(condition, there, "the broker does not answer")
        return record

    def _is_due(self, lane: Lane) -> bool:
        """Whether to ask for the broker: to an idle loop nothing comes and nothing is told, be it there or not."""
        return self._clock() >= lane.ask_at

    def _room(self) -> bool:
        held = sum(task.weight for task in self._tasks)
        return not self._stopping.is_set() and (not self._tasks or held < self._limits.capacity)

    def _set_flow(self) -> None:
        full = not self._room()
        for lane in self._lanes:
            if lane.paused != full:
                lane.paused = full
                (lane.inbox.pause if full else lane.inbox.resume)(set(lane.ledgers))

    def _accept(self, lane: Lane, record: Received) -> None:
        """Take the record, or put it back when there is no room (it was on its way when we paused)."""
        ledger = lane.ledgers.get(record.partition)
        if ledger is None:
            return
        if ledger.has_taken(record.offset):  # the client was set back, as after the restart of a broker
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            log.info("A record comes again and is in hand already", extra=where)
            return
        if not self._room():
            lane.inbox.seek(record.partition, record.offset)
            lane.inbox.pause({record.partition})
            lane.paused = True
            return
        ledger.take(record.offset)
        self._tasks.append(Task(lane, ledger, record, self._handler.weight(record), self._turns.now))
        self._taken += 1
        self._metrics.records_consumed.labels(record.topic).inc()

    def _begin(self) -> None:
        """Hand work to the free workers. Each beginning is written down first, so that the next process knows of it."""
        if self._publisher.is_in_doubt:
            return
        free = self._limits.workers - sum(task.runs for task in self._tasks)
        for _ in range(free):
            task = self._next()
            if task is None:
                return
            task.number = task.lane.begin(task.record)
            if task.number > self._limits.fatal_attempts:
                self._give_up(task)
                continue
            task.lane.inbox.note({task.record.partition: task.lane.mark(task.record.partition)})
            self._turns.begun(task.job, {held.job for held in self._tasks})
            self._todo.put(task)

    def _next(self) -> Task | None:
        """Of the highest lane (or of a lower one, in its turn) the task of the job whose turn it is."""
        ready = [task for task in self._tasks if task.waits]
        for lane in self._in_order(self._turns.now):
            of_lane = [task for task in ready if task.lane is lane]
            if of_lane:
                return of_lane[self._turns.next([Waiting(task.job, task.since) for task in of_lane])]
        return None

    def _give_up(self, task: Task) -> None:
        record = task.record
        where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        log.error("A record keeps killing its worker and is given up", extra=where)
        self._keep(Output(task, tuple(self._handler.give_up(record, task.number - 1)), finished=True))

    # ── work: in the worker threads ─────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            self._answer(task)

    def _answer(self, task: Task) -> None:
        """Work on one record from its beginning to its end, whatever that is."""
        if task.abandoned:
            return
        self._health.step_started(self._handler.role)
        try:
            records = tuple(self._handler(task.record, _LoopTicket(task, self)))
        except Abandoned:
            task.stop.set()
        except BaseException as error:  # noqa: BLE001  (handed to the loop's thread, which raises it)
            self._outputs.put(Crash(task, error))
        else:
            self._outputs.put(Output(task, records, finished=True))
        self._health.step_finished(self._handler.role)

    def _collect(self) -> None:
        """Take over what the workers made, as long as there is room. Raises what a handler raised."""
        while not self._publisher.is_full:
            try:
                self._keep(self._outputs.get_nowait())
            except queue.Empty:
                break
        self._tasks = [task for task in self._tasks if not task.abandoned or self._publisher.holds(task)]

    def _keep(self, output: Output | Crash) -> None:
        if isinstance(output, Crash):
            raise output.error
        output.task.answered = output.task.answered or output.finished
        if not output.task.ledger.revoked:
            self._publisher.add(output)

    def _ended(self, tasks: Sequence[Task]) -> None:
        ended = set(tasks)
        self._tasks = [task for task in self._tasks if task not in ended]

    # ── tidying up ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _commit_idle(self) -> None:
        """Move idle partitions behind the commit markers, else their lag stays 1 and nothing scales to zero."""
        if self._clock() < self._idle_commit_at or self._publisher.is_in_doubt:
            return
        self._idle_commit_at = self._clock() + IDLE_COMMIT_S
        self._idle_rounds += 1
        if self._idle_rounds % NOTE_AGAIN_ROUNDS == 0:  # a note promises nothing, and nobody may come to correct it
            for lane in self._lanes:
                for ledger in lane.ledgers.values():
                    ledger.committed_idle = None
        for lane in self._lanes:
            moved = self._moved(lane)
            lane.inbox.note(moved)
            for partition, mark in moved.items():
                lane.ledgers[partition].committed_idle = mark.offset

    def _moved(self, lane: Lane) -> dict[int, Mark]:
        moved: dict[int, Mark] = {}
        for partition, ledger in lane.ledgers.items():
            position = lane.inbox.position(partition) if ledger.idle else None
            if position is not None and position > (ledger.committed_idle or 0):
                moved[partition] = lane.mark_at(partition, position)
        return moved

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

    def __init__(self, task: Task, loop: Loop) -> None:
        self._task = task
        self._loop = loop

    @property
    def number(self) -> int:
        return self._task.number

    def announce(self, records: Sequence[Outgoing]) -> None:
        self.check()
        output = Output(self._task, tuple(records), finished=False)
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
