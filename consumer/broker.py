"""What the loops ask of a broker: an inbox per group, an outbox, and a tail. Real and fake ones are in `adapters`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer.ports import Outgoing, Received


class PublishAborted(Exception):
    """Nothing of the transaction is visible, and the outbox can go on. `stale` means that the partitions moved on."""

    def __init__(self, reason: str, *, stale: bool) -> None:
        super().__init__(reason)
        self.stale = stale


class PublishInDoubt(Exception):
    """The transaction may or may not be visible. Once `Outbox.settle` returns, the committed offsets tell."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A position of a partition: the next offset to read, None before the first, and the note stored beside it."""

    offset: int | None
    note: str = ""


Marks = Mapping[int, Mark]
"""Partition → position."""


@dataclass(frozen=True, slots=True)
class Rebalance:
    """What the inbox calls, from inside `poll`, when partitions come and go. `assigned` is told where they begin."""

    assigned: Callable[[Marks], None]
    revoked: Callable[[set[int]], None]
    lost: Callable[[set[int]], None]


class Inbox(Protocol):
    """One topic read in one group. All calls come from one thread."""

    @property
    def topic(self) -> str: ...

    def open(self, rebalance: Rebalance) -> None:
        """Join the group. New partitions arrive un-paused or paused: `assigned` says what they are to be."""
        ...

    @property
    def awaits_positions(self) -> bool:
        """Whether the group gave us partitions and does not tell where they begin; they are assigned once it does.

        `poll` raises why not.
        """
        ...

    def poll(self, timeout_s: float) -> Received | None:
        """The next record, and the sign of life: called also while everything is paused.

        Raises BrokerUnavailable when the broker is away (worth another call).
        """
        ...

    def is_answered(self) -> bool:
        """Whether the broker answers a question now; waits a second at most."""
        ...

    def pause(self, partitions: set[int]) -> None: ...

    def resume(self, partitions: set[int]) -> None: ...

    def seek(self, partition: int, offset: int) -> None: ...

    def position(self, partition: int) -> int | None:
        """The offset that would be read next, behind commit markers; None before the first read."""
        ...

    def lag(self) -> int | None:
        """Records of the assigned partitions that were not read yet, as far as the client knows without asking.

        None while it knows no partition's end.
        """
        ...

    def committed(self, partitions: set[int]) -> dict[int, Mark]: ...

    def commit(self, marks: Marks) -> None:
        """Store positions outside a transaction: for idle partitions and attempt marks.

        Raises PublishAborted(stale=True) when the partitions belong to somebody else by now.
        """
        ...

    def note(self, marks: Marks) -> None:
        """Store positions without waiting and without a promise: attempt marks, and positions of idle partitions."""
        ...

    def is_noting(self, partitions: set[int]) -> bool:
        """Whether the broker has not answered a note yet: it could still move one of these positions back."""
        ...

    def close(self, timeout_s: float) -> bool:
        """Leave the group; False when that did not end in time."""
        ...


class Outbox(Protocol):
    """Publishes records together with the positions of the inboxes that they come from."""

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        """All or nothing, fenced by the inboxes' group membership.

        Raises PublishAborted, PublishInDoubt, Fenced (another process took over), BrokerUnavailable.
        """
        ...

    def settle(self) -> None:
        """Decide a transaction in doubt. When this returns, none is open: it is visible, or it never will be.

        Raises BrokerUnavailable when nobody answers in time (worth another call), Fenced.
        """
        ...

    def send(self, record: Outgoing) -> bool:
        """Best effort, outside transactions; False when it was dropped because the queue is full."""
        ...

    def close(self, timeout_s: float) -> None: ...


class Tail(Protocol):
    """Reads partitions by itself, without a group."""

    def poll(self, timeout_s: float) -> Received | None: ...

    def read_to_end(self, partition: int, timeout_s: float) -> list[Received]:
        """Everything committed in the partition from its start to its present end.

        Raises BrokerUnavailable when the end was not reached in time.
        """
        ...

    def close(self) -> None: ...
