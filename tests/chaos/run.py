"""One run: servers, the reference, processes, submissions and faults, the end, and what is left to check."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException

from consumer.core.layout import CHUNK_LANES, Topic
from tests.chaos.broken_builds import Sabotage
from tests.chaos.contents import write_contents
from tests.chaos.faults import FaultKind, Faults, drawn
from tests.chaos.fleet import Fleet, wait
from tests.chaos.ground import (
    PREFIX,
    PUBLIC_PARTITIONS,
    RETRY_BASE_S,
    RETRY_MAX_S,
    SESSION_TIMEOUT_S,
    STATE_PARTITIONS,
    WORK_PARTITIONS,
    Ground,
    ground,
)
from tests.chaos.journal import Journal
from tests.chaos.loading import CONTENTS, JOURNAL
from tests.chaos.reference import reference
from tests.chaos.scenario import JOBS, Scenario
from tests.chaos.submitting import Submitter
from tests.chaos.watching import Groups, Watch

START_S = 180.0
LAG_S = 60.0
STOP_S = 90.0
SUBMISSION_SHARE = 0.7
"""Of the time of the faults, over which the jobs are submitted."""
_OF_STATES = (Topic.JOB_EVENTS, Topic.JOB_STATE)
_OF_WORK = (Topic.PLAN_WORK, *CHUNK_LANES, Topic.ASSEMBLY_WORK, Topic.CLEANUP_WORK)
PARTITIONS = {
    topic: STATE_PARTITIONS if topic in _OF_STATES else WORK_PARTITIONS if topic in _OF_WORK else PUBLIC_PARTITIONS
    for topic in Topic
}


@dataclass(frozen=True)
class Plan:
    """What was asked for on the command line. Times in seconds."""

    seed: int
    jobs: int
    faults: int
    limit_s: float
    drain_s: float
    protocol: str
    brokers: int
    kinds: frozenset[FaultKind]
    roles: frozenset[str]
    sabotage: Sabotage
    chunk_pace_s: float
    fault_pace_s: float
    folder: Path


def say(sentence: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


def run(plan: Plan) -> None:
    """Leaves the journal, the logs and the contents of the topics in the folder."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.folder / JOURNAL)
    journal.write(
        "run",
        seed=plan.seed,
        faults=plan.faults,
        session_timeout_s=SESSION_TIMEOUT_S,
        retry_base_s=RETRY_BASE_S,
        retry_max_s=RETRY_MAX_S,
    )
    say(f"starting {plan.brokers} broker(s), store and proxy")
    with ground(plan.folder / "servers", brokers=plan.brokers, protocol=plan.protocol) as servers:
        _Run(plan, servers, journal).go()
    journal.close()


class _Run:
    def __init__(self, plan: Plan, servers: Ground, journal: Journal) -> None:
        self._plan = plan
        self._servers = servers
        self._journal = journal
        self._scenario = Scenario(plan.seed, plan.jobs, servers.system.recordings)
        self._fleet = Fleet(servers, journal, plan.folder, plan.chunk_pace_s, plan.sabotage)
        self._faults = Faults(servers, self._fleet, journal, plan.roles)
        brokers = servers.brokers.bootstrap_servers
        self._groups = Groups(brokers, PREFIX, PARTITIONS)
        self._watch = Watch(Groups(brokers, PREFIX, PARTITIONS), journal, servers.system.codec, PUBLIC_PARTITIONS)

    def go(self) -> None:
        self._upload()
        self._reference()
        say("starting the processes")
        self._fleet.start()
        try:
            if not wait(self._fleet.started, START_S):
                raise RuntimeError(f"the processes did not start within {START_S:.0f} s; see {self._plan.folder}")
            self._watch.start()
            self._disturb()
            self._drain()
        finally:
            self._fleet.stop(STOP_S)
            self._watch.stop()
        say("reading what the topics hold")
        write_contents(self._servers.system, PARTITIONS, self._plan.folder / CONTENTS)

    def _upload(self) -> None:
        system = self._servers.system
        for key, (recording, _) in self._scenario.used().items():
            system.store.put(system.recordings, key, recording.data())

    def _reference(self) -> None:
        used = self._scenario.used()
        say(f"transcribing {len(used)} recordings without faults")
        for key, made in reference(used).items():
            self._journal.write("reference", recording=key, artifacts=made.artifacts, words=made.words)

    def _disturb(self) -> None:
        """Submissions and faults, until all faults have begun or the time is over."""
        plan = self._plan
        say(f"submitting {plan.jobs} jobs, doing {plan.faults} faults")
        spread_s = min(plan.faults * plan.fault_pace_s, plan.limit_s) * SUBMISSION_SHARE
        servers = self._servers.brokers.bootstrap_servers
        submitter = Submitter(servers, PREFIX, self._scenario, self._journal, spread_s)
        submitter.start()
        ends_at_s = time.monotonic() + plan.limit_s
        for fault in drawn(plan.seed, plan.faults, plan.kinds, plan.fault_pace_s):
            time.sleep(fault.pause_s)
            if time.monotonic() > ends_at_s:
                say(f"time is over after {fault.number - 1} faults")
                break
            self._faults.begin(fault)
            if fault.number % 20 == 0:
                say(f"{fault.number} faults, {len(self._watch.finished)} runs have ended")
        if not (self._faults.join(180.0) and submitter.join(180.0)):
            raise RuntimeError("a fault or the submitter did not end")
        self._journal.write("disturbed")

    def _drain(self) -> None:
        """The faults are over: everything ends, and the lag goes to nothing.

        Its seconds are counted from the last result. While runs are open it may be anything, and a run that is lost is
        open for ever: then they are counted from when it was given up, or the waiting for it would be taken for lag.
        """
        jobs = {event.job_id for event in self._scenario.events if event.kind in JOBS}
        say(f"faults are over, {len(jobs - self._watch.finished.keys())} runs are open")
        began_s = time.time()
        if wait(lambda: jobs <= self._watch.finished.keys(), self._plan.drain_s, 0.2):
            ended_s = max([began_s, *self._watch.finished.values()])
        else:
            say(f"still open after {self._plan.drain_s:.0f} s: {_some(jobs - self._watch.finished.keys())}")
            ended_s = time.time()
        say("waiting for lag 0")
        reached = wait(lambda: not self._lag(), max(1.0, LAG_S + 5 - (time.time() - ended_s)), 0.5)
        after_s = round(max(0.0, time.time() - ended_s), 1)
        self._journal.write("drained", lag_zero_after_s=after_s if reached else None, lag_left=self._lag())

    def _lag(self) -> dict[str, int]:
        try:
            return self._groups.lag()
        except (KafkaException, TimeoutError) as error:
            say(f"the groups cannot be asked: {error}")
            self._groups.begin_anew()
            return {"nobody answers": -1}


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:10])
