"""The store or the broker away under load: nobody is blamed, nothing fails, and work goes on soon after the return.

`WHISPERX_TEST_OUTAGE_S` is how long they are away: 20 seconds here, 300 for the figure in docs/reliability.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from consumer.core.layout import Topic
from tests.integration.server_system import ALL, Member, ServerSystem, server_system
from tests.servers.kafka import Kafka, own_kafka
from tests.servers.minio import Minio, own_minio

OUTAGE_S = float(os.environ.get("WHISPERX_TEST_OUTAGE_S", "20"))
RESUME_S = 10.0
pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240 + 2 * OUTAGE_S)]

both_protocols = pytest.mark.parametrize("protocol", ["classic", "consumer"])
JOBS = tuple(f"job-{number}" for number in range(6))


@pytest.fixture(scope="module")
def away_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Its own: the shared one serves other tests."""
    with own_kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def away_minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    with own_minio(tmp_path_factory.mktemp("minio")) as minio:
        yield minio


def under_load(system: ServerSystem) -> tuple[Member, ...]:
    """Two members that share the work, in the middle of some jobs."""
    members = tuple(system.start(ALL, name=name, chunk_s=0.5) for name in ("one", "two"))
    system.upload()
    system.submit(*JOBS[:4])
    system.wait(lambda: len(system.partials()) >= 4)
    return members


def unready_within(system: ServerSystem, members: tuple[Member, ...], since_s: float) -> None:
    """Readiness says so, and liveness does not: a restart would mend nothing."""
    system.wait(lambda: any(not member.ready().ok for member in members), timeout_s=OUTAGE_S + 30)
    ends_s = since_s + OUTAGE_S
    while time.monotonic() < ends_s:
        assert all(member.system.parts.health.live().ok for member in members)
        for member in members:
            member.system.check()
        time.sleep(0.2)  # an outage is time that passes


def resumed_after_s(system: ServerSystem, engines: tuple[Member, ...], before: int) -> float:
    """Until a chunk is computed that was not before."""
    return system.wait(lambda: computed(engines) > before, timeout_s=90)


def computed(members: tuple[Member, ...]) -> int:
    return sum(sum(member.engine.calls.values()) for member in members)


def assert_nobody_was_blamed(system: ServerSystem, members: tuple[Member, ...]) -> None:
    for member in members:
        member.engine.during = lambda _: None  # the load was for the outage and the return; what is left may be quick
    system.finish(*JOBS)
    system.assert_nothing_lost_or_doubled(*JOBS)
    assert system.failures() == []
    assert system.attempts() == {1}, "no attempt was burnt"
    assert system.everything(Topic.DEAD_LETTERS) == []
    system.wait(lambda: all(member.ready().ok for member in members), timeout_s=30)


@both_protocols
def test_a_store_that_is_away_under_load_burns_no_attempt_and_work_resumes_soon(
    kafka: Kafka, away_minio: Minio, topic_prefix: str, protocol: str
) -> None:
    with server_system(kafka, away_minio, topic_prefix, KAFKA__GROUP_PROTOCOL=protocol) as system:
        members = under_load(system)
        away_minio.stop()
        since_s = time.monotonic()
        try:
            system.submit(*JOBS[4:])
            unready_within(system, members, since_s)
            before = computed(members)
        finally:
            away_minio.start()
        resumed_s = resumed_after_s(system, members, before)
        print(f"store away for {OUTAGE_S:.0f} s, {protocol}: work resumes {resumed_s:.1f} s after its return")
        assert_nobody_was_blamed(system, members)
        assert resumed_s < RESUME_S


@both_protocols
def test_a_broker_that_is_away_under_load_burns_no_attempt_and_work_resumes_soon(
    away_kafka: Kafka, minio: Minio, topic_prefix: str, protocol: str
) -> None:
    with server_system(away_kafka, minio, topic_prefix, KAFKA__GROUP_PROTOCOL=protocol) as system:
        members = under_load(system)
        away_kafka.kill()
        since_s = time.monotonic()
        try:
            unready_within(system, members, since_s)
        finally:
            away_kafka.restart()
        before = computed(members)
        resumed_s = resumed_after_s(system, members, before)
        print(f"broker away for {OUTAGE_S:.0f} s, {protocol}: work resumes {resumed_s:.1f} s after its return")
        system.submit(*JOBS[4:])
        assert_nobody_was_blamed(system, members)
        assert resumed_s < RESUME_S
