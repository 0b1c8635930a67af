"""Who owned which partition when, and which times were calm: told by the processes' logs and by the faults."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

from tests.chaos.evidence import Evidence, FaultDone, HandOver, Life, Place

SETTLE_S = 3.0
"""What a takeover may take beyond the session timeout."""
SERVER_FAULTS = frozenset({"broker", "cut", "one-way", "latency", "store"})
EVERYWHERE = frozenset({"broker", "store"})
ECHO_S = 15.0
"""A client notices only at its next use what became of a server; a transaction that gets stuck on that is given up."""


@dataclass
class Owners:
    """Ownership by the processes' own words; a process that ended owns nothing."""

    seen: Evidence
    _by_life: dict[str, list[HandOver]] = field(default_factory=lambda: defaultdict(list))
    _assigned: dict[Place, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for change in sorted(self.seen.hand_overs, key=lambda one: one.time_s):
            self._by_life[change.life].append(change)
            if change.kind == "assigned":
                for partition in change.partitions:
                    self._assigned[change.topic, partition].append((change.time_s, change.life))

    def of(self, life: str, time_s: float) -> frozenset[Place]:
        """What this process held at this time."""
        held: set[Place] = set()
        for change in self._by_life[life]:
            if change.time_s > time_s:
                break
            places = {(change.topic, partition) for partition in change.partitions}
            held = held | places if change.kind == "assigned" else held - places
        return frozenset(held)

    def last_change_s(self, life: str, time_s: float) -> float:
        """When partitions last came to or went from this process before this time."""
        return max((one.time_s for one in self._by_life[life] if one.time_s <= time_s), default=0.0)

    def next_owner_s(self, place: Place, after_s: float, victim: str) -> float | None:
        """When another process was given this partition, at the earliest after this time."""
        found = self._assigned[place]
        start = bisect_right(found, (after_s, "~"))
        return next((time_s for time_s, life in found[start:] if life != victim), None)


@dataclass(frozen=True)
class Weather:
    """Which faults touch a process at a time, with what they leave behind."""

    seen: Evidence

    def is_calm(self, life: Life, start_s: float, end_s: float) -> bool:
        """No fault was at work on this process, its way or the servers, or had been a settling time before."""
        after_s = self.seen.session_timeout_s + SETTLE_S
        return not any(
            fault.start_s < end_s and fault.end_s + after_s + ECHO_S * (fault.kind in SERVER_FAULTS) > start_s
            for fault in self.seen.faults
            if self._touches(fault, life)
        )

    def _touches(self, fault: FaultDone, life: Life) -> bool:
        if fault.kind in EVERYWHERE:
            return True
        if fault.kind in SERVER_FAULTS:
            return self.seen.ways.get(life.place) == fault.target
        return fault.target.rpartition(".")[0] == life.place
