"""Workers that are gone and do not know it, on a real broker and on both group protocols: nothing lost, nothing twice.

Z1 same transactional id · Z2 stopped past the session · Z3 wedged loop · Z4 lost while computing · Z5 the answer to a
transaction's end swallowed (test_broker_faults) · Z6, Z7 killed at chosen moments (test_killed_between) · Z8 lost and
regained while busy
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from consumer.errors import Fenced
from consumer.exit_codes import ExitCode, exit_code_of
from consumer.health import Health, HealthServer
from consumer.loop import LoopLimits
from tests.integration.yard import SESSION_S, Worker, Yard, settle, until, yard_of
from tests.servers.kafka import Kafka

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
both_protocols = pytest.mark.parametrize("protocol", ["classic", "consumer"])
MakeYard = Callable[..., Yard]


@pytest.fixture
def new_yard(kafka: Kafka, topic_prefix: str) -> Iterator[MakeYard]:
    with ExitStack() as stack:
        yield lambda **shape: stack.enter_context(yard_of(kafka, topic_prefix, **shape))


# ── Z1 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@both_protocols
def test_z1_the_older_of_two_processes_with_one_transactional_id_is_fenced_and_ends(
    new_yard: MakeYard, protocol: str
) -> None:
    """A pod that was thought dead, or two pods of one name: the older one leaves its work to the newer one."""
    yard = new_yard(protocol=protocol, partitions=2)
    old = yard.worker("old", transactional_id="same").start()
    until(lambda: old.assigned == {0, 1})
    yard.put(b"1", partition=0)
    until(yard.has(1))

    new = yard.worker("new", transactional_id="same").start()
    until(lambda: len(old.assigned) == len(new.assigned) == 1)
    (of_old,), (of_new,) = old.assigned, new.assigned
    yard.put(b"2", partition=of_new)
    until(yard.has(2))
    yard.put(b"3", partition=of_old)
    until(lambda: old.error is not None)

    assert isinstance(old.error, Fenced)
    assert exit_code_of(old.error) is ExitCode.BROKEN_WORKER
    until(yard.has(3))
    assert yard.out() == [b"old:1", b"new:2", b"new:3"]


# ── Z2 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Frozen:
    """A worker in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_stopped(self) -> bool:
        return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def said(self, words: str) -> bool:
        return words in self.log.read_text(errors="replace")


@contextmanager
def frozen_worker(yard: Yard, folder: Path, moment: str, word: str, **config: object) -> Iterator[Frozen]:
    settings = yard.settings().model_dump(mode="json", exclude={"sasl_password"})
    told = {
        "settings": settings,
        "topic": yard.work_topic,
        "out": yard.out_topic,
        "group": yard.group,
        "transactional_id": f"{yard.prefix}frozen",
        "name": "frozen",
        "moment": moment,
        "word": word,
        **config,
    }
    log = folder / "frozen.log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "tests.integration.frozen_worker", json.dumps(told)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield Frozen(process, log)
    finally:
        process.kill()
        process.wait(10)


@both_protocols
def test_z2_a_worker_that_was_stopped_past_its_session_publishes_nothing_when_it_wakes(
    new_yard: MakeYard, protocol: str, tmp_path: Path
) -> None:
    """It wakes in the middle of publishing, with a group membership that is over."""
    yard = new_yard(protocol=protocol)
    yard.put(b"warm-up")
    with frozen_worker(yard, tmp_path, "before_publish", "precious") as zombie:
        until(yard.has(1))  # both at once could be published in one
        yard.put(b"precious")
        until(lambda: zombie.is_stopped)
        since_s = time.monotonic()
        owner = yard.worker("owner").start()
        until(yard.has(2))
        takeover_s = time.monotonic() - since_s
        print(f"takeover of a stopped worker, {protocol}: {takeover_s:.1f} s")
        assert takeover_s < SESSION_S + 6  # a busy machine included; the chaos run measures the percentile

        zombie.thaw()
        until(lambda: zombie.said("Partitions changed hands"))
        yard.put(b"later")
        until(yard.has(3))
        zombie.process.terminate()
        assert zombie.process.wait(60) == 0
        assert zombie.said("Publishing failed and is tried again"), "its transaction was refused"
    assert owner.error is None
    assert yard.out()[:2] == [b"frozen:warm-up", b"owner:precious"]
    assert sorted(yard.answered()) == [b"later", b"precious", b"warm-up"]


@both_protocols
@pytest.mark.parametrize("wakes", ["before_the_transaction_times_out", "after_it"])
def test_z2_a_worker_that_was_stopped_inside_its_transaction_is_settled_once(
    new_yard: MakeYard, protocol: str, wakes: str, tmp_path: Path
) -> None:
    """The next owner waits for what is undecided: it sees the finished work, or does it again, and never both."""
    yard = new_yard(protocol=protocol)
    yard.put(b"precious")
    with frozen_worker(yard, tmp_path, "before_commit", "precious") as zombie:
        until(lambda: zombie.is_stopped)
        owner = yard.worker("owner").start()
        until(lambda: owner.assigned == {0})
        if wakes == "after_it":
            until(yard.has(1))
            zombie.thaw()
        else:
            zombie.thaw()
            until(yard.has(1))
        yard.put(b"later")
        until(yard.has(2))
    assert sorted(yard.answered()) == [b"later", b"precious"]


# ── Z3 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def status_of(server: HealthServer) -> tuple[int, str]:
    """What a liveness probe gets."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=5) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


@pytest.fixture
def probed() -> Iterator[Callable[[Health], HealthServer]]:
    from prometheus_client import CollectorRegistry

    with ExitStack() as stack:

        def serve(health: Health) -> HealthServer:
            server = HealthServer("127.0.0.1", 0, health, CollectorRegistry())
            server.start()
            stack.callback(server.stop)
            return server

        yield serve


@both_protocols
def test_z3_a_wedged_loop_is_found_by_its_poll_age_and_replaced_and_publishes_nothing_when_it_goes_on(
    new_yard: MakeYard, protocol: str, probed: Callable[[Health], HealthServer]
) -> None:
    """With KIP-848 the broker waits for a session more, so the probe is what brings a new process in time.

    It is wedged between a poll and a publication, and only its loop: its client has long left the group when it goes on
    with an answer that the next owner has given.
    """
    yard = new_yard(protocol=protocol)
    wedge, wedged, freed = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        if wedge.is_set():
            wedged.set()
            freed.wait(200.0)  # the loop's thread is held by something that does not answer

    health = Health(poll_limit_s=yard.max_poll_s / 2, step_limit_s=60)
    server = probed(health)
    stuck = yard.worker("stuck", health=health, watch=watch).start()
    until(lambda: stuck.assigned == {0})
    yard.put(b"1")
    until(yard.has(1))
    assert status_of(server) == (200, "")

    yard.put(b"wait-2")
    until(lambda: stuck.work.begun == [b"1", b"wait-2"])
    wedge.set()
    assert wedged.wait(30)
    since_s = time.monotonic()
    stuck.work.open(b"wait-2")
    owner = yard.worker("owner")
    owner.work.open(b"wait-2")
    owner.start()
    found_s = until(lambda: status_of(server)[0] == 503)
    assert "last polled" in status_of(server)[1]
    assert found_s < yard.max_poll_s, "found before the group does"
    until(yard.has(2))
    takeover_s = time.monotonic() - since_s
    print(f"takeover of a wedged loop, {protocol}: {takeover_s:.1f} s; found by the probe after {found_s:.1f} s")
    bound_s = yard.max_poll_s + (SESSION_S if protocol == "consumer" else 0)
    assert takeover_s < bound_s + 8
    freed.set()
    until(lambda: stuck.value("transactions_total", outcome="aborted") >= 1, what="its transaction was refused")
    until(lambda: stuck.value("rebalances_total", kind="lost") >= 1)
    assert owner.error is None
    assert stuck.error is None
    assert yard.out() == [b"stuck:1", b"owner:wait-2"]


def test_z3_the_session_of_a_group_on_the_broker_bounds_the_takeover_with_kip_848(new_yard: MakeYard) -> None:
    """Clients cannot set it there: `consumer.session.timeout.ms` of the group does, and the broker keeps to it."""
    yard = new_yard(protocol="consumer", max_poll_s=6)
    session_s = 2.0
    entry = ConfigEntry("consumer.session.timeout.ms", f"{session_s * 1000:.0f}")
    entry.incremental_operation = AlterConfigOpType.SET
    heart = ConfigEntry("consumer.heartbeat.interval.ms", "500")
    heart.incremental_operation = AlterConfigOpType.SET
    group = ConfigResource(ResourceType.GROUP, yard.group, incremental_configs=[entry, heart])
    admin = yard.kafka.admin()
    admin.incremental_alter_configs([group])[group].result(30)

    stuck = yard.worker("stuck").open()
    until(lambda: stuck.assigned == {0}, stuck)
    yard.put(b"1")
    owner = yard.worker("owner").start()
    takeover_s = until(yard.has(1))
    print(f"takeover of a wedged loop, KIP-848 with a session of {session_s:.0f} s on the group: {takeover_s:.1f} s")
    assert takeover_s < yard.max_poll_s + SESSION_S, "sooner than with the broker's own session"
    assert owner.error is None
    assert yard.out() == [b"owner:1"]


def test_z3_work_without_a_sign_of_life_is_found_by_its_step_age(
    new_yard: MakeYard, probed: Callable[[Health], HealthServer]
) -> None:
    """The loop polls on, so the group never notices; the probe does."""
    yard = new_yard()
    health = Health(poll_limit_s=60, step_limit_s=2)
    server = probed(health)
    worker = yard.worker("stuck", health=health)
    worker.work.wedge = threading.Event()
    worker.start()
    until(lambda: worker.assigned == {0})
    assert until(lambda: status_of(server)[0] == 200) < 30
    yard.put(b"1")
    until(lambda: status_of(server)[0] == 503)
    assert "no sign of work" in status_of(server)[1]
    assert worker.assigned == {0}
    worker.work.wedge.set()
    until(lambda: status_of(server)[0] == 200)
    until(yard.has(1))
    assert yard.out() == [b"stuck:1"]


# ── Z4 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@both_protocols
def test_z4_work_whose_partition_was_lost_meanwhile_is_dropped(new_yard: MakeYard, protocol: str) -> None:
    yard = new_yard(protocol=protocol)
    yard.put(b"wait")
    loser, owner = yard.worker("loser").open(), yard.worker("owner")
    until(lambda: loser.work.begun == [b"wait"], loser)
    owner.work.open(b"wait")
    owner.start()
    until(yard.has(1))  # the loser is not turned: it does not poll, and is put out of the group

    until(lambda: loser.work.dropped == [b"wait"], loser)
    loser.work.open(b"wait")
    settle(loser)
    assert loser.value("rebalances_total", kind="lost") + loser.value("rebalances_total", kind="revoked") >= 1
    assert yard.out() == [b"owner:wait"]
    assert yard.committed() is not None


# ── Z8 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@both_protocols
def test_z8_a_partition_that_is_lost_and_regained_while_busy_goes_on_unpaused(
    new_yard: MakeYard, protocol: str
) -> None:
    """Pause state survives a rebalance: without an explicit resume the partition would stand still for ever."""
    yard = new_yard(protocol=protocol)
    yard.put(b"wait")
    worker = yard.worker("one", limits=LoopLimits(capacity=1.0, grace_s=5.0)).open()
    until(lambda: worker.work.begun == [b"wait"], worker)
    until(lambda: bool(worker.loop.describe()["paused"]), worker)

    time.sleep(yard.max_poll_s + 2.0)  # the very thing under test is time that passes without a poll
    until(lambda: worker.work.dropped == [b"wait"], worker)
    until(lambda: worker.work.begun == [b"wait", b"wait"], worker)
    worker.work.open(b"wait")
    until(yard.has(1), worker)
    yard.put(b"next", b"after")
    until(yard.has(3), worker)
    until(lambda: worker.loop.describe()["paused"] == {}, worker)
    assert yard.out() == [b"one:wait", b"one:next", b"one:after"]


# ── orderly rebalances ──────────────────────────────────────────────────────────────────────────────────────────────


def busy_with_two(yard: Yard, revoke_wait_s: float) -> Worker:
    """A worker that holds both partitions and has work running on each."""
    limits = LoopLimits(capacity=2.0, workers=2, grace_s=5.0, revoke_wait_s=revoke_wait_s)
    worker = yard.worker("old", limits=limits)
    worker.start()
    until(lambda: worker.assigned == {0, 1})
    yard.put(b"wait-0", partition=0)
    yard.put(b"wait-1", partition=1)
    until(lambda: sorted(worker.work.begun) == [b"wait-0", b"wait-1"])
    return worker


@both_protocols
def test_work_that_ends_within_the_revoke_wait_is_published_by_its_old_owner(new_yard: MakeYard, protocol: str) -> None:
    yard = new_yard(protocol=protocol, partitions=2, max_poll_s=60)
    old = busy_with_two(yard, revoke_wait_s=20.0)
    new = yard.worker("new").start()
    until(lambda: old.health.poll_age_s("test") > 1.0)  # it waits inside the rebalance
    for value in (b"wait-0", b"wait-1"):
        old.work.open(value)
        new.work.open(value)
    until(yard.has(2))
    until(lambda: len(new.assigned) == 1)
    yard.put(b"later-0", partition=0)
    yard.put(b"later-1", partition=1)
    until(yard.has(4))
    assert sorted(yard.out()[:2]) == [b"old:wait-0", b"old:wait-1"]
    assert sorted(new.work.begun) in ([b"later-0"], [b"later-1"])


@both_protocols
def test_work_that_does_not_end_within_the_revoke_wait_is_done_again_by_its_new_owner(
    new_yard: MakeYard, protocol: str
) -> None:
    yard = new_yard(protocol=protocol, partitions=2, max_poll_s=60)
    old = busy_with_two(yard, revoke_wait_s=1.0)
    new = yard.worker("new")
    for value in (b"wait-0", b"wait-1"):
        new.work.open(value)
    new.start()
    until(yard.has(1))
    (redone,) = new.work.begun
    until(lambda: old.work.dropped == [redone])
    for value in (b"wait-0", b"wait-1"):
        old.work.open(value)
    until(yard.has(2))
    kept = b"wait-1" if redone == b"wait-0" else b"wait-0"
    assert sorted(yard.out()) == sorted([b"new:" + redone, b"old:" + kept])
