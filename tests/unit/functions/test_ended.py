"""Old work that is read once more is left when its run has a result, and done when it has none."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.core.layout import RunKeys
from consumer.errors import RunEnded
from consumer.events import Event, JobOptions, Problem, RecordingRef
from consumer.functions.ended import UnlessEnded
from consumer.ports import Attempt
from consumer.work import PlanWork, failure
from tests.unit.functions.result_fakes import FakeAttempt

RESULTS = "results"


@dataclass
class Function:
    """Notes the runs that it is called for."""

    runs: list[int] = field(default_factory=list)

    def __call__(self, work: PlanWork, attempt: Attempt) -> Event:
        self.runs.append(work.run)
        return failure(work, Problem(code="ANSWERED", message="an answer"))


def work_of_run(run: int) -> PlanWork:
    recording = RecordingRef(bucket="calls", key="a.wav")
    return PlanWork(job_id="job", run=run, epoch=1, recording=recording, options=JobOptions())


def test_only_runs_without_a_result_are_worked_for() -> None:
    store, function = MemoryStore(RESULTS), Function()
    store.put(RESULTS, RunKeys("job", 1).manifest, b"{}")
    unless_ended: UnlessEnded[PlanWork, Event] = UnlessEnded(function, store, RESULTS)
    with pytest.raises(RunEnded, match="run 1 of job job"):
        unless_ended(work_of_run(1), FakeAttempt())
    assert unless_ended(work_of_run(2), FakeAttempt()) == failure(
        work_of_run(2), Problem(code="ANSWERED", message="an answer")
    )
    assert function.runs == [2]
