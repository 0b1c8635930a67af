"""The rules: everything that may happen, in any order. After each the oracle is asked, in the end the verdict."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from enum import Enum, auto
from functools import partial
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.adapters.memory_broker import Fault
from tests.model.fate import Sabotage
from tests.model.processes import ROLES, Process
from tests.model.speech import ENDLESS, LONG, MISSING, SHORT, Script
from tests.model.verdict import verdict
from tests.model.world import World

MAX_JOBS = 3
MAX_PROCESSES = 10

choices = st.integers(0, 1000)
"""Which of those that are there."""
recordings = st.sampled_from([LONG, LONG, SHORT, MISSING])
NOISE = (b"", b"noise", b"{", b"[]", b"\xc3\x01" + bytes(8))
endings = st.sampled_from(["fail", "partial"])
tries = st.sampled_from([1, 2, 4, ENDLESS])
chunks = st.integers(0, 2)
counters = st.dictionaries(chunks, tries, max_size=1)
scripts = st.one_of(
    st.builds(Script),
    st.builds(Script, retryable=counters),
    st.builds(Script, deadly=counters),
    st.builds(Script, broken=st.frozensets(chunks, max_size=2), plan_crashes=st.integers(0, 2)),
)


class Letter(Enum):
    """What senders send beside new jobs."""

    SAME = auto()
    OTHER_OPTIONS = auto()
    CANCEL = auto()
    FORCE = auto()
    RETRY = auto()
    NOISE = auto()


class Blow(Enum):
    """What may befall a process at one of its effects; the others then go on for a while."""

    DEATH = auto()
    STALL = auto()
    """It stops for longer than its session, and goes on when the others have its partitions."""
    EXPULSION = auto()
    """Its partitions are lost, and regained with the next poll; it works on."""
    RIVAL = auto()
    """Another of its role joins, so it gives partitions up."""
    SIGTERM = auto()
    CANCEL = auto()
    STORE_OUTAGE = auto()
    BROKER_OUTAGE = auto()
    NOTHING = auto()
    """Only time passes, and the others, and its own loop, go on."""


letters = st.sampled_from(Letter)
blows = st.sampled_from([*Blow, Blow.DEATH, Blow.DEATH, Blow.STALL, Blow.STALL])
strokes = st.lists(
    st.tuples(st.sampled_from(ROLES), st.integers(0, 60), blows, st.integers(1, 8)), min_size=1, max_size=5
)
"""(role, effects until then, what, rounds that the others go on)."""


class Model(RuleBasedStateMachine):
    """See the module. `tally` sums up what happened over all sequences."""

    sabotage: ClassVar[Sabotage | None] = None
    fickle: ClassVar[bool] = False
    struck: ClassVar[tuple[str, ...]] = ROLES
    """Whom most of it befalls: the others' share comes to the first of these."""
    tally: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.sabotage, self.fickle)
        self.steps = 0

    @initialize(key=recordings, script=scripts, ending=endings, strokes=strokes)
    def begin(self, key: str, script: Script, ending: str, strokes: list[tuple[str, int, Blow, int]]) -> None:
        """One process of each role and a job, and some of what will befall them."""
        for role in ROLES:
            self.world.start(role)
        for role, effects, blow, rounds in strokes:
            self.befall_later(role, effects, blow, rounds)
        self.submit(key, script, "auto", "normal", ending, None)

    # ── senders ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.world.requests) < MAX_JOBS)
    @rule(
        key=recordings,
        script=scripts,
        language=st.sampled_from(["auto", "en"]),
        priority=st.sampled_from(["high", "normal", "low"]),
        ending=endings,
        deadline_s=st.sampled_from([None, None, None, 5.0, 60.0]),
    )
    def submit(
        self, key: str, script: Script, language: str, priority: str, ending: str, deadline_s: float | None
    ) -> None:
        job_id = f"job-{len(self.world.requests)}"
        self.world.stage.scripts[job_id] = script
        options = {"language": language, "on_chunk_failure": ending}
        deadline: dict[str, Any] = {} if deadline_s is None else {"deadline_at": self._instant(deadline_s)}
        self.world.submit(job_id, key=key, priority=priority, options=options, **deadline)

    @rule(letter=letters, choice=choices)
    def send(self, letter: Letter, choice: int) -> None:
        job_id = self._job(choice)
        match letter:
            case Letter.SAME:
                self.world.submit_again(job_id, beam_size=5)
            case Letter.OTHER_OPTIONS:
                self.world.submit_again(job_id, beam_size=3)
            case Letter.CANCEL:
                self.world.cancel(job_id)
            case Letter.FORCE:
                self.world.submit_again(job_id, beam_size=5, force=True)
            case Letter.RETRY:
                self.world.retry(job_id)
            case Letter.NOISE:
                self.world.submit_noise(NOISE[choice % len(NOISE)])

    # ── the platform ────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(count=st.sampled_from([1, 2, 4, 8]))
    def go_on(self, count: int) -> None:
        self.world.rounds(count)

    @rule(choice=choices, seconds=st.sampled_from([0.0, 0.0, 1.0, 5.0, 12.0]), role=st.sampled_from([*ROLES, None]))
    def one_thing(self, choice: int, seconds: float, role: str | None) -> None:
        """Time passes, another process starts, or one loop turns: what it was handed waits, as with a slow worker."""
        if seconds:
            self.world.advance(seconds)
        elif role is not None and len(self.world.processes) < MAX_PROCESSES:
            self.world.start(role)
        elif self.world.processes:
            self.world.turn(self._process(choice))

    # ── in the midst of something ───────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.world.processes)
    @rule(choice=choices, effects=st.integers(0, 15), blow=blows, rounds=st.integers(1, 8))
    def befall_soon(self, choice: int, effects: int, blow: Blow, rounds: int) -> None:
        process = self._process(choice)
        process.fate.appoint(effects, lambda: self._strike(process, blow, rounds))

    @precondition(lambda self: self.world.processes)
    @rule(role=st.sampled_from(ROLES), effects=st.integers(0, 60), blow=blows, rounds=st.integers(1, 8))
    def befall_later(self, role: str, effects: int, blow: Blow, rounds: int) -> None:
        """Everybody of a role, so that it does not come too late."""
        struck = role if role in self.struck else self.struck[0]
        for process in self.world.processes:
            if process.role == struck:
                process.fate.appoint(effects, partial(self._strike, process, blow, rounds))

    @precondition(lambda self: self.world.processes)
    @rule(choice=choices, faults=st.lists(st.sampled_from(Fault), min_size=1, max_size=3))
    def fail_publishing(self, choice: int, faults: list[Fault]) -> None:
        self._process(choice).fate.publish_faults.extend(faults)

    @precondition(lambda self: self.world.processes)
    @rule(choice=choices, calls=st.integers(0, 12), takes_effect=st.booleans())
    def fail_the_store(self, choice: int, calls: int, takes_effect: bool) -> None:
        self._process(choice).fate.store_faults.append((calls, takes_effect))

    def _strike(self, process: Process, blow: Blow, rounds: int) -> None:
        world = self.world
        match blow:
            case Blow.DEATH:
                process.fate.die()
            case Blow.STALL:
                world.stall(process, rounds)
            case Blow.EXPULSION:
                world.expel(process)
            case Blow.RIVAL if len(world.processes) < MAX_PROCESSES:
                world.start(process.role)
            case Blow.SIGTERM:
                world.drain(process)
            case Blow.CANCEL if world.requests:
                world.cancel(self._job(rounds))
            case Blow.STORE_OUTAGE | Blow.BROKER_OUTAGE:
                world.outage(blow is Blow.STORE_OUTAGE, seconds=4.0 * rounds)
        world.meanwhile(rounds % 4)

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_oracle_is_content(self) -> None:
        self.steps += 1
        assert not self.world.oracle.failures, "\n".join(self.world.oracle.failures)

    def teardown(self) -> None:
        """Let everything come to its end, then judge."""
        if self.world.is_broken:
            return
        rounds = self.world.settle()
        wrong = list(verdict(self.world))
        assert not wrong, "\n".join(wrong)
        self.tally.update(self.world.counts)
        self.tally.update(
            sequences=1,
            steps=self.steps,
            rounds_to_settle=rounds,
            jobs=len(self.world.requests),
            records=len(self.world.sent),
            effects=self.world.effects,
        )

    def _process(self, choice: int) -> Process:
        return self.world.processes[choice % len(self.world.processes)]

    def _job(self, choice: int) -> str:
        return sorted(self.world.requests)[choice % len(self.world.requests)]

    def _instant(self, seconds: float) -> str:
        return datetime.fromtimestamp(self.world.clock() + seconds, UTC).isoformat()
