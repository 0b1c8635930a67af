"""Settle dead letters: send the originals again, or write down that nothing more is to be done.

Each letter is one transaction: the original to its topic, and the resolution behind the letter. So whatever ends this
program, a letter is settled or it is not, and the same command again does only the rest.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import NoReturn

from consumer.audit import echoed, log_published
from consumer.broker import Outbox, PublishAborted, PublishInDoubt
from consumer.core import dead_letters as form
from consumer.core.audit import NO_RUN, Action
from consumer.core.dead_letters import How, Resolution
from consumer.core.identity import job_id_from_position
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.errors import (
    BrokenWorker,
    BrokerUnavailable,
    ConflictingJob,
    Fenced,
    InvalidEvent,
    UnreadableEvent,
)
from consumer.events import JOB_ID_PATTERN, AuditRecorded
from consumer.ports import Outgoing, Received
from consumer.roles import Post
from consumer.wire import Codec
from producer_tools.connection import Connection
from producer_tools.exit_codes import Exit
from producer_tools.faults import NotFound, Overtaken, WrongUsage
from producer_tools.letters import DeadLetter, Survey, Wanted, words_of
from producer_tools.terminal import Terminal, printable

OUTBOX = "dead-letters"
"""One name per installation: of two operators at once the later one goes on, and the earlier one is stopped."""
CLOSE_TIMEOUT_S = 5.0
SETTLING_S = 90.0
"""How long a transaction of somebody who was killed may hold us up: longer than the brokers let it live."""

SOURCES = (
    Topic.JOBS,
    Topic.CONTROL,
    Topic.JOB_EVENTS,
    Topic.PLAN_WORK,
    *CHUNK_LANES,
    Topic.ASSEMBLY_WORK,
    Topic.CLEANUP_WORK,
)
"""What the service reads and parks from: only there may an original go back to, whatever a header says."""

HOPELESS: Mapping[str, str] = {
    UnreadableEvent.code: "the same bytes stay as unreadable as they are: let the sender correct the format and send "
    "the event again",
    InvalidEvent.code: "the same event stays as wrong as it is: correct what the message names and submit it again",
    ConflictingJob.code: "the job id stays taken: submit the recording again under a new job id",
}
"""Codes of letters that would be parked again at once, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to become of the letters."""

    how: How
    by: str
    execute: bool = False
    """False: only say what would be done."""
    force: bool = False
    """Send again also what failed for a reason that stays."""

    @property
    def verb(self) -> str:
        return {How.REDRIVEN: "redrive", How.DISCARDED: "discard"}[self.how]


@dataclass
class Throttle:
    """At most `per_second` passes; None: as many as there are. Waits in `sleep`, which Ctrl-C ends."""

    per_second: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next_at: float = field(default=0.0, init=False)

    def wait(self) -> None:
        if self.per_second is None:
            return
        if (left_s := self._next_at - self.clock()) > 0:
            self.sleep(left_s)
        self._next_at = max(self._next_at, self.clock()) + 1 / self.per_second


def settle(
    wanted: Wanted,
    order: Order,
    throttle: Throttle,
    connection: Connection,
    terminal: Terminal,
    now: Callable[[], datetime],
) -> Exit:
    """Settle the open ones of these letters; on stdout a line for each: what is done with it, and where it lies.

    Raises WrongUsage, NotFound, Overtaken, Misconfigured, BrokerUnavailable.
    """
    if wanted.everything:
        raise WrongUsage(
            f"say which letters to {order.verb}: PARTITION OFFSET, --code, --job, --topic, --since or --until "
            "(--since 1970-01-01 means all)"
        )
    outbox = connection.outbox(OUTBOX) if order.execute else None
    try:
        with echoed(connection.settings) if order.execute else nullcontext():
            return _Settling(wanted, order, throttle, connection, terminal, now, outbox).run()
    finally:
        if outbox is not None:
            outbox.close(CLOSE_TIMEOUT_S)


class _Settling:
    """One pass over the letters. Without an outbox nothing is written."""

    def __init__(
        self,
        wanted: Wanted,
        order: Order,
        throttle: Throttle,
        connection: Connection,
        terminal: Terminal,
        now: Callable[[], datetime],
        outbox: Outbox | None,
    ) -> None:
        self._wanted = wanted
        self._order = order
        self._throttle = throttle
        self._connection = connection
        self._terminal = terminal
        self._now = now
        self._outbox = outbox
        self._codec: Codec | None = None
        self._done = 0
        self._refused: Counter[str] = Counter()

    def run(self) -> Exit:
        met = 0
        try:
            for letter, resolution in self._chosen():
                met += 1
                self._settle(letter, resolution)
        except KeyboardInterrupt:
            self._terminal.say(f"interrupted after {self._done}; the same command again does the rest")
            return Exit.INTERRUPTED
        if not met and self._wanted.position is not None:
            raise NotFound(
                f"there is no dead letter at {self._wanted.position}; `whisperx-jobs dead-letters list` shows them"
            )
        self._sum_up()
        return Exit.USAGE if self._refused else Exit.OK

    def _chosen(self) -> Iterator[tuple[Received, Resolution | None]]:
        """The letters that are meant. First nobody else may be settling, then we look, then we begin."""
        if self._outbox is not None:
            self._reach(self._outbox.settle, "before the first letter")
        with self._wanted.tail(self._connection) as tail:
            survey = Survey.of(tail.await_undecided().read_to_end(SETTLING_S))
        with self._wanted.tail(self._connection) as tail:
            for letter, resolution in survey.letters(tail.read_to_end(SETTLING_S)):
                if self._wanted.fits(letter, self._known_codec):
                    yield letter, resolution

    def _known_codec(self) -> Codec:
        if self._codec is None:
            self._codec = self._connection.codec()
        return self._codec

    def _settle(self, letter: Received, resolution: Resolution | None) -> None:
        shown = DeadLetter.of(letter, resolution)
        if resolution is not None:
            self._say_settled(shown, resolution)
        elif (why := self._refusal(letter, shown.code)) is not None:
            self._refused[why] += 1
            self._terminal.data(f"refused\t{shown.line()}")
        elif self._outbox is None:
            self._done += 1
            self._terminal.data(f"would {self._order.verb}\t{shown.line()}")
        else:
            self._throttle.wait()
            self._publish(self._outbox, letter)
            self._done += 1
            self._terminal.data(f"{self._order.how.value}\t{shown.line()}")

    def _say_settled(self, letter: DeadLetter, resolution: Resolution) -> None:
        """Of many, those that are settled are passed by; of the one that was named, it is said."""
        if self._wanted.position is not None:
            self._terminal.say(
                printable(f"{letter.partition} {letter.offset} is {words_of(resolution)} already; nothing is done")
            )

    def _refusal(self, letter: Received, code: str) -> str | None:
        """Why this letter is not sent again; None when nothing speaks against it."""
        if self._order.how is How.DISCARDED:
            return None
        topic = form.text_of(letter, form.TOPIC)
        if topic not in [self._connection.topic(one) for one in SOURCES]:
            return f"{topic or 'a letter without a topic'} is no topic that this installation takes events from"
        if code in HOPELESS and not self._order.force:
            return f"{code}: {HOPELESS[code]}. Once a version runs that can take it, --force sends it again"
        return None

    def _records(self, letter: Received) -> list[Outgoing]:
        resolution = form.resolution(letter, self._order.how, self._order.by, self._now())
        settled = [resolution, self._audit(letter)]
        return settled if self._order.how is How.DISCARDED else [form.redriven(letter), *settled]

    def _audit(self, letter: Received) -> Outgoing:
        """Who settled it, in the same transaction. The job is known where the key is a job id, which it mostly is."""
        position = form.Position.of(letter)
        key = (letter.key or b"").decode(errors="replace")
        of_job = re.fullmatch(JOB_ID_PATTERN, key) is not None
        discarded = self._order.how is How.DISCARDED
        line = AuditRecorded(
            job_id=key if of_job else job_id_from_position(letter.topic, letter.partition, letter.offset),
            run=NO_RUN,
            actor=self._order.by,
            action=Action.LETTER_DISCARDED if discarded else Action.LETTER_REDRIVEN,
            target=f"{letter.topic}/{position}",
            outcome="ok",
            happened_at=self._now(),
        )
        post = Post(self._known_codec(), self._connection.settings.kafka.topic_prefix, time.time)
        return post.record(Topic.AUDIT, line)

    def _publish(self, outbox: Outbox, letter: Received) -> None:
        """All of it or nothing, also when Ctrl-C comes meanwhile."""
        records = self._records(letter)
        with ctrl_c_waits():
            self._reach(lambda: outbox.publish(records, []), f"at the letter {form.Position.of(letter)}")
            log_published(records)

    def _reach(self, act: Callable[[], object], when: str) -> None:
        try:
            act()
        except Fenced as exc:
            self._overtaken(exc)
        except (PublishAborted, PublishInDoubt, BrokenWorker, BrokerUnavailable) as exc:
            raise BrokerUnavailable(
                f"stopped {when}, after {self._done}: {exc}; the same command again does the rest"
            ) from exc

    def _overtaken(self, cause: Fenced) -> NoReturn:
        raise Overtaken(
            f"somebody else began to redrive or discard in this installation and goes on; this call stopped after "
            f"{self._done}. Ask who it is, and begin again when they are done: what they settle is passed by"
        ) from cause

    def _sum_up(self) -> None:
        what = self._order.how.value if self._order.execute else f"would {self._order.verb}"
        self._terminal.say(f"{what}: {self._done}")
        for why, count in self._refused.items():
            self._terminal.say(printable(f"refused: {count}; {why}"))
        if self._done and not self._order.execute:
            self._terminal.say("nothing was changed; --execute does it")


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C is heard when the block is over, so that no transaction is left open; a second one is heard at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
