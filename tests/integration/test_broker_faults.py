"""What a Kafka service does to its clients: swallowed answers (Z5), one-way and slow networks, dead brokers, refusals.

The workers come to the broker through a proxy; the tests themselves read and write beside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from consumer.adapters.kafka_outbox import TransactionalOutbox, Undelivered
from consumer.broker import Inbox, Marks
from consumer.errors import MissingTopic
from consumer.exit_codes import ExitCode, exit_code_of
from consumer.loop import LoopLimits
from consumer.ports import Outgoing
from consumer.settings import KafkaSettings
from tests.integration.yard import SESSION_S, Worker, Yard, settle, until, yard_of
from tests.servers.kafka import Kafka, own_kafka
from tests.servers.kafka_cluster import Way, kafka_cluster
from tests.servers.process import free_port
from tests.servers.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

both_protocols = pytest.mark.parametrize("protocol", ["classic", "consumer"])
RESUME_S = 10.0
"""Within so long of a server's return work goes on."""
BUSY_S = 5.0
"""More, for a machine that does other things beside."""


@dataclass(frozen=True)
class Broker:
    """A broker, and the spoilt way to it."""

    kafka: Kafka
    proxy: Proxy
    by_proxy: str

    def swallow(self, stream: str) -> None:
        """Take everything that goes `upstream` (to the broker) or `downstream` (from it), and say nothing."""
        toxic = {"name": stream, "type": "timeout", "stream": stream, "attributes": {"timeout": 0}}
        self.proxy.owner.call("POST", f"/proxies/{self.proxy.name}/toxics", toxic)

    def let_through(self, stream: str) -> None:
        """From now on; what was swallowed is gone, and its connection may hang."""
        self.proxy.heal(stream)

    def break_connections(self) -> None:
        self.proxy.cut()
        self.proxy.mend()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, toxiproxy: Toxiproxy) -> Iterator[Broker]:
    port = free_port()
    with toxiproxy.proxy("kafka-of-faults", f"127.0.0.1:{port}") as proxy:
        way = Way("PROXIED", port, int(proxy.address.rpartition(":")[2]))
        with kafka_cluster(tmp_path_factory.mktemp("faults"), [[way]]) as cluster:
            yield Broker(cluster.nodes[0], proxy, cluster.by_way("PROXIED"))


MakeYard = Callable[..., Yard]


@pytest.fixture
def new_yard(broker: Broker, topic_prefix: str) -> Iterator[MakeYard]:
    with ExitStack() as stack:
        yield lambda **shape: stack.enter_context(
            yard_of(broker.kafka, topic_prefix, servers=broker.by_proxy, **{"commit_timeout_s": 3.0, **shape})
        )


# ── Z5 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class SwallowedOutbox(TransactionalOutbox):
    """Loses the network at the end of the transaction that carries `fateful`, once."""

    def __init__(self, settings: KafkaSettings, transactional_id: str, lose: Callable[[], None]) -> None:
        super().__init__(settings, transactional_id)
        self._lose: Callable[[], None] | None = lose
        self._is_fateful = False
        self.producers: list[Producer] = []

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        self._is_fateful = any(b"fateful" in (record.value or b"") for record in records)
        super().publish(records, marks)

    def _commit(self, producer: Producer, delivery_errors: list[Undelivered]) -> None:
        if producer not in self.producers:
            self.producers.append(producer)
        if self._is_fateful and self._lose is not None:
            lose, self._lose = self._lose, None
            producer.flush(10)  # only the transaction's end is at stake
            lose()
        super()._commit(producer, delivery_errors)


@both_protocols
@pytest.mark.parametrize("lost", ["downstream", "upstream"])
def test_z5_a_transaction_whose_end_is_not_answered_is_settled_by_a_new_producer(
    broker: Broker, new_yard: MakeYard, protocol: str, lost: str
) -> None:
    """Downstream the answer is lost and the work is visible, upstream the request is and it is not."""
    yard = new_yard(protocol=protocol, max_poll_s=30, session_s=20)
    ended = threading.Event()

    def lose() -> None:
        broker.swallow(lost)
        threading.Timer(yard.commit_timeout_s + 1, find).start()

    def find() -> None:
        broker.let_through(lost)
        broker.break_connections()
        ended.set()

    made: list[SwallowedOutbox] = []

    def outbox(settings: KafkaSettings, transactional_id: str) -> SwallowedOutbox:
        made.append(SwallowedOutbox(settings, transactional_id, lose))
        return made[0]

    worker = yard.worker("one", outbox=outbox).start()
    yard.put(b"before", b"fateful", b"after")
    assert ended.wait(60)
    since_s = time.monotonic()
    until(yard.has(3))
    print(f"Z5 {protocol} {lost}: all answered {time.monotonic() - since_s:.1f} s after the network's return")
    settle(for_s=2)
    assert yard.out() == [b"one:before", b"one:fateful", b"one:after"]
    assert worker.work.begun == [b"before", b"fateful", b"after"], "nothing is computed twice for that"
    assert worker.value("transactions_total", outcome="in_doubt") >= 1
    assert len(made[0].producers) >= 2, "a producer in doubt is thrown away"
    assert worker.error is None


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────


@both_protocols
@pytest.mark.parametrize("lost", ["downstream", "upstream"])
def test_a_network_that_is_cut_one_way_loses_and_doubles_nothing(
    broker: Broker, new_yard: MakeYard, protocol: str, lost: str
) -> None:
    """For longer than the session, and connections that hang are given up."""
    yard = new_yard(protocol=protocol)
    worker = yard.worker("one").start()
    yard.put(b"before")
    until(yard.has(1))
    broker.swallow(lost)
    try:
        yard.put(*[b"%d" % number for number in range(20)])
        settle(for_s=12.0)
    finally:
        broker.let_through(lost)
    resumed_s = until(yard.has(2))
    print(f"one way cut for 12 s, {protocol} {lost}: work resumes {resumed_s:.1f} s after it")
    until(yard.has(21))
    settle(for_s=2)
    assert sorted(yard.answered()) == sorted([b"before", *[b"%d" % number for number in range(20)]])
    assert worker.error is None
    assert resumed_s < RESUME_S + BUSY_S


def test_an_isolated_worker_is_replaced_and_publishes_nothing_when_its_network_returns(
    broker: Broker, new_yard: MakeYard
) -> None:
    yard = new_yard()
    isolated = yard.worker("isolated").start()
    until(lambda: isolated.assigned == {0})
    yard.put(b"wait")
    until(lambda: isolated.work.begun == [b"wait"])
    broker.swallow("upstream")
    try:
        isolated.work.open(b"wait")
        owner = yard.worker("owner", servers=broker.kafka.bootstrap_servers)
        owner.work.open(b"wait")
        owner.start()
        until(yard.has(1))
    finally:
        broker.let_through("upstream")
    until(lambda: isolated.value("rebalances_total", kind="lost") >= 1)
    yard.put(b"later")
    until(yard.has(2))
    settle(for_s=2)
    assert yard.answered() == [b"wait", b"later"]
    assert yard.out()[0] == b"owner:wait"


def test_a_slow_network_is_slow_and_nothing_else(broker: Broker, new_yard: MakeYard) -> None:
    """The first transaction of a new producer is about eight questions in turn, four of them about its offsets."""
    latency_s = 1.0
    yard = new_yard(max_poll_s=60, session_s=20)
    worker = yard.worker("one").start()
    yard.put(b"before")
    until(yard.has(1))
    broker.proxy.slow(latency_s)
    try:
        yard.put(*[b"%d" % number for number in range(5)])
        took_s = until(yard.has(6), timeout_s=200)
    finally:
        broker.proxy.heal("latency")
    print(f"latency of {latency_s} s: 5 records took {took_s:.1f} s")
    settle(for_s=2)
    assert sorted(yard.answered()) == sorted([b"before", *[b"%d" % number for number in range(5)]])
    assert worker.error is None


@both_protocols
def test_a_broker_that_is_killed_under_load_and_comes_back_loses_and_doubles_nothing(
    broker: Broker, new_yard: MakeYard, protocol: str
) -> None:
    yard = new_yard(protocol=protocol, partitions=4)
    workers = [yard.worker(name).start() for name in ("one", "two")]
    values = [b"%d" % number for number in range(200)]
    for number, value in enumerate(values):
        yard.put(value, partition=number % 4)
        if number == 100:
            until(yard.has(20))
            broker.kafka.kill()
            until(lambda: any(not worker.health.ready().ok for worker in workers))
            broker.kafka.restart()
            resumed_s = until(yard.has(len(yard.seen()) + 1))
    until(yard.has(200))
    print(f"broker killed under load, {protocol}: work resumes {resumed_s:.1f} s after its return")
    settle(for_s=2)
    assert sorted(yard.answered()) == sorted(values)
    assert [worker.error for worker in workers] == [None, None]
    until(lambda: all(worker.health.ready().ok for worker in workers))
    assert resumed_s < SESSION_S + RESUME_S + BUSY_S, "members that the broker remembers are waited for"


# ── what the broker refuses ─────────────────────────────────────────────────────────────────────────────────────────


def set_topic(kafka: Kafka, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value)
    entry.incremental_operation = AlterConfigOpType.SET
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = kafka.admin()
    admin.incremental_alter_configs([resource])[resource].result(30)


def leader_of(kafka: Kafka, topic: str) -> int:
    """Of its first partition. A new one would not know the end of it before there are enough copies."""
    return int(kafka.admin().list_topics(topic, timeout=10).topics[topic].partitions[0].leader)


def refused(worker: Worker, words: str) -> bool:
    """Whether readiness is gone and says why."""
    return any(words.lower() in reason.lower() for reason in worker.health.ready().reasons)


def test_without_enough_replicas_work_waits_and_goes_on_when_there_are_enough(
    tmp_path: Path, topic_prefix: str
) -> None:
    """Three copies that must all confirm, and one of three brokers dies."""
    with (
        kafka_cluster(tmp_path, [[], [], []]) as cluster,
        yard_of(
            cluster.nodes[0], topic_prefix, servers=cluster.bootstrap_servers, copies=3, commit_timeout_s=3.0
        ) as yard,
    ):
        set_topic(cluster.nodes[0], yard.out_topic, "min.insync.replicas", "3")
        worker = yard.worker("one").start()
        yard.put(b"1")
        until(yard.has(1))
        lost = cluster.nodes[2] if leader_of(cluster.nodes[0], yard.out_topic) != 3 else cluster.nodes[1]
        lost.kill()
        yard.put(b"2", b"3")
        until(lambda: not worker.health.ready().ok)
        assert worker.health.live().ok
        assert yard.out() == [b"one:1"]

        lost.restart()
        resumed_s = until(yard.has(3))
        print(f"enough replicas again: work resumes after {resumed_s:.1f} s")
        settle(for_s=2)
        assert yard.out() == [b"one:1", b"one:2", b"one:3"]
        assert worker.error is None


def test_an_answer_that_is_larger_than_the_broker_takes_holds_its_worker_and_says_so(
    broker: Broker, new_yard: MakeYard
) -> None:
    """Our events are bounded below any sensible limit: a topic that takes less is a wrong setting of the broker."""
    yard = new_yard()
    set_topic(broker.kafka, yard.out_topic, "max.message.bytes", "50000")
    worker = yard.worker("one")
    worker.work.size_bytes[b"large"] = 300_000
    worker.start()
    yard.put(b"small")
    until(yard.has(1))  # else both may be in one transaction
    yard.put(b"large", b"next")
    until(lambda: refused(worker, "too large"))
    assert yard.out() == [b"one:small"]
    assert worker.error is None, "it does not crash-loop"

    set_topic(broker.kafka, yard.out_topic, "max.message.bytes", "1000000")
    until(yard.has(3))
    assert yard.answered()[2] == b"next"
    assert worker.work.begun == [b"small", b"large", b"next"]


def test_a_missing_topic_ends_the_worker_with_what_to_do(broker: Broker, new_yard: MakeYard) -> None:
    yard = new_yard()
    admin = broker.kafka.admin()
    admin.delete_topics([yard.work_topic])[yard.work_topic].result(30)
    worker = yard.worker("one").start()
    until(lambda: worker.error is not None)
    assert isinstance(worker.error, MissingTopic)
    assert "topics create" in worker.error.message
    assert exit_code_of(worker.error) is ExitCode.MISCONFIGURED


def test_a_topic_for_answers_that_is_missing_holds_the_work_until_it_is_made(
    broker: Broker, new_yard: MakeYard
) -> None:
    """The client itself only waits for it; `doctor` names it."""
    yard = new_yard()
    worker = yard.worker("one")
    worker.work.out = f"{yard.prefix}missing"
    worker.start()
    yard.put(b"1")
    until(lambda: refused(worker, "broker"))
    assert worker.error is None
    broker.kafka.create_topic(worker.work.out)
    until(lambda: yard.committed() is not None and (yard.committed() or 0) >= 1)
    assert worker.work.begun == [b"1"]


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────

LEAVE_S = 20.0
"""What leaving may take beyond the grace period: the pod's own grace period is half a minute more."""


@both_protocols
@pytest.mark.parametrize("away", ["refused", "silent"])
def test_a_worker_ends_in_bounded_time_while_the_broker_is_away(
    broker: Broker, new_yard: MakeYard, protocol: str, away: str
) -> None:
    """With finished work that cannot be published, and a `close` that would wait for the broker."""
    yard = new_yard(protocol=protocol)
    worker = yard.worker("one", limits=LoopLimits(capacity=2.0, grace_s=3.0)).start()
    yard.put(b"before", b"wait")
    until(lambda: worker.work.begun == [b"before", b"wait"])
    until(yard.has(1))
    if away == "refused":
        broker.proxy.cut()
    else:
        broker.swallow("downstream")
    try:
        worker.work.open(b"wait")
        until(lambda: worker.value("transaction_seconds_count") >= 2)  # a publication has been tried
        took_s = worker.end()
    finally:
        broker.proxy.mend()
        if away == "silent":
            broker.let_through("downstream")
    print(f"ended in {took_s:.1f} s with a grace of 3 s, {protocol}, broker {away}")
    assert worker.error is None
    assert took_s < 3.0 + LEAVE_S

    owner = yard.worker("owner")
    owner.work.open(b"wait")
    owner.start()
    until(yard.has(2))
    settle(for_s=2)
    assert sorted(yard.answered()) == [b"before", b"wait"]


# ── idle for days ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_transactional_id_that_expired_while_idle_costs_nothing(tmp_path: Path, topic_prefix: str) -> None:
    """After a week without work the broker forgets the id, and refuses its producer."""
    soon = {
        "transactional.id.expiration.ms": "2000",
        "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
        "producer.id.expiration.ms": "2000",
        "producer.id.expiration.check.interval.ms": "500",
    }
    with own_kafka(tmp_path, soon) as kafka, yard_of(kafka, topic_prefix) as yard:
        worker = yard.worker("one").start()
        yard.put(b"1")
        until(yard.has(1))
        wait_for_tombstone(kafka, f"{topic_prefix}one".encode())
        yard.put(b"2", b"3")
        until(yard.has(3))
        settle(for_s=2)
        assert yard.out() == [b"one:1", b"one:2", b"one:3"]
        assert worker.error is None
        assert worker.value("transactions_total", outcome="aborted") >= 1, "the id had really expired"


def wait_for_tombstone(kafka: Kafka, transactional_id: bytes) -> None:
    """The broker writes down that it has forgotten the id."""
    reader = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "tombstones",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    reader.subscribe(["__transaction_state"])
    try:
        until(lambda: forgets(reader, transactional_id), what="the transactional id expires")
    finally:
        reader.close()


def forgets(reader: Consumer, transactional_id: bytes) -> bool:
    message = reader.poll(0.2)
    if message is None or message.error() is not None:
        return False
    return transactional_id in (message.key() or b"") and message.value() is None
