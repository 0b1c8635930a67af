"""The coordinator's loop on the memory broker: states, answers and positions move together or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from consumer.adapters.memory_broker import Fault, MemoryBroker, MemoryInbox, MemoryOutbox, MemoryTail
from consumer.coordination import Coordination
from consumer.coordinator.coordinator import Past
from consumer.core.layout import Topic
from consumer.errors import BrokenWorker, MissingBucket
from consumer.events import Event, JobFinished, JobStatus
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.ports import Outgoing
from consumer.refusals import RefusalLimit
from consumer.roles import Post
from consumer.wire import Codec
from consumer.work import AssemblyWork, ChunkWork, CleanupFinished, CleanupWork, PlanWork
from tests.unit.coordinator.world import POLICY, assembled, plan_answers, requested, transcribed

E = TypeVar("E", bound=Event)

PREFIX, GROUP = "t.", "coordinate"


@dataclass
class Cluster:
    """A broker with our topics, and coordinators that come and go."""

    partitions: int = 2
    now_s: float = 1000.0
    tick_s: float = 0.0
    """How far the clock goes on whenever it is read."""
    known: dict[str, Past] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker({PREFIX + topic: self.partitions for topic in Topic})
        self.post = Post(Codec(None, "/test"), PREFIX, lambda: self.now_s)

    def coordinator(self) -> tuple[Coordination, MemoryInbox]:
        inbox = MemoryInbox(self.broker, PREFIX + Topic.JOB_EVENTS, GROUP)
        made = Coordination(
            inbox,
            MemoryTail(self.broker, PREFIX + Topic.JOB_STATE),
            MemoryOutbox(self.broker),
            self.post,
            POLICY,
            refusals=RefusalLimit("coordinate", Health(60, 60), 20, 60.0),
            lookup=lambda job_id: self.known.get(job_id, Past()),
            health=Health(60, 60),
            metrics=self.metrics,
            clock=self.clock,
        )
        made.open()
        return made, inbox

    def clock(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    def tell(self, *events: Event) -> None:
        for event in events:
            self.broker.append(self.post.record(Topic.JOB_EVENTS, event))

    def turn(self, *coordinators: Coordination, times: int = 3) -> None:
        for _ in range(times):
            self.now_s += 0.5
            for coordinator in coordinators:
                coordinator.turn()

    def seen(self, topic: Topic, kind: type[E]) -> list[E]:
        return [self.post.codec.decode(record, (kind,)) for record in self.broker.records(PREFIX + topic)]

    def answer_everything(self) -> None:
        """What the functions would say to all work so far; repetitions are theirs and ours to bear."""
        for plan in self.seen(Topic.PLAN_WORK, PlanWork):
            self.tell(*plan_answers(plan, 3))
        for chunk in self.seen(Topic.CHUNK_WORK_NORMAL, ChunkWork):
            self.tell(transcribed(chunk.job_id, chunk.chunk_index))
        for assembly in self.seen(Topic.ASSEMBLY_WORK, AssemblyWork):
            self.tell(assembled(assembly))
        for cleanup in self.seen(Topic.CLEANUP_WORK, CleanupWork):
            self.tell(CleanupFinished(job_id=cleanup.job_id, run=1, removed=1))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"whisperx_{name}", labels)

    def results(self) -> list[JobFinished]:
        return self.seen(Topic.RESULTS, JobFinished)


def finish(cluster: Cluster, *coordinators: Coordination) -> None:
    for _ in range(5):
        cluster.turn(*coordinators)
        cluster.answer_everything()
    cluster.turn(*coordinators)


def test_a_job_runs_from_its_request_to_its_result() -> None:
    cluster = Cluster()
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"))
    finish(cluster, coordinator)
    assert [(result.job_id, result.status) for result in cluster.results()] == [("job", JobStatus.COMPLETED)]


def test_a_new_owner_goes_on_where_the_last_one_stopped() -> None:
    cluster = Cluster()
    first, inbox = cluster.coordinator()
    cluster.tell(requested("a"), requested("b"), requested("c"))
    cluster.turn(first)
    cluster.broker.expire(inbox)  # killed
    second, _ = cluster.coordinator()
    finish(cluster, second)
    assert sorted(result.job_id for result in cluster.results()) == ["a", "b", "c"]
    assert len(cluster.seen(Topic.PLAN_WORK, PlanWork)) == 3


def test_a_zombie_coordinator_changes_nothing() -> None:
    cluster = Cluster(partitions=1)
    zombie, inbox = cluster.coordinator()
    cluster.tell(requested("job"))
    cluster.turn(zombie)
    cluster.broker.expire(inbox)
    owner, _ = cluster.coordinator()
    finish(cluster, owner, zombie)
    assert [result.job_id for result in cluster.results()] == ["job"]


def test_failed_and_doubtful_transactions_change_neither_results_nor_partials() -> None:
    for fault in Fault:
        cluster = Cluster(partitions=1)
        coordinator, _ = cluster.coordinator()
        cluster.tell(requested("job"))
        for _ in range(6):
            cluster.broker.faults.append(fault)
            cluster.turn(coordinator, times=4)
            cluster.answer_everything()
        finish(cluster, coordinator)
        assert [result.job_id for result in cluster.results()] == ["job"], fault
        assert len(cluster.broker.records(PREFIX + Topic.PARTIALS)) == 3, fault


def test_a_conflicting_request_becomes_a_dead_letter_with_its_bytes() -> None:
    cluster = Cluster()
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"), requested("job", key="other.wav", offset=1))
    cluster.turn(coordinator)
    (letter,) = cluster.broker.records(PREFIX + Topic.DEAD_LETTERS)
    assert letter.value == b"{}"
    assert dict(letter.headers)["dead-letter-code"] == b"JOB_CONFLICT"


def test_a_coordinator_that_can_read_nothing_ends_and_leaves_the_rest_where_it_is() -> None:
    cluster = Cluster(partitions=1)
    coordinator, _ = cluster.coordinator()
    for _ in range(30):
        cluster.broker.append(Outgoing(PREFIX + Topic.JOB_EVENTS, b"job", b"what a newer version writes"))
    with pytest.raises(BrokenWorker, match="same version"):
        cluster.turn(coordinator)
    assert cluster.broker.records(PREFIX + Topic.DEAD_LETTERS) == []


def test_an_unreadable_event_is_parked_and_the_next_one_is_read() -> None:
    cluster = Cluster(partitions=1)
    coordinator, _ = cluster.coordinator()
    cluster.broker.append(Outgoing(PREFIX + Topic.JOB_EVENTS, b"job", b"\x00garbage"))
    cluster.tell(requested("job"))
    cluster.turn(coordinator)
    assert len(cluster.broker.records(PREFIX + Topic.DEAD_LETTERS)) == 1
    assert len(cluster.seen(Topic.PLAN_WORK, PlanWork)) == 1


def test_a_late_duplicate_of_an_evicted_job_starts_nothing() -> None:
    cluster = Cluster(known={"job": Past(1, requested("job").request_digest)})
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"))
    cluster.turn(coordinator)
    assert cluster.seen(Topic.PLAN_WORK, PlanWork) == []
    assert cluster.broker.records(PREFIX + Topic.DEAD_LETTERS) == []


def test_events_without_effect_move_the_position_too() -> None:
    cluster = Cluster(partitions=1)
    coordinator, _ = cluster.coordinator()
    cluster.tell(transcribed("nobody", 0))
    cluster.turn(coordinator, times=8)
    assert cluster.broker.lag(PREFIX + Topic.JOB_EVENTS, GROUP) == 0


class BehindMarkers(MemoryInbox):
    """As a topic that is written in transactions: behind what was read lies a marker that nobody is given."""

    def position(self, partition: int) -> int | None:
        found = super().position(partition)
        return found + 1 if found else found


def test_positions_go_on_behind_the_markers_of_transactions() -> None:
    cluster = Cluster()
    coordinator, inbox = cluster.coordinator()
    inbox.__class__ = BehindMarkers
    cluster.tell(requested("job"))
    cluster.turn(coordinator, times=30)
    group = cluster.broker.groups[GROUP, PREFIX + Topic.JOB_EVENTS]
    read = {p: len(log) for p, log in enumerate(cluster.broker.topics[PREFIX + Topic.JOB_EVENTS]) if log}
    assert {p: mark.offset for p, mark in group.committed.items() if mark.offset} == {p: n + 1 for p, n in read.items()}


def test_a_position_from_before_a_failure_is_not_committed() -> None:
    """After a seek the client may tell the old position until something is read: that would be a loss."""
    cluster = Cluster()
    coordinator, inbox = cluster.coordinator()
    cluster.broker.faults.append(Fault.ABORTED)
    cluster.tell(requested("job"))
    read = next(p for p, log in enumerate(cluster.broker.topics[PREFIX + Topic.JOB_EVENTS]) if log)
    while cluster.broker.faults:
        cluster.turn(coordinator, times=1)
    poll, position = inbox.poll, inbox.position
    inbox.poll = lambda timeout_s: None  # type: ignore[method-assign]
    inbox.position = lambda partition: 1 if partition == read else None  # type: ignore[method-assign]
    cluster.turn(coordinator, times=10)
    group = cluster.broker.groups[GROUP, PREFIX + Topic.JOB_EVENTS]
    assert read not in group.committed or group.committed[read].offset is None
    inbox.poll, inbox.position = poll, position  # type: ignore[method-assign]
    cluster.turn(coordinator, times=10)
    assert cluster.seen(Topic.PLAN_WORK, PlanWork)


def test_open_jobs_are_counted_by_stage_and_released_chunks_by_lane() -> None:
    cluster = Cluster()
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"))
    cluster.turn(coordinator)
    assert cluster.value("jobs_open", stage="planning") == 1
    cluster.tell(*plan_answers(cluster.seen(Topic.PLAN_WORK, PlanWork)[0], 3))
    cluster.turn(coordinator)
    assert cluster.value("jobs_open", stage="planning") == 0
    assert cluster.value("jobs_open", stage="transcribing") == 1
    released = len(cluster.seen(Topic.CHUNK_WORK_NORMAL, ChunkWork))
    assert cluster.value("chunks_released", priority="normal") == released > 0
    finish(cluster, coordinator)
    assert cluster.value("jobs_open", stage="transcribing") == cluster.value("chunks_released", priority="normal") == 0
    assert cluster.value("job_seconds_count", status="completed") == 1


def test_a_lost_partition_takes_its_jobs_out_of_the_numbers() -> None:
    cluster = Cluster(partitions=1)
    coordinator, inbox = cluster.coordinator()
    cluster.tell(requested("job"))
    cluster.turn(coordinator)
    cluster.broker.expire(inbox)
    cluster.broker.groups[GROUP, PREFIX + Topic.JOB_EVENTS].members.append(
        MemoryInbox(cluster.broker, inbox.topic, "x")
    )
    cluster.turn(coordinator)
    assert cluster.value("rebalances_total", kind="lost") == 1
    assert cluster.value("assigned_partitions", topic=inbox.topic) == 0
    assert cluster.value("jobs_open", stage="planning") == 0


def test_a_duplicate_is_counted_and_a_conflict_is_none() -> None:
    cluster = Cluster(known={"old": Past(1, requested("old").request_digest)})
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"), requested("job"), requested("job", key="other.wav", offset=1), requested("old"))
    cluster.turn(coordinator)
    assert cluster.value("duplicate_jobs_total") == 2
    assert cluster.value("dead_letters_total", code="JOB_CONFLICT") == 1


def test_two_equal_requests_in_one_batch_are_two_events_of_the_audit_trail() -> None:
    cluster = Cluster(tick_s=0.001)
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"), requested("job", offset=1), requested("job", offset=2))
    cluster.turn(coordinator)
    records = cluster.broker.records(PREFIX + Topic.AUDIT)
    assert len({dict(record.headers)["ce_id"] for record in records}) == len(records) == 3


def test_a_job_whose_transaction_fails_is_not_yet_finished() -> None:
    cluster = Cluster(partitions=1)
    coordinator, _ = cluster.coordinator()
    cluster.tell(requested("job"))
    for _ in range(2):
        cluster.turn(coordinator)
        cluster.answer_everything()
    cluster.turn(coordinator)
    (assembly,) = cluster.seen(Topic.ASSEMBLY_WORK, AssemblyWork)
    cluster.broker.faults.append(Fault.ABORTED)
    cluster.tell(assembled(assembly))
    cluster.turn(coordinator, times=1)
    assert cluster.value("transactions_total", outcome="aborted") == 1
    assert cluster.value("jobs_finished_total", status="completed") is None
    cluster.turn(coordinator)
    assert cluster.value("jobs_finished_total", status="completed") == 1


def test_a_results_bucket_that_is_missing_ends_no_coordinator_and_loses_no_request() -> None:
    """Without it nobody knows whether a job was done before: requests wait, and nothing is decided."""
    cluster, missing = Cluster(), [True] * 3

    def lookup(_: str) -> Past:
        if missing:
            missing.pop()
            raise MissingBucket("the store has no bucket 'results'; create it, or correct the name")
        return Past()

    coordinator, _ = cluster.coordinator()
    coordinator._lookup = lookup
    cluster.tell(requested("job"))
    told: list[str] = []
    while missing:
        cluster.turn(coordinator, times=1)
        told += coordinator._health.ready().reasons
    assert "no bucket 'results'" in told[-1]
    finish(cluster, coordinator)
    assert [(result.job_id, result.status) for result in cluster.results()] == [("job", JobStatus.COMPLETED)]
    assert coordinator._health.live().ok


def test_a_partition_whose_position_is_not_told_holds_up_only_itself() -> None:
    cluster = Cluster()
    coordinator, inbox = cluster.coordinator()
    other, leaving = cluster.coordinator()
    cluster.turn(coordinator, other)
    cluster.tell(*(requested(f"job-{number}") for number in range(8)))
    leaving.close(1.0)
    inbox.tells_positions = False
    cluster.turn(coordinator, times=10)
    planned = cluster.seen(Topic.PLAN_WORK, PlanWork)
    assert 0 < len(planned) < 8
    assert coordinator.describe()["awaits_positions"]
    assert not coordinator._health.ready().ok
    assert cluster.value("rebalances_total", kind="assigned") == 2, "nothing was started over"
    inbox.tells_positions = True
    finish(cluster, coordinator)
    assert {result.job_id for result in cluster.results()} == {f"job-{number}" for number in range(8)}
    assert coordinator._health.ready().ok
