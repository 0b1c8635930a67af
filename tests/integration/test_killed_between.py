"""Processes killed at chosen moments, on real Kafka and MinIO: Z6 between object write and commit, Z7 coordinator
between state and result; and a system whose groups' positions expired while it was idle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.bootstrap import Role
from consumer.core.layout import Topic
from consumer.events import JobFinished
from tests.integration.server_system import ALL, OTHERS, Member, ServerSystem, server_system
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

CONSUMED = (Topic.JOBS, Topic.JOB_EVENTS, Topic.PLAN_WORK, Topic.CHUNK_WORK_NORMAL, Topic.ASSEMBLY_WORK)
both_protocols = pytest.mark.parametrize("protocol", ["classic", "consumer"])


@pytest.fixture
def system(kafka: Kafka, minio: Minio, topic_prefix: str) -> Iterator[ServerSystem]:
    with server_system(kafka, minio, topic_prefix, KAFKA__TRANSACTION_TIMEOUT_S="10") as made:
        yield made


def computed(*logs: Path) -> list[int]:
    """The chunks that processes computed, by their own words."""
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
    return sorted(int(line.rpartition(" ")[2]) for line in lines if line.startswith("engine computed "))


@both_protocols
def test_z6_what_was_stored_before_a_kill_is_announced_by_the_next_and_not_computed_again(
    kafka: Kafka, minio: Minio, topic_prefix: str, protocol: str, tmp_path: Path
) -> None:
    with server_system(kafka, minio, topic_prefix, KAFKA__GROUP_PROTOCOL=protocol) as system:
        system.start(OTHERS)
        system.upload()
        system.submit("job")
        logs = [tmp_path / f"{number}.log" for number in range(3)]
        for number, log in enumerate(logs[:2]):
            fateful = system.process([Role.TRANSCRIBE], name=f"f{number}", moment="after_checkpoint", log=log)
            system.wait(lambda fateful=fateful: fateful.poll() is not None)  # type: ignore[misc]
            assert fateful.returncode == -signal.SIGKILL, log.read_text(errors="replace")
        last = system.process([Role.TRANSCRIBE], name="last", log=logs[2])
        result = system.finish("job")["job"]
        system.assert_nothing_lost_or_doubled("job")
        assert computed(*logs) == list(range(result.chunks_total)), "each chunk once, whoever died"
        last.terminate()
        assert last.wait(60) == 0


@pytest.mark.parametrize("moment", ["before_result_commit", "after_result_commit"])
@both_protocols
def test_z7_a_coordinator_killed_between_state_and_result_leaves_both_or_neither(
    kafka: Kafka, minio: Minio, topic_prefix: str, protocol: str, moment: str, tmp_path: Path
) -> None:
    others = tuple(role for role in Role if role is not Role.COORDINATE)
    with server_system(
        kafka, minio, topic_prefix, KAFKA__GROUP_PROTOCOL=protocol, KAFKA__TRANSACTION_TIMEOUT_S="10"
    ) as system:
        system.start(others)
        system.upload()
        log = tmp_path / "coordinator.log"
        fateful = system.process([Role.COORDINATE], name="fateful", moment=moment, log=log)
        system.submit("job")
        system.wait(lambda: fateful.poll() is not None)
        assert fateful.returncode == -signal.SIGKILL, log.read_text(errors="replace")
        if moment == "after_result_commit":
            system.wait(lambda: "job" in system.finished())
        else:
            assert system.finished() == {}, "what is open is not visible"

        system.start([Role.COORDINATE], name="successor")
        system.submit("next")
        system.finish("job", "next")
        system.assert_nothing_lost_or_doubled("job", "next")
        assert len(system.all_events(Topic.RESULTS, JobFinished)) == 2


def test_positions_that_expired_while_idle_bring_neither_a_second_result_nor_a_second_computation(
    system: ServerSystem,
) -> None:
    """A group without members loses its positions after a week, and everything that is kept is read once more."""
    system.upload()
    first = system.start(ALL, name="before")
    system.submit("one", "two")
    results = system.finish("one", "two")
    system.wait(lambda: not list(system.store.list_keys(system.work, "")), what="cleanup")
    first.stop()
    system.members.remove(first)
    forget_positions(system)

    second = system.start(ALL, name="after")
    system.submit("three")
    system.finish("three")
    system.wait(lambda: has_read_everything(system, second), what="everything was read again")
    system.assert_nothing_lost_or_doubled("one", "two", "three")
    assert system.everything(Topic.DEAD_LETTERS) == []
    assert sum(second.engine.calls.values()) == results["one"].chunks_total, "only the new job was computed"
    system.wait(lambda: not list(system.store.list_keys(system.work, "")), what="nothing is left behind")


def has_read_everything(system: ServerSystem, member: Member) -> bool:
    """By its own numbers."""
    registry = member.system.parts.metrics.registry
    lags = [registry.get_sample_value("whisperx_consumer_lag", {"topic": system.prefix + topic}) for topic in CONSUMED]
    return all(lag == 0 for lag in lags)


def forget_positions(system: ServerSystem) -> None:
    """What the broker does with a group that was empty for `offsets.retention.minutes`."""
    admin = system.kafka.admin()
    groups = [group.group_id for group in admin.list_consumer_groups().result(30).valid]
    ours = [group for group in groups if group.startswith(system.prefix)]
    assert ours
    for answer in admin.delete_consumer_groups(ours).values():
        answer.result(30)
