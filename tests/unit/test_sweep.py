from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.coordinator.state import JobState, Leftover, Status
from consumer.core.orphans import Why, prefix_of
from consumer.errors import AccessDenied, BrokerUnavailable
from consumer.events import JobRequested, JobStatus, RecordingRef
from consumer.sweep import KEYS, Found, Needed, Sweep, runs_needed

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
OLD = NOW - timedelta(days=30)
WEEK_AGO = NOW - timedelta(days=7)


def state(job_id: str, status: Status, outcome: JobStatus | None = None, **fields: object) -> JobState:
    request = JobRequested(recording=RecordingRef(bucket="calls", key="a"))
    return JobState(job_id=job_id, request=request, request_digest="d", received_at_s=0.0).changed(
        status=status, outcome=outcome, **fields
    )


class World:
    """A store whose objects are as old as one says, the states of the jobs, and the trail."""

    def __init__(self) -> None:
        self.now = OLD
        self.store = MemoryStore("work", "results", now=lambda: self.now)
        self.states: list[JobState] = []
        self.trail: list[tuple[str, str]] = []

    def put(self, bucket: str, *keys: str, at: datetime = OLD) -> None:
        self.now = at
        for key in keys:
            self.store.put(bucket, key, b"1234")

    def sweep(self, *, delete: bool) -> list[Found]:
        def note(folder: object, outcome: str) -> None:
            self.trail.append((getattr(folder, "prefix", ""), outcome))

        made = Sweep(
            self.store, ("work", "results"), lambda: runs_needed(self.states), WEEK_AGO, note if delete else None
        )
        return list(made.run())

    def keys(self) -> set[str]:
        return {key for bucket in ("work", "results") for key in self.store.list_keys(bucket, "")}


@pytest.mark.parametrize(
    ("held", "goes"),
    [
        (None, True),
        (state("job", Status.WAITING), False),
        (state("job", Status.PLANNING), False),
        (state("job", Status.TRANSCRIBING), False),
        (state("job", Status.ASSEMBLING), False),
        (state("job", Status.FINISHED, JobStatus.COMPLETED), False),
        (state("job", Status.EXPIRING, JobStatus.COMPLETED), False),
        (state("job", Status.CLEANED, JobStatus.FAILED), False),
        (state("job", Status.CLEANED, JobStatus.COMPLETED), True),
        (state("job", Status.CLEANED, JobStatus.PARTIAL), True),
        (state("job", Status.CLEANED, JobStatus.CANCELLED), True),
        (state("job", Status.TRANSCRIBING, run=2), True),
        (state("job", Status.TRANSCRIBING, run=2, work_run=1), False),
        (
            state("job", Status.CLEANED, JobStatus.COMPLETED, run=2).changed(
                leftovers=(Leftover(run=1, status=JobStatus.CANCELLED),)
            ),
            False,
        ),
    ],
)
def test_work_goes_unless_its_run_is_open_can_go_on_or_waits_for_its_cleanup(held: JobState | None, goes: bool) -> None:
    world = World()
    world.put("work", "work/job/1/plan-shape.json", "work/job/1/chunks/00000.pcm")
    world.states = [held] if held else []
    found = world.sweep(delete=True)
    assert [(one.why, one.outcome, len(one.folder.keys)) for one in found] == [(Why.WORK, "removed", 2)] * goes
    assert world.keys() == (set() if goes else {"work/job/1/plan-shape.json", "work/job/1/chunks/00000.pcm"})


def test_without_the_word_nothing_is_removed() -> None:
    world = World()
    world.put("work", "work/job/1/a", "probe/worker-1")
    found = world.sweep(delete=False)
    assert [(one.folder.prefix, one.outcome, one.folder.size_bytes) for one in found] == [
        ("probe/worker-1", "found", 4),
        ("work/job/1/", "found", 4),
    ]
    assert world.keys() == {"work/job/1/a", "probe/worker-1"}
    assert world.trail == []


def test_one_young_object_keeps_its_folder() -> None:
    world = World()
    world.put("work", "work/job/1/a")
    world.put("work", "work/job/1/b", at=NOW)
    assert world.sweep(delete=True) == []


def test_results_go_only_without_their_manifest() -> None:
    world = World()
    world.put("results", "results/a/1/manifest.json", "results/a/1/transcript.json", "results/b/1/transcript.json")
    assert [one.why for one in world.sweep(delete=True)] == [Why.RESULTS]
    assert world.keys() == {"results/a/1/manifest.json", "results/a/1/transcript.json"}


def test_what_is_not_in_a_place_of_ours_is_not_touched() -> None:
    world = World()
    strange = {"backup/work/job/1/a", "work/job/a", "work/job/x/a", "workshop/job/1/a", "results.txt"}
    world.put("work", *strange)
    assert world.sweep(delete=True) == []
    assert world.keys() == strange
    assert {prefix_of(key) for key in strange} == {None}


def test_each_removal_is_written_down_before_and_after() -> None:
    world = World()
    world.put("work", "work/a/1/x", "work/b/1/x")
    world.sweep(delete=True)
    assert world.trail == [("work/a/1/", "begun"), ("work/a/1/", "ok"), ("work/b/1/", "begun"), ("work/b/1/", "ok")]


def test_a_folder_that_cannot_be_removed_is_told_and_the_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    world, delete = World(), MemoryStore.delete
    world.put("work", "work/a/1/x", "work/b/1/x")

    def denied(store: MemoryStore, bucket: str, keys: tuple[str, ...]) -> int:
        if "work/a/1/x" in keys:
            raise AccessDenied("no", bucket=bucket)
        return delete(store, bucket, keys)

    monkeypatch.setattr(MemoryStore, "delete", denied)
    assert [one.outcome for one in world.sweep(delete=True)] == ["ACCESS_DENIED", "removed"]
    assert ("work/a/1/", "ACCESS_DENIED") in world.trail


def test_nothing_goes_while_the_states_cannot_be_read() -> None:
    world = World()
    world.put("work", "work/a/1/x")

    def away() -> Needed:
        raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable):
        list(Sweep(world.store, ("work",), away, WEEK_AGO, lambda *_: None).run())
    assert world.keys() == {"work/a/1/x"}


def test_a_large_folder_goes_in_parts_of_bounded_size() -> None:
    world = World()
    world.put("work", *(f"work/a/1/chunks/{number:05d}.pcm" for number in range(KEYS + 1)))
    assert [len(one.folder.keys) for one in world.sweep(delete=True)] == [KEYS, 1]
    assert world.keys() == set()


def test_a_second_pass_finds_nothing() -> None:
    world = World()
    world.put("work", "work/a/1/x", "probe/w")
    assert len(world.sweep(delete=True)) == 2
    assert world.sweep(delete=True) == []


def test_one_bucket_for_work_and_results_is_looked_through_once() -> None:
    world = World()
    world.put("work", "work/job/1/chunks/00000.pcm", "results/job/1/transcript.json", "somebody/else")
    made = Sweep(world.store, ("work", "work"), lambda: runs_needed([]), WEEK_AGO)
    assert [found.folder.prefix for found in made.run()] == ["results/job/1/", "work/job/1/"]
    assert made.foreign == 1
