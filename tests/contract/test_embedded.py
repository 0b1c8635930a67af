"""What the demo relies on in its embedded broker and its embedded object store."""

from __future__ import annotations

import _ctypes
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
import urllib3
from confluent_kafka import Consumer, Message, Producer, TopicPartition, cimpl
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.versioningconfig import VersioningConfig

from demo.embedded.broker import CLIENT_SETTINGS, PRODUCER_SETTINGS, EmbeddedBroker, LibraryNotFound
from demo.embedded.store import EmbeddedStore, StoreAlreadyRunning

BOUND_S = 20.0
"""Longest wait for anything here; all of it normally happens within a second."""
FAST_JOIN_S = 2.0
"""Measured 0.1 s; the delays that the settings remove are 3 s and more."""
FAST_RECORD_S = 0.3
"""Measured 0.02 s as a median; without the settings it is 0.5 s."""
MIB = 1024 * 1024

TOPICS = {f"topic-{n}": 3 for n in range(6)}


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(TOPICS) as running:
        yield running


@contextmanager
def consumer(broker: EmbeddedBroker, group: str) -> Iterator[Consumer]:
    client = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **CLIENT_SETTINGS,
        }
    )
    with closing(client):
        yield client


def producer(broker: EmbeddedBroker, **settings: str) -> Producer:
    return Producer({"bootstrap.servers": broker.bootstrap_servers, **PRODUCER_SETTINGS, **settings})


def poll_until(client: Consumer, done: Callable[[], bool]) -> float:
    """Poll `client`, dropping records, until `done`; the seconds that took."""
    began_s = time.monotonic()
    while not done():
        assert time.monotonic() - began_s < BOUND_S
        client.poll(0.01)
    return time.monotonic() - began_s


def join(client: Consumer, topic: str) -> float:
    """Seconds from subscribing until all three partitions are assigned."""
    client.subscribe([topic])
    return poll_until(client, lambda: len(client.assignment()) == 3)


def next_record(client: Consumer) -> Message:
    record = client.poll(BOUND_S)
    assert record is not None
    assert record.error() is None
    return record


class TestEmbeddedBroker:
    def test_it_listens_on_the_loopback_interface_only(self, broker: EmbeddedBroker) -> None:
        host, port = broker.bootstrap_servers.split(":")
        assert host == "127.0.0.1"
        with socket.socket() as same_port_elsewhere:  # would be refused if the broker had all addresses
            same_port_elsewhere.bind(("127.0.0.2", int(port)))

    def test_every_topic_is_there_with_its_partitions(self, broker: EmbeddedBroker) -> None:
        listed = producer(broker).list_topics(timeout=BOUND_S).topics
        assert {name: len(listed[name].partitions) for name in TOPICS} == TOPICS

    def test_a_topic_without_partitions_is_refused_by_name(self) -> None:
        with pytest.raises(ValueError, match="empty-one"):
            EmbeddedBroker({"good": 1, "empty-one": 0})

    def test_key_value_and_doubled_headers_arrive_as_they_were_sent(self, broker: EmbeddedBroker) -> None:
        headers: list[tuple[str, str | bytes | None]] = [("ce_id", b"1"), ("ce_id", b"2"), ("empty", None)]
        client = producer(broker)
        client.produce("topic-1", key=b"job-1", value=b"\x00\xff", headers=headers)
        assert client.flush(BOUND_S) == 0
        with consumer(broker, "headers") as reader:
            reader.subscribe(["topic-1"])
            record = next_record(reader)
        assert (record.key(), record.value(), record.headers()) == (b"job-1", b"\x00\xff", headers)

    def test_groups_join_and_rejoin_fast_each_in_its_own_thread(self, broker: EmbeddedBroker) -> None:
        def join_twice(number: int) -> list[float]:
            joins_s = []
            for _ in range(2):
                with consumer(broker, f"joins-{number}") as client:
                    joins_s.append(join(client, f"topic-{number}"))
            return joins_s

        with ThreadPoolExecutor(len(TOPICS)) as threads:
            joins_s = list(threads.map(join_twice, range(len(TOPICS))))
        assert max(second for pair in joins_s for second in pair) < FAST_JOIN_S

    def test_a_record_reaches_a_running_group_fast(self, broker: EmbeddedBroker) -> None:
        client = producer(broker)
        with consumer(broker, "latency") as reader:
            join(reader, "topic-2")
            latencies_s = []
            for number in range(11):
                began_s = time.monotonic()
                client.produce("topic-2", key=str(number).encode(), value=b"x")
                client.poll(0)
                next_record(reader)
                latencies_s.append(time.monotonic() - began_s)
        assert client.flush(BOUND_S) == 0
        assert sorted(latencies_s)[5] < FAST_RECORD_S

    def test_a_group_goes_on_where_it_committed(self, broker: EmbeddedBroker) -> None:
        client = producer(broker)
        for value in (b"first", b"second"):
            client.produce("topic-3", value=value, partition=0)
        assert client.flush(BOUND_S) == 0
        with consumer(broker, "commits") as reader:
            reader.subscribe(["topic-3"])
            assert next_record(reader).value() == b"first"
            reader.commit(offsets=[TopicPartition("topic-3", 0, 1, "attempt=2")], asynchronous=False)
        with consumer(broker, "commits") as successor:
            (stored,) = successor.committed([TopicPartition("topic-3", 0)], timeout=BOUND_S)
            assert (stored.offset, stored.metadata) == (1, "attempt=2")
            successor.subscribe(["topic-3"])
            assert next_record(successor).value() == b"second"

    def test_a_second_member_gets_its_share_and_gives_it_back(self, broker: EmbeddedBroker) -> None:
        with consumer(broker, "members") as first:
            join(first, "topic-4")
            with consumer(broker, "members") as second:
                second.subscribe(["topic-4"])

                def shared() -> bool:
                    second.poll(0.01)
                    return len(first.assignment()) + len(second.assignment()) == 3 and bool(second.assignment())

                assert poll_until(first, shared) < FAST_JOIN_S
            assert poll_until(first, lambda: len(first.assignment()) == 3) < FAST_JOIN_S

    def test_another_process_produces_and_consumes(self, broker: EmbeddedBroker) -> None:
        client = producer(broker)
        client.produce("topic-5", value=b"ping", headers=[("h", b"1")])
        assert client.flush(BOUND_S) == 0
        arguments = [broker.bootstrap_servers, repr({**CLIENT_SETTINGS})]
        subprocess.run([sys.executable, "-c", _ANSWER_ONE_RECORD, *arguments], check=True, timeout=BOUND_S)
        with consumer(broker, "answers") as reader:
            reader.subscribe(["topic-5"])
            records = [next_record(reader) for _ in range(2)]
            assert {record.value() for record in records} == {b"ping", b"pong after ping"}
            (stored,) = reader.committed([TopicPartition("topic-5", 0)], timeout=BOUND_S)
            assert stored.offset < 0, "the commit of one group is not seen by another"

    def test_offsets_of_a_transaction_are_accepted_but_not_stored(self, broker: EmbeddedBroker) -> None:
        """Why the loop must commit plainly here. If this fails, librdkafka learned it: drop that branch."""
        client = producer(broker, **{"transactional.id": "t"})
        client.init_transactions(BOUND_S)
        with consumer(broker, "transactions") as reader:
            join(reader, "topic-0")
            client.begin_transaction()
            offsets = [TopicPartition("topic-0", 0, 7)]
            client.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), BOUND_S)
            client.commit_transaction(BOUND_S)
            (stored,) = reader.committed([TopicPartition("topic-0", 0)], timeout=BOUND_S)
        assert stored.offset < 0

    def test_a_partition_keeps_its_newest_five_mebibytes(self) -> None:
        with EmbeddedBroker({"big": 1}) as broker:
            client = producer(broker)
            for _ in range(12):
                client.produce("big", value=os.urandom(MIB // 2), partition=0)
                assert client.flush(BOUND_S) == 0
            with consumer(broker, "marks") as reader:
                low, high = reader.get_watermark_offsets(TopicPartition("big", 0), timeout=BOUND_S)
        assert high == 12
        assert 0 < low <= 3

    def test_it_says_nothing_on_stderr(self, capfd: pytest.CaptureFixture[str]) -> None:
        with EmbeddedBroker({"quiet": 1}) as broker, consumer(broker, "quiet") as reader:
            client = producer(broker)
            client.produce("quiet", value=b"x")
            assert client.flush(BOUND_S) == 0
            reader.subscribe(["quiet"])
            next_record(reader)
            del client
        assert capfd.readouterr() == ("", "")

    def test_after_the_block_nothing_listens_and_it_can_be_entered_again(self) -> None:
        broker = EmbeddedBroker({"again": 1})
        with broker:
            host, port = broker.bootstrap_servers.split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=BOUND_S)
        with broker:
            assert "again" in producer(broker).list_topics(timeout=BOUND_S).topics

    @pytest.mark.parametrize("library", [_ctypes.__file__, "/nowhere/librdkafka.so"])
    def test_without_the_mock_cluster_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
        monkeypatch.setattr(cimpl, "__file__", library)
        with pytest.raises(LibraryNotFound, match="wheel from PyPI"), EmbeddedBroker({"t": 1}):
            pass


_ANSWER_ONE_RECORD = """
import ast, sys
from confluent_kafka import Consumer, Producer
address = {"bootstrap.servers": sys.argv[1]}
group = {"group.id": "answerers", "auto.offset.reset": "earliest", "enable.auto.commit": False}
reader = Consumer(address | group | ast.literal_eval(sys.argv[2]))
reader.subscribe(["topic-5"])
record = reader.poll(15)
assert record.headers() == [("h", b"1")], record.headers()
writer = Producer(address)
writer.produce("topic-5", b"pong after " + record.value())
assert writer.flush(10) == 0
reader.commit(record, asynchronous=False)
reader.close()
"""


@pytest.fixture
def store() -> Iterator[EmbeddedStore]:
    with EmbeddedStore() as running:
        client_of(running).make_bucket("versioned")
        client_of(running).set_bucket_versioning("versioned", VersioningConfig(ENABLED))
        yield running


@pytest.fixture
def client(store: EmbeddedStore) -> Minio:
    return client_of(store)


def client_of(store: EmbeddedStore) -> Minio:
    return Minio(store.endpoint, store.access_key, store.secret_key, secure=store.secure)


def put(client: Minio, key: str, body: bytes) -> str | None:
    """The etag of `body` under `key` in the versioned bucket."""
    return client.put_object("versioned", key, io.BytesIO(body), len(body)).etag


def read(client: Minio, key: str, **request: Any) -> bytes:
    response = client.get_object("versioned", key, **request)
    try:
        body: bytes = response.read()
        return body
    finally:
        response.close()
        response.release_conn()


def put_if_absent(client: Minio, key: str, body: bytes) -> int:
    """The HTTP status of a conditional PUT, by the only way that minio-py leaves: a presigned address."""
    address = client.get_presigned_url("PUT", "versioned", key)
    answer = urllib3.request("PUT", address, body=body, headers={"If-None-Match": "*"}, retries=False)
    return answer.status


class TestEmbeddedStore:
    def test_it_listens_on_the_loopback_interface_only(self, store: EmbeddedStore) -> None:
        host, port = store.endpoint.split(":")
        assert host == "127.0.0.1"
        with socket.socket() as same_port_elsewhere:  # would be refused if the store had all addresses
            same_port_elsewhere.bind(("127.0.0.2", int(port)))

    def test_parts_put_together_read_as_one_object(self, client: Minio) -> None:
        body = os.urandom(10_000_000)
        stored = client.put_object("versioned", "multipart", io.BytesIO(body), len(body), part_size=5 * MIB)
        assert stored.etag is not None
        assert stored.etag.endswith("-2")
        assert read(client, "multipart") == body

    def test_an_upload_of_unknown_length_is_stored_whole(self, client: Minio) -> None:
        body = os.urandom(6_000_000)
        client.put_object("versioned", "stream", io.BytesIO(body), -1, part_size=5 * MIB)
        assert read(client, "stream") == body

    def test_a_range_holds_just_its_bytes_and_ends_with_the_object(self, client: Minio) -> None:
        put(client, "range", bytes(range(256)))
        assert read(client, "range", offset=10, length=5) == bytes(range(10, 15))
        assert read(client, "range", offset=250, length=50) == bytes(range(250, 256))
        with pytest.raises(S3Error, match="InvalidRange"):
            read(client, "range", offset=256, length=1)

    def test_stat_names_size_etag_and_version(self, client: Minio) -> None:
        first, second = put(client, "stat", b"one"), put(client, "stat", b"three")
        latest = client.stat_object("versioned", "stat")
        assert (latest.size, latest.etag) == (5, second)
        versions = list(client.list_objects("versioned", prefix="stat", include_version=True))
        assert {version.etag for version in versions} == {first, second}
        (older,) = [version.version_id for version in versions if version.etag == first]
        assert latest.version_id not in (None, older)
        assert read(client, "stat", version_id=older) == b"one"

    @pytest.mark.parametrize(("bucket", "code"), [("versioned", "NoSuchKey"), ("no-such-bucket", "NoSuchBucket")])
    def test_what_is_missing_has_its_code(self, client: Minio, bucket: str, code: str) -> None:
        for call in (client.stat_object, client.get_object):
            with pytest.raises(S3Error) as caught:
                call(bucket, "missing")
            assert caught.value.code == code

    def test_the_second_conditional_put_is_refused_and_changes_nothing(self, client: Minio) -> None:
        assert put_if_absent(client, "once", b"first") == 200
        assert put_if_absent(client, "once", b"second") == 412
        assert read(client, "once") == b"first"

    def test_of_writers_at_once_just_one_wins_and_its_bytes_stay(self, client: Minio) -> None:
        """Above 5 MiB moto writes to disk between the check and the store; see `_one_at_a_time`."""
        bodies = [bytes([number]) * (6 * MIB) for number in range(4)]
        for attempt in range(5):
            key = f"contested-{attempt}"
            gate = threading.Barrier(len(bodies))

            def write(body: bytes, key: str = key, gate: threading.Barrier = gate) -> int:
                gate.wait(BOUND_S)
                return put_if_absent(client, key, body)

            with ThreadPoolExecutor(len(bodies)) as threads:
                statuses = list(threads.map(write, bodies))
            assert sorted(statuses) == [200, 412, 412, 412]
            assert read(client, key, offset=0, length=10) == bodies[statuses.index(200)][:10]

    def test_a_read_pinned_to_another_etag_is_refused(self, client: Minio) -> None:
        etag = put(client, "pinned", b"body")
        assert read(client, "pinned", offset=1, length=2, request_headers={"If-Match": f'"{etag}"'}) == b"od"
        with pytest.raises(S3Error) as caught:
            read(client, "pinned", offset=1, length=2, request_headers={"If-Match": '"0123"'})
        assert caught.value.code == "PreconditionFailed"

    def test_list_and_delete_see_what_is_there(self, client: Minio) -> None:
        keys = ["list/a b+c%2F.wav", "list/deep/ü.json"]
        for key in keys:
            put(client, key, b"x")
        assert [found.object_name for found in client.list_objects("versioned", "list/", recursive=True)] == keys
        for key in keys:
            client.remove_object("versioned", key)
            client.remove_object("versioned", key)  # deleting what is gone is no error
        assert list(client.list_objects("versioned", "list/", recursive=True)) == []

    def test_a_lifecycle_is_kept(self, client: Minio) -> None:
        rule = Rule(ENABLED, rule_filter=Filter(prefix="chunks/"), rule_id="c", expiration=Expiration(days=2))
        client.set_bucket_lifecycle("versioned", LifecycleConfig([rule]))
        kept = client.get_bucket_lifecycle("versioned")
        assert kept is not None
        assert kept.rules == [rule]

    def test_a_second_store_in_one_process_is_refused(self, store: EmbeddedStore) -> None:
        with pytest.raises(StoreAlreadyRunning), EmbeddedStore():
            pass

    def test_after_the_block_nothing_is_left_and_it_can_be_entered_again(self) -> None:
        store = EmbeddedStore()
        for _ in range(2):
            with store:
                assert client_of(store).list_buckets() == []
                client_of(store).make_bucket("versioned")
                put(client_of(store), "on disk", bytes(6 * MIB))
            host, port = store.endpoint.split(":")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=BOUND_S)

    def test_it_says_nothing_on_stderr(self, client: Minio, capfd: pytest.CaptureFixture[str]) -> None:
        put(client, "quiet", b"x")
        assert read(client, "quiet") == b"x"
        assert capfd.readouterr() == ("", "")
