"""What a run left behind, as plain values: the checks need nothing else, no server and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos.scenario import Kind

RunKey = tuple[str, int]
"""Job and run."""
Place = tuple[str, int]
"""Topic (without prefix) and partition."""
Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """One event that was sent. `place` and `offset` are known when the broker confirmed it."""

    kind: Kind
    job: str
    confirmed: bool
    topic: str
    key: bytes
    value: bytes
    headers: Headers
    recording: str
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    run: RunKey
    status: str
    code: str | None
    chunks_total: int
    artifacts: Mapping[str, str]
    """Format → SHA-256."""


@dataclass(frozen=True, slots=True)
class Partial:
    run: RunKey
    chunk: int


@dataclass(frozen=True, slots=True)
class Told:
    """One progress event, in the order of its partition."""

    run: RunKey
    sequence: int
    fraction: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Noted:
    """An event of the audit trail, or its line in the log of a process, which has no `id`."""

    run: RunKey
    actor: str
    action: str
    target: str
    outcome: str
    happened_at: str
    """To the millisecond."""
    id: str = field(default="", compare=False)
    said: bytes = field(default=b"", compare=False)
    """All that the record or the line holds."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """Work that was sent (`failed` is False), or that was answered as failed, when its record was made."""

    kind: str
    """Of the work: what the retry policy goes by: plan, chunk, assembly or cleanup."""
    run: RunKey
    name: str
    attempt: int
    time_s: float
    failed: bool
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class FaultDone:
    number: int
    kind: str
    target: str
    start_s: float
    end_s: float
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Life:
    """One process from its start to its end; `code` is None when it was never seen to end."""

    name: str
    roles: str
    start_s: float
    end_s: float | None
    code: int | None

    @property
    def place(self) -> str:
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class HandOver:
    """A process said that partitions came (`assigned`) or went."""

    life: str
    time_s: float
    kind: str
    topic: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Computation:
    """A process began to compute a chunk, ended it, or stored and answered it (`stored`)."""

    life: str
    time_s: float
    step: str
    run: RunKey
    chunk: int
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the groups stood: per topic and partition the committed position and the end for committed readers."""

    time_s: float
    places: Mapping[Place, tuple[int, int]]


@dataclass(frozen=True)
class Evidence:
    """Everything of one run. `lag_zero_after_s` is None when some lag was left."""

    asked_faults: int
    session_timeout_s: float
    retry_base_s: float
    retry_max_s: float
    lag_zero_after_s: float | None
    lag_left: Mapping[str, int] = field(default_factory=dict)
    """Topic → records that its group had not done."""
    submissions: tuple[Submission, ...] = ()
    references: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    results: tuple[Result, ...] = ()
    partials: tuple[Partial, ...] = ()
    progress: tuple[Told, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    attempts: tuple[Attempted, ...] = ()
    noted: tuple[Noted, ...] = ()
    logged: tuple[Noted, ...] = ()
    words: frozenset[str] = frozenset()
    """What was said in the recordings, and what senders wrote for nobody else to read."""
    readings: frozenset[tuple[RunKey, int]] = frozenset()
    """Runs and numbers of the plans that were answered: begun, or failed."""
    cleanings: tuple[tuple[RunKey, bool], ...] = ()
    """Cleanups that were answered as done: of which run, and whether of its results."""
    faults: tuple[FaultDone, ...] = ()
    lives: tuple[Life, ...] = ()
    not_alive: tuple[str, ...] = ()
    """Processes that were ended because their /healthz said so, or nothing."""
    hand_overs: tuple[HandOver, ...] = ()
    computations: tuple[Computation, ...] = ()
    standings: tuple[Standing, ...] = ()
    records: Mapping[Place, tuple[int, ...]] = field(default_factory=dict)
    """Offsets of the chunk work on each lane, in order: behind the last of them there are only markers."""
    ways: Mapping[str, str] = field(default_factory=dict)
    """Place of a process → the way by which it comes."""
