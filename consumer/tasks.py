"""What the loop has in hand: lanes with their ledgers, records in work, and what the worker threads give back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from consumer.broker import Inbox, Mark
from consumer.core.attempts import read_note, write_note
from consumer.core.offsets import Ledger
from consumer.ports import Outgoing, Received


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


@dataclass(eq=False, slots=True)
class Lane:
    """One topic of the loop; lanes are polled in their order."""

    inbox: Inbox
    ledgers: dict[int, Ledger] = field(default_factory=dict)
    begun: dict[int, dict[int, int]] = field(default_factory=dict)
    """Per partition: offset → how often work on it was begun without an end. The attempt marks are made of it."""
    outlived: dict[int, dict[int, int]] = field(default_factory=dict)
    """Per lost partition: what of `begun` was counted by this process, which lives on: it was not its death."""
    paused: bool = False
    ask_at: float = 0.0
    """When the broker is asked whether it is there, if nothing comes before."""

    def take_over(self, partition: int, note: str) -> None:
        """Read what earlier owners noted of the partition; when we were one of them, without our own beginnings."""
        ours = self.outlived.pop(partition, {})
        noted = read_note(note)
        self.begun[partition] = {o: n - ours.get(o, 0) for o, n in noted.items() if n > ours.get(o, 0)}

    def lose(self, partition: int, in_work: Iterable[int]) -> None:
        """Forget the partition, but not that the offsets in work did not kill us."""
        self.begun.pop(partition, None)
        self.outlived[partition] = dict.fromkeys(in_work, 1)

    def mark(self, partition: int, done: frozenset[int] = frozenset()) -> Mark:
        """What to commit for a partition: its contiguous done mark, as it will be when `done` is finished too."""
        return self.mark_at(partition, self.ledgers[partition].mark_without(set(done)), done)

    def mark_at(self, partition: int, offset: int | None, done: frozenset[int] = frozenset()) -> Mark:
        """A position with the notes on what lies behind it and was begun."""
        begun = self.begun.get(partition, {})
        notes = {o: n for o, n in begun.items() if offset is not None and o >= offset and o not in done}
        return Mark(offset, write_note(notes))

    def begin(self, record: Received) -> int:
        """Count one more beginning; the count."""
        begun = self.begun[record.partition]
        begun[record.offset] = begun.get(record.offset, 0) + 1
        return begun[record.offset]

    def forget(self, record: Received) -> None:
        """It came to its end: nothing is held against it."""
        self.begun.get(record.partition, {}).pop(record.offset, None)

    def take_back(self, record: Received) -> None:
        """It was given back in good order: this beginning does not count, earlier ones do."""
        begun = self.begun.get(record.partition, {})
        if begun.get(record.offset, 0) > 1:
            begun[record.offset] -= 1
        else:
            begun.pop(record.offset, None)


@dataclass(eq=False, slots=True)
class Task:
    """One record in hand. Its ledger tells whether it still belongs to us."""

    lane: Lane
    ledger: Ledger
    record: Received
    weight: float
    since: int = 0
    """How many pieces of work the loop had begun when it was taken."""
    number: int = 0
    """How often it was begun; 0 while it waits for a worker."""
    answered: bool = False
    """The worker is done with it; its answer waits to be published."""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def job(self) -> bytes:
        """What the key says: the job, or the job, a slash and the chunk."""
        return (self.record.key or b"").partition(b"/")[0]

    @property
    def waits(self) -> bool:
        return self.number == 0 and not self.abandoned

    @property
    def runs(self) -> bool:
        return self.number > 0 and not self.answered and not self.abandoned

    @property
    def abandoned(self) -> bool:
        return self.ledger.revoked or self.stop.is_set()


@dataclass(frozen=True, slots=True)
class Output:
    """Records to publish for a task; `finished` moves its offset as well."""

    task: Task
    records: tuple[Outgoing, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Crash:
    """A handler raised what it must not: the process ends without committing."""

    task: Task
    error: BaseException
