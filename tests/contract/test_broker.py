"""The broker contract on the fake, on the embedded broker and on real Kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import PlainOutbox, TransactionalOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.adapters.memory_broker import MemoryBroker, MemoryInbox, MemoryOutbox, MemoryTail
from consumer.broker import Inbox, Mark
from consumer.errors import BrokerUnavailable, Fenced, Misconfigured
from consumer.ports import Outgoing
from consumer.settings import KafkaSettings
from demo.embedded.broker import CLIENT_SETTINGS, EmbeddedBroker
from tests.contract.broker_contract import (
    OUT,
    PATIENCE_S,
    WORK,
    BrokerContract,
    Lab,
    TransactionContract,
    Watcher,
    poll_until,
    take,
)
from tests.servers.kafka import Kafka, own_kafka


@dataclass
class MemoryLab:
    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker({WORK: 2, OUT: 1}))

    def topic(self, name: str) -> str:
        return name

    def inbox(self, name: str, group: str = "group") -> MemoryInbox:
        return MemoryInbox(self.broker, name, group)

    def outbox(self, name: str = "one") -> MemoryOutbox:
        return MemoryOutbox(self.broker)

    def tail(self, name: str) -> MemoryTail:
        return MemoryTail(self.broker, name)


class TestMemoryBroker(TransactionContract):
    @pytest.fixture
    def lab(self) -> MemoryLab:
        return MemoryLab()

    def push_out(self, inbox: Inbox, watcher: Watcher) -> None:
        assert isinstance(inbox, MemoryInbox)
        inbox._broker.expire(inbox)


@dataclass
class KafkaLab:
    settings: KafkaSettings
    transactions: bool = True

    def topic(self, name: str) -> str:
        return self.settings.topic_prefix + name

    def inbox(self, name: str, group: str = "group") -> KafkaInbox:
        return KafkaInbox(self.settings, self.topic(name), self.settings.group_prefix + group)

    def outbox(self, name: str = "one") -> TransactionalOutbox | PlainOutbox:
        if not self.transactions:
            return PlainOutbox(self.settings)
        return TransactionalOutbox(self.settings, f"{self.settings.group_prefix}{name}")

    def tail(self, name: str) -> KafkaTail:
        return KafkaTail(self.settings, self.topic(name))


def poll_in_spite_of_failures(condition: Callable[[], bool], *inboxes: Inbox) -> None:
    """What loops do: a failure is worth another call."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not reached within {PATIENCE_S} s"
        for inbox in inboxes:
            with contextlib.suppress(BrokerUnavailable):
                inbox.poll(0.05)


@pytest.mark.servers
class TestKafka(TransactionContract):
    @pytest.fixture(params=["classic", "consumer"])
    def lab(self, request: pytest.FixtureRequest, kafka: Kafka, topic_prefix: str) -> KafkaLab:
        for name, partitions in ((WORK, 2), (OUT, 1)):
            kafka.create_topic(topic_prefix + name, partitions)
        settings = KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers,
            topic_prefix=topic_prefix,
            group_prefix=topic_prefix,
            group_protocol=request.param,
            session_timeout_s=6,
            max_poll_interval_s=6,
        )
        # KIP-848: the broker waits for a session after the client has fallen silent.
        self.silent_s = 8 if settings.group_protocol == "classic" else 16
        return KafkaLab(settings)

    def push_out(self, inbox: Inbox, watcher: Watcher) -> None:
        """Not polling for longer than the poll interval: the client leaves the group by itself."""
        assert isinstance(inbox, KafkaInbox)
        time.sleep(self.silent_s)  # the very thing under test is time that passes without a poll

    def test_a_second_process_under_the_same_id_fences_the_first(self, lab: KafkaLab) -> None:
        first, second = lab.outbox("same"), lab.outbox("same")
        first.publish([Outgoing(lab.topic(OUT), b"k", b"1")], [])
        second.publish([Outgoing(lab.topic(OUT), b"k", b"2")], [])
        with pytest.raises(Fenced):
            first.publish([Outgoing(lab.topic(OUT), b"k", b"3")], [])
        assert [record.value for record in lab.tail(OUT).read_to_end(0, 30)] == [b"1", b"2"]

    def test_a_position_that_a_transaction_holds_back_is_told_when_that_has_ended(self, lab: KafkaLab) -> None:
        """A worker was killed while it published: its heir must neither begin elsewhere nor wait for ever."""
        self.fill(lab, b"1", b"2")
        inbox, _ = self.joined(lab)
        first, _ = take(2, inbox)
        assert isinstance(inbox, KafkaInbox)
        open_one = Producer({"bootstrap.servers": lab.settings.bootstrap_servers, "transactional.id": inbox.group})
        open_one.init_transactions(30)
        open_one.begin_transaction()
        position = TopicPartition(lab.topic(WORK), 0, first.offset + 1)
        open_one.send_offsets_to_transaction([position], inbox.group_metadata(), 30)
        inbox.close(5)

        heir = lab.inbox(WORK)
        watcher = Watcher(heir)
        heir.open(watcher.rebalance())
        with pytest.raises(BrokerUnavailable, match="committed offsets of"):
            poll_until(lambda: False, heir)
        assert (watcher.assigned, heir.awaits_positions) == (set(), True)
        assert [heir.poll(0.1) for _ in range(5)] == [None] * 5, "polled on while the question is on its way"
        open_one.commit_transaction(30)
        poll_in_spite_of_failures(lambda: not heir.awaits_positions, heir)
        assert watcher.marks == {0: Mark(first.offset + 1), 1: Mark(None)}
        heir.resume({0, 1})
        assert take(1, heir)[0].value == b"2"
        self.fill(lab, b"3", partition=1)
        assert take(1, heir)[0].value == b"3"
        heir.close(5)

    def test_a_partition_that_goes_before_its_position_is_told_is_nobodys_loss(
        self, lab: KafkaLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fill(lab, b"1")
        inbox = lab.inbox(WORK)
        watcher = Watcher(inbox)

        def no_answer(*_: object) -> dict[int, Mark]:
            raise BrokerUnavailable("says the test")

        monkeypatch.setattr(inbox, "_asked", no_answer)
        inbox.open(watcher.rebalance())
        with pytest.raises(BrokerUnavailable, match="says the test"):
            poll_until(lambda: False, inbox)
        second = lab.inbox(WORK)
        other = Watcher(second)
        second.open(other.rebalance())
        poll_in_spite_of_failures(lambda: len(other.assigned) == 1, inbox, second)
        inbox.close(5)
        poll_until(lambda: other.assigned == {0, 1}, second)
        second.resume({0, 1})
        assert take(1, second)[0].value == b"1"
        assert watcher.assigned == set()
        second.close(5)

    def test_a_missing_topic_is_said_with_what_to_do(self, lab: KafkaLab) -> None:
        with pytest.raises(Misconfigured, match="topics create"):
            lab.tail("missing").follow()


class TestEmbeddedBroker(BrokerContract):
    """Groups and plain commits work; transactions are the known gap, and `PlainOutbox` does without."""

    @pytest.fixture
    def lab(self) -> Iterator[KafkaLab]:
        prefix = "t."
        with EmbeddedBroker({prefix + WORK: 2, prefix + OUT: 1}) as broker:
            settings = KafkaSettings(
                bootstrap_servers=broker.bootstrap_servers,
                topic_prefix=prefix,
                group_protocol="consumer",
                extra={name: str(value).lower() for name, value in CLIENT_SETTINGS.items()},
            )
            yield KafkaLab(settings, transactions=False)


def test_the_labs_have_the_shape_that_the_contract_asks_for() -> None:
    lab: Lab = MemoryLab()
    assert lab.topic(WORK) == WORK


@pytest.mark.servers
def test_the_tail_waits_for_a_transaction_that_is_not_decided(kafka: Kafka, topic_prefix: str) -> None:
    """What a restore must not miss: states whose transaction is still being settled."""
    kafka.create_topic(topic_prefix + OUT, 1)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic_prefix})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic_prefix + OUT, b"state")
    producer.flush(10)
    with pytest.raises(BrokerUnavailable):
        KafkaTail(settings, topic_prefix + OUT).read_to_end(0, 2.0)
    producer.commit_transaction(30)
    assert [record.value for record in KafkaTail(settings, topic_prefix + OUT).read_to_end(0, 30.0)] == [b"state"]


@pytest.mark.servers
def test_the_tail_reads_on_where_it_has_ended_and_misses_nothing(kafka: Kafka, topic_prefix: str) -> None:
    """Behind the markers of transactions, too, and again what came before a reading that failed."""
    topic = kafka.create_topic(topic_prefix + OUT, 2)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic_prefix})
    producer.init_transactions(30)

    def write(*values: tuple[int, bytes]) -> None:
        producer.begin_transaction()
        for partition, value in values:
            producer.produce(topic, value, partition=partition)
        producer.flush(10)

    tail = KafkaTail(settings, topic)

    def read(timeout_s: float = 30.0) -> list[bytes]:
        return sorted(record.value or b"" for record in tail.read_on(timeout_s))

    with contextlib.closing(tail):
        assert read() == []
        write((0, b"a"), (1, b"b"), (0, b"c"))
        producer.commit_transaction(30)
        assert (read(), read()) == ([b"a", b"b", b"c"], [])
        write((1, b"d"))
        producer.abort_transaction(30)
        assert read() == []
        write((0, b"e"), (1, b"f"))
        with pytest.raises(BrokerUnavailable, match=rf"{topic}\[\d\] was read to \d of \d"):
            read(2.0)
        producer.commit_transaction(30)
        assert (read(), read()) == ([b"e", b"f"], [])
        admin = kafka.admin()
        admin.delete_topics([topic])[topic].result(30)
        poll_until(lambda: topic not in admin.list_topics(timeout=10).topics)
        kafka.create_topic(topic, 2)
        with pytest.raises(BrokerUnavailable, match="made anew or cut"):
            read()


@pytest.mark.servers
def test_a_worker_that_starts_before_its_broker_follows_as_soon_as_it_answers(tmp_path: Path) -> None:
    """Else its process would end and load its models again and again."""
    with own_kafka(tmp_path) as kafka:
        topic = kafka.create_topic("control", 2)
        kafka.stop()
        tail = KafkaTail(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers), topic)
        tail.follow()
        assert tail.poll(0.1) is None
        kafka.restart()
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        producer.produce(topic, b"cancel")
        assert producer.flush(PATIENCE_S) == 0
        deadline = time.monotonic() + PATIENCE_S
        while (found := tail.poll(0.5)) is None:
            assert time.monotonic() < deadline
        assert found.value == b"cancel"
        tail.close()
