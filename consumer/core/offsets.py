"""Which Kafka offset of a partition may be committed while its events finish in any order."""

from __future__ import annotations


class Ledger:
    """Offsets taken from one partition in one assignment, and how far they are done without a gap.

    ledger.take(7); ledger.take(8); ledger.finish(8); ledger.mark -> 7; ledger.finish(7); ledger.mark -> 9

    A new assignment gets a new ledger: work that holds an old one belongs to nobody any more. `mark` is the next
    offset to read (Kafka's meaning of a committed offset), None until an offset was taken.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._next: int | None = None
        self.revoked = False
        self.committed_idle: int | None = None
        """The last position that was committed while nothing was in work."""

    def take(self, offset: int) -> None:
        """Note an offset as taken. Offsets come in order, with gaps where the log has markers."""
        if self._next is not None and offset < self._next:
            raise ValueError(f"offset {offset} was taken before (next is {self._next})")
        self._open.add(offset)
        self._next = offset + 1

    def has_taken(self, offset: int) -> bool:
        """Whether this offset lies behind us already: in work or done."""
        return self._next is not None and offset < self._next

    def finish(self, offset: int) -> None:
        self._open.remove(offset)

    @property
    def mark(self) -> int | None:
        return self.mark_without(set())

    def mark_without(self, finished: set[int]) -> int | None:
        """The mark as it will be when these offsets are finished too."""
        left = self._open - finished
        return min(left) if left else self._next

    @property
    def idle(self) -> bool:
        """Nothing of this partition is in work."""
        return not self._open
