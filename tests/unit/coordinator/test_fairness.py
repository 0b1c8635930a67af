"""A five-hour job and a one-minute job on the same workers, in virtual time: how long the short one waits.

The parts that decide are the real ones: the coordinator releases, `Turns` chooses among what a worker holds. Time is
counted in chunk times: every chunk takes one, and workers begin at different moments. A worker owns partitions of its
lane for ever, as the members of a group do.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from consumer.bootstrap import coordinator_policy
from consumer.coordinator.policy import Command, Send
from consumer.core.turns import Turns, Waiting
from consumer.settings import ModelSettings, Settings
from consumer.work import AssemblyWork, ChunkWork, CleanupWork, PlanWork
from tests.unit.coordinator.world import World, assembled, plan_answers, requested, transcribed

SETTINGS = Settings(models=ModelSettings(allowed=("demo",)))
LONG = 60
"""Chunks of five hours at 300 s."""


@dataclass
class Worker:
    """Holds what comes to its partitions, works on one chunk at a time."""

    turns: Turns[str] = field(default_factory=Turns)
    held: list[tuple[ChunkWork, int]] = field(default_factory=list)
    running: ChunkWork | None = None

    def take(self, work: ChunkWork) -> None:
        self.held.append((work, self.turns.now))

    def begin(self) -> ChunkWork | None:
        if self.running or not self.held:
            return None
        place = self.turns.next([Waiting(work.job_id, since) for work, since in self.held])
        self.running, _ = self.held.pop(place)
        self.turns.begun(self.running.job_id, {work.job_id for work, _ in self.held} | {self.running.job_id})
        return self.running


class Hall:
    """A coordinator with the default settings and its workers. `chunks` says how long the recordings are."""

    def __init__(self, workers: int, chunks: dict[str, int], partitions: int | None = None) -> None:
        policy = replace(coordinator_policy(SETTINGS), planned_ahead_s=1e9)
        self.world = World(policy=policy, now_s=0.0)
        self.chunks = chunks
        self.partitions = partitions or SETTINGS.topics.work_partitions
        self.workers = [Worker() for _ in range(workers)]
        self.ends: list[tuple[float, int]] = []
        self.begun_at: dict[tuple[str, int], float] = {}
        self.announced_at: dict[str, float] = {}

    def submit(self, job_id: str) -> None:
        self._carry_out(self.world.apply(requested(job_id)))

    def run_until(self, at: float) -> None:
        """Let the workers work up to this moment."""
        while self.ends and self.ends[0][0] <= at:
            self.world.now_s, number = heapq.heappop(self.ends)
            work = self.workers[number].running
            assert work is not None
            self.workers[number].running = None
            self._carry_out(self.world.apply(transcribed(work.job_id, work.chunk_index)))
        self.world.now_s = at

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            event = command.event if isinstance(command, Send) else None
            if isinstance(event, PlanWork):
                self.announced_at[event.job_id] = self.world.now_s
                self._carry_out(self.world.apply(*plan_answers(event, self.chunks[event.job_id])))
            elif isinstance(event, ChunkWork):
                partition = zlib.crc32(event.key().encode()) % self.partitions
                self.workers[partition % len(self.workers)].take(event)
            elif isinstance(event, AssemblyWork):
                self._carry_out(self.world.apply(assembled(event)))
            else:
                assert not isinstance(event, CleanupWork) or event.results is False
        self._begin()

    def _begin(self) -> None:
        for number, worker in enumerate(self.workers):
            work = worker.begin()
            if work is not None:
                self.begun_at[work.job_id, work.chunk_index] = self.world.now_s
                # The first chunk of each worker is a part of one, so that they do not all end together.
                first = worker.turns.now == 1
                took = (number + 1) / len(self.workers) if first else 1.0
                heapq.heappush(self.ends, (self.world.now_s + took, number))

    def waited(self, job_id: str) -> float:
        """Chunk times from the announcement of its first chunk to its beginning."""
        return self.begun_at[job_id, 0] - self.announced_at[job_id]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.25, 3.75])
def test_a_five_hour_job_delays_a_one_minute_job_by_less_than_three_chunk_times(workers: int, at: float) -> None:
    waits = []
    for name in range(20):  # other names come to other partitions
        hall = Hall(workers, {"long": LONG, f"short-{name}": 1})
        hall.submit("long")
        hall.run_until(at)
        hall.submit(f"short-{name}")
        hall.run_until(at + 10)
        waits.append(hall.waited(f"short-{name}"))
    assert max(waits) <= 1.0


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_several_long_jobs_delay_a_short_one_by_one_chunk_each_at_most(workers: int) -> None:
    hall = Hall(workers, {**{f"long-{number}": LONG for number in range(6)}, "short": 1})
    for number in range(6):
        hall.submit(f"long-{number}")
    hall.run_until(2.5)
    hall.submit("short")
    hall.run_until(20)
    assert hall.waited("short") <= 6.0


def test_a_stream_of_short_jobs_does_not_stop_a_long_one() -> None:
    names = [f"short-{number}" for number in range(40)]
    hall = Hall(1, {"long": LONG, **dict.fromkeys(names, 1)})
    hall.submit("long")
    for number, name in enumerate(names):
        hall.run_until(float(number))
        hall.submit(name)
    hall.run_until(40.0)
    done = [at for (job, _), at in hall.begun_at.items() if job == "long"]
    assert len(done) >= 5
    assert max(later - earlier for earlier, later in pairwise(sorted(done))) < 15


def test_all_workers_are_busy_while_a_long_job_is_alone() -> None:
    """Fairness is not bought with idle workers."""
    hall = Hall(4, {"long": LONG})
    hall.submit("long")
    hall.run_until(LONG / 4 * 1.25 + 1)
    assert len(hall.begun_at) == LONG
