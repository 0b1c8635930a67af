"""What is done to the system, one fault every few seconds, drawn from the seed.

The kinds and their order come from the seed alone. Which process is hit is drawn among those that no other fault is
at work on, so it also depends on what has happened until then; the journal tells.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.fleet import Fleet, Place
from tests.chaos.ground import SESSION_TIMEOUT_S, WAYS, Ground
from tests.chaos.journal import Journal
from tests.servers.toxiproxy import Proxy

NEW_NAME_SHARE = 0.2
"""Of the killed processes come back under a new worker id, as a new pod does."""
TORN_WAIT_S = 15.0
DRAIN_WAIT_S = 75.0
MOST_FROZEN = 2


class FaultKind(StrEnum):
    KILL = "kill"
    """SIGKILL, as when memory is short or a machine is lost."""
    TORN = "torn"
    """SIGKILL between produce and commit of one publication."""
    FREEZE = "freeze"
    """SIGSTOP for longer than the session: the group takes it for dead, and then it lives on."""
    TERM = "term"
    """SIGTERM, as Kubernetes ends a pod."""
    BROKER = "broker"
    """SIGKILL of a broker, and its restart."""
    CUT = "cut"
    """A way to the brokers refuses and ends all connections."""
    ONE_WAY = "one-way"
    """A way loses what one side says, with its connections open."""
    LATENCY = "latency"
    """Seconds more for every answer on a way."""
    STORE = "store"
    """The store is away: stopped, or its proxy cut."""


WEIGHTS = {
    FaultKind.KILL: 34,
    FaultKind.TORN: 6,
    FaultKind.FREEZE: 20,
    FaultKind.TERM: 20,
    FaultKind.BROKER: 10,
    FaultKind.CUT: 3,
    FaultKind.ONE_WAY: 3,
    FaultKind.LATENCY: 2,
    FaultKind.STORE: 2,
}
OF_PROCESSES = frozenset({FaultKind.KILL, FaultKind.TORN, FaultKind.FREEZE, FaultKind.TERM})


@dataclass(frozen=True, slots=True)
class Fault:
    """Number `number` of the run, from 1, `pause_s` after the one before. `chance` draws its details."""

    number: int
    kind: FaultKind
    pause_s: float
    chance: random.Random


def drawn(seed: int, count: int, kinds: frozenset[FaultKind], pace_s: float) -> Iterator[Fault]:
    """The faults of a run."""
    chance = random.Random(f"{seed}/faults")
    chosen = [kind for kind in FaultKind if kind in kinds]
    weights = [WEIGHTS[kind] for kind in chosen]
    for number in range(1, count + 1):
        (kind,) = chance.choices(chosen, weights)
        pause_s = pace_s * (0.5 + chance.random())
        yield Fault(number, kind, pause_s, random.Random(f"{seed}/fault/{number}"))


@dataclass
class Faults:
    """Does them. Each runs in a thread of its own, since some last longer than the time to the next."""

    ground: Ground
    fleet: Fleet
    journal: Journal
    roles: frozenset[str] = frozenset()
    """Only processes with one of these roles are hit; empty: all."""
    done: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)
    _servers: threading.Lock = field(default_factory=threading.Lock)
    _names: int = 0

    def begin(self, fault: Fault) -> None:
        """Start it, as soon as there is something to do it to."""
        if fault.kind in OF_PROCESSES:
            place = self._target(fault)
            place.busy = True
            self._spawn(fault, place.life, lambda: self._on_process(fault, place))
        else:
            self._servers.acquire()
            act, target = self._on_servers(fault)
            self._spawn(fault, target, lambda: self._with_servers(act))

    def join(self, timeout_s: float) -> bool:
        """Wait until all have ended; False when one did not."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _spawn(self, fault: Fault, target: str, act: Callable[[], object]) -> None:
        def run() -> None:
            self.journal.write("fault", number=fault.number, kind=fault.kind, target=target, state="intent")
            try:
                detail = act()
            except Exception as error:  # noqa: BLE001  (a fault that failed is a finding of its own)
                self.journal.write("fault", number=fault.number, kind=fault.kind, state="failed", detail=repr(error))
            else:
                self.journal.write("fault", number=fault.number, kind=fault.kind, state="ok", detail=detail)
            self.done += 1

        thread = threading.Thread(target=run, name=f"fault-{fault.number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _target(self, fault: Fault) -> Place:
        while True:
            free = [
                place for place in self.fleet.places if place.runs and not place.busy and self._may_hit(fault, place)
            ]
            if free:
                return fault.chance.choice(free)
            time.sleep(0.05)

    def _may_hit(self, fault: Fault, place: Place) -> bool:
        if fault.kind is FaultKind.TORN and not place.has_started:
            return False
        return not self.roles or bool(self.roles & set(place.roles.split(",")))

    def _on_process(self, fault: Fault, place: Place) -> object:
        try:
            if fault.kind is FaultKind.FREEZE:
                return self._freeze(place, SESSION_TIMEOUT_S + 1.0 + 3.0 * fault.chance.random())
            if fault.chance.random() < NEW_NAME_SHARE:
                self._names += 1
                place.worker_id = f"{place.name}-{self._names}"
            return self._end(fault.kind, place)
        finally:
            place.busy = False

    def _freeze(self, place: Place, seconds: float) -> object:
        place.signal(signal.SIGSTOP)
        time.sleep(seconds)
        place.signal(signal.SIGCONT)
        return round(seconds, 3)

    def _end(self, kind: FaultKind, place: Place) -> object:
        """The detail is whether it ended as it was to."""
        life = place.life
        if kind is FaultKind.TORN:
            place.signal(signal.SIGUSR1)
            if self.fleet.ended(place, life, TORN_WAIT_S):
                return "torn"
            place.signal(signal.SIGKILL)  # it had nothing to publish
            return "killed while idle"
        place.signal(signal.SIGKILL if kind is FaultKind.KILL else signal.SIGTERM)
        if not self.fleet.ended(place, life, DRAIN_WAIT_S):
            place.signal(signal.SIGKILL)
            return "did not end by itself"
        return "ended"

    # ── servers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _with_servers(self, act: Callable[[], object]) -> object:
        try:
            return act()
        finally:
            self._servers.release()

    def _on_servers(self, fault: Fault) -> tuple[Callable[[], object], str]:
        chance = fault.chance
        if fault.kind is FaultKind.BROKER:
            number = chance.randrange(len(self.ground.brokers.nodes))
            return lambda: self._restart_broker(number, chance.uniform(0.0, 2.0)), f"broker-{number + 1}"
        if fault.kind is FaultKind.STORE:
            stopped = chance.random() < 0.5
            return lambda: self._without_store(stopped, chance.uniform(2.0, 8.0)), "store"
        way = chance.choice(WAYS)
        return lambda: self._spoil(fault.kind, way, chance), way

    def _restart_broker(self, number: int, away_s: float) -> object:
        node = self.ground.brokers.nodes[number]
        node.kill()
        time.sleep(away_s)
        node.restart()
        return round(away_s, 3)

    def _without_store(self, stopped: bool, away_s: float) -> object:
        if stopped:
            self.ground.minio.stop()
            time.sleep(away_s)
            self.ground.minio.start()
        else:
            self.ground.store_proxy.cut()
            time.sleep(away_s)
            self.ground.store_proxy.mend()
        return round(away_s, 3)

    def _spoil(self, kind: FaultKind, way: str, chance: random.Random) -> object:
        proxies, seconds = self.ground.way_proxies[way], chance.uniform(2.0, 9.0)
        match kind:
            case FaultKind.CUT:
                _for_a_while(proxies, Proxy.cut, Proxy.mend, seconds)
                return round(seconds, 3)
            case FaultKind.ONE_WAY:
                stream = chance.choice(("upstream", "downstream"))
                spoilt = ("timeout", {"timeout": 0}, stream)
            case _:
                stream = "downstream"
                spoilt = ("latency", {"latency": 5000 if chance.random() < 0.5 else 1500, "jitter": 300}, stream)
        _for_a_while(proxies, lambda proxy: proxy.spoil(*spoilt), lambda proxy: proxy.heal(spoilt[0]), seconds)
        return f"{stream} {spoilt[1]} {seconds:.1f} s"


def _for_a_while(
    proxies: tuple[Proxy, ...], begin: Callable[[Proxy], object], end: Callable[[Proxy], object], seconds: float
) -> None:
    with ExitStack() as stack:
        for proxy in proxies:
            stack.callback(end, proxy)  # also when the proxy begins, and does not say so in time
            begin(proxy)
        time.sleep(seconds)
