"""The servers and tools of the tests are what they say they are."""

from __future__ import annotations

import hashlib
import http
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import urllib3
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from tests.servers.control import NotOurs, StartError, unavailable
from tests.servers.helm_tools import Helm, Kubeconform, RenderError
from tests.servers.kafka import Kafka, cluster_id_of, own_kafka
from tests.servers.kcat import Kcat
from tests.servers.minio import Minio, given_minio, own_minio
from tests.servers.packages import InstallError, Package
from tests.servers.process import ServerProcess, free_port, port_answers
from tests.servers.registry import Registry
from tests.servers.toxiproxy import Toxiproxy

ANSWER_S = 20.0
MIB = 1024 * 1024


@contextmanager
def producer_of(kafka: Kafka, **settings: object) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True, **settings})
    yield producer
    assert producer.flush(ANSWER_S) == 0


def produce(kafka: Kafka, topic: str, *values: bytes) -> None:
    with producer_of(kafka) as producer:
        for value in values:
            producer.produce(topic, value)


def read_to_the_end(kafka: Kafka, topic: str, isolation: str = "read_committed") -> list[bytes]:
    """Every value of a topic of one partition that a reader of this isolation may see."""
    settings = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": "unused",  # a partition that is assigned needs no group, but the client asks for a name
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": isolation,
    }
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        return list(_values_until_the_end(consumer))


def _values_until_the_end(consumer: Consumer) -> Iterator[bytes]:
    while True:
        message = consumer.poll(ANSWER_S)
        assert message is not None, f"nothing came in {ANSWER_S} s"
        if message.error() is not None:
            return
        value = message.value()
        assert value is not None
        yield value


@pytest.mark.servers
class TestKafka:
    def test_the_cluster_that_answers_is_the_one_that_was_formatted(self, kafka: Kafka) -> None:
        assert cluster_id_of(kafka.bootstrap_servers) == kafka.cluster_id

    def test_what_is_produced_can_be_read(self, kafka: Kafka, topic_prefix: str) -> None:
        topic = kafka.create_topic(f"{topic_prefix}plain")
        produce(kafka, topic, b"one", b"two")
        assert read_to_the_end(kafka, topic) == [b"one", b"two"]

    def test_a_topic_is_not_made_by_writing_to_it(self, kafka: Kafka, topic_prefix: str) -> None:
        topics = kafka.admin().list_topics(f"{topic_prefix}absent", timeout=ANSWER_S).topics
        assert topics[f"{topic_prefix}absent"].error is not None

    def test_a_reader_of_committed_records_sees_no_aborted_one(self, kafka: Kafka, topic_prefix: str) -> None:
        topic = kafka.create_topic(f"{topic_prefix}transactions")
        with producer_of(kafka, **{"transactional.id": f"{topic_prefix}writer"}) as producer:
            producer.init_transactions(ANSWER_S)
            producer.begin_transaction()
            producer.produce(topic, b"aborted")
            assert producer.flush(ANSWER_S) == 0
            producer.abort_transaction(ANSWER_S)
            producer.begin_transaction()
            producer.produce(topic, b"committed")
            producer.commit_transaction(ANSWER_S)
        assert read_to_the_end(kafka, topic) == [b"committed"]
        assert read_to_the_end(kafka, topic, "read_uncommitted") == [b"aborted", b"committed"]

    def test_a_second_writer_fences_the_first(self, kafka: Kafka, topic_prefix: str) -> None:
        topic = kafka.create_topic(f"{topic_prefix}fenced")
        settings = {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"{topic_prefix}writer"}
        first = Producer({**settings, "log_level": 0})
        first.init_transactions(ANSWER_S)
        first.begin_transaction()
        first.produce(topic, b"from the first")
        with producer_of(kafka, **settings) as second:
            second.init_transactions(ANSWER_S)
            with pytest.raises(KafkaException) as refusal:
                first.commit_transaction(ANSWER_S)
        assert refusal.value.args[0].fatal()
        assert read_to_the_end(kafka, topic) == []

    def test_a_group_of_the_new_protocol_is_given_its_partitions(self, kafka: Kafka, topic_prefix: str) -> None:
        topic = kafka.create_topic(f"{topic_prefix}grouped")
        produce(kafka, topic, b"one")
        settings = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"{topic_prefix}group",
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
        with closing(Consumer(settings)) as consumer:
            consumer.subscribe([topic])
            assert list(_values_until_the_end(consumer)) == [b"one"]
            assert [place.partition for place in consumer.assignment()] == [0]

    def test_kcat_reads_what_we_wrote(self, kafka: Kafka, kcat: Kcat, topic_prefix: str) -> None:
        topic = kafka.create_topic(f"{topic_prefix}kcat")
        produce(kafka, topic, b"seen from outside")
        read = kcat.run("-b", kafka.bootstrap_servers, "-C", "-t", topic, "-o", "beginning", "-e", "-q")
        assert read == b"seen from outside\n"

    def test_a_killed_broker_comes_back_with_its_records(self, tmp_path: Path, topic_prefix: str) -> None:
        with own_kafka(tmp_path / "kafka") as kafka:
            topic = kafka.create_topic(f"{topic_prefix}kept")
            produce(kafka, topic, b"before the kill")
            kafka.kill()
            assert not port_answers(int(kafka.bootstrap_servers.rpartition(":")[2]))
            kafka.restart()
            assert cluster_id_of(kafka.bootstrap_servers) == kafka.cluster_id
            produce(kafka, topic, b"after the restart")
            assert read_to_the_end(kafka, topic) == [b"before the kill", b"after the restart"]


@pytest.mark.servers
class TestMinio:
    def test_an_object_of_several_parts_is_read_back_whole_and_by_range(self, minio: Minio, bucket_prefix: str) -> None:
        bucket, content = f"{bucket_prefix}parts", random.Random(7).randbytes(11 * MIB)
        client = minio.client()
        client.make_bucket(bucket)
        written = client.put_object(bucket, "a/recording", io.BytesIO(content), length=-1, part_size=5 * MIB)
        assert str(written.etag).strip('"').endswith("-3"), "5 + 5 + 1 MiB are three parts"
        with closing(client.get_object(bucket, "a/recording")) as whole:
            assert hashlib.sha256(whole.read()).digest() == hashlib.sha256(content).digest()
        with closing(client.get_object(bucket, "a/recording", offset=5 * MIB - 3, length=6)) as middle:
            assert middle.read() == content[5 * MIB - 3 : 5 * MIB + 3]

    def test_of_two_writers_that_ask_for_a_new_object_only_one_writes(self, minio: Minio, bucket_prefix: str) -> None:
        bucket = f"{bucket_prefix}once"
        client = minio.client()
        client.make_bucket(bucket)
        url = client.presigned_put_object(bucket, "checkpoint", timedelta(minutes=1))
        only_new = {"If-None-Match": "*"}
        with urllib3.PoolManager(retries=False, timeout=ANSWER_S) as pool:
            statuses = [pool.request("PUT", url, body=body, headers=only_new).status for body in (b"one", b"two")]
        assert statuses == [http.HTTPStatus.OK, http.HTTPStatus.PRECONDITION_FAILED]
        with closing(client.get_object(bucket, "checkpoint")) as stored:
            assert stored.read() == b"one"

    def test_a_stopped_store_comes_back_with_its_objects(self, tmp_path: Path, bucket_prefix: str) -> None:
        bucket = f"{bucket_prefix}kept"
        with own_minio(tmp_path / "minio") as store:
            store.client().make_bucket(bucket)
            store.client().put_object(bucket, "kept", io.BytesIO(b"still here"), 10)
            store.stop()
            with pytest.raises(urllib3.exceptions.HTTPError):
                store.client(urllib3.PoolManager(retries=False)).list_buckets()
            store.start()
            with closing(store.client().get_object(bucket, "kept")) as stored:
                assert stored.read() == b"still here"

    def test_an_address_with_wrong_keys_is_a_failure_not_a_skip(self, minio: Minio) -> None:
        with pytest.raises(StartError, match="does not accept our keys"):
            given_minio(f"http://nobody:wrong-secret@{minio.endpoint}")


def avro_record(**fields: tuple[str, object]) -> Schema:
    """A record of optional fields: name = (type, default)."""
    described = [{"name": name, "type": kind, "default": default} for name, (kind, default) in fields.items()]
    return Schema(json.dumps({"type": "record", "name": "Fact", "fields": described}), "AVRO")


# Each fits the one before it. The last gives `b` another type than the first did.
HISTORY = (
    avro_record(a=("string", ""), b=("int", 0)),
    avro_record(a=("string", ""), c=("int", 0)),
    avro_record(a=("string", ""), b=("string", "")),
)


@pytest.mark.servers
class TestRegistry:
    def test_a_schema_is_found_again_by_its_id(self, registry: Registry, topic_prefix: str) -> None:
        with SchemaRegistryClient({"url": registry.url}) as client:
            schema_id = client.register_schema(f"{topic_prefix}value", HISTORY[0])
            found = client.get_schema(schema_id).schema_str
        assert found is not None
        assert json.loads(found) == json.loads(str(HISTORY[0].schema_str))

    def test_full_transitive_holds_a_schema_against_every_version_before(
        self, registry: Registry, topic_prefix: str
    ) -> None:
        strict, lenient = f"{topic_prefix}strict", f"{topic_prefix}lenient"
        with SchemaRegistryClient({"url": registry.url}) as client:
            for subject, level in ((strict, "FULL_TRANSITIVE"), (lenient, "FULL")):
                client.register_schema(subject, HISTORY[0])
                client.set_compatibility(subject, level)
                client.register_schema(subject, HISTORY[1])
            client.register_schema(lenient, HISTORY[2])
            with pytest.raises(SchemaRegistryError) as refusal:
                client.register_schema(strict, HISTORY[2])
        assert refusal.value.http_status_code == http.HTTPStatus.CONFLICT


@pytest.mark.servers
class TestToxiproxy:
    def test_a_slow_way_is_slow_and_a_cut_way_is_cut(self, toxiproxy: Toxiproxy, minio: Minio) -> None:
        pool = urllib3.PoolManager(retries=False, timeout=ANSWER_S)
        with toxiproxy.proxy("store", minio.endpoint) as way, pool:
            ready = f"http://{way.address}/minio/health/ready"
            way.slow(0.4)
            began_s = time.monotonic()
            assert pool.request("GET", ready).status == http.HTTPStatus.OK
            assert time.monotonic() - began_s >= 0.4
            way.heal("latency")
            way.cut()
            with pytest.raises(urllib3.exceptions.HTTPError):
                pool.request("GET", ready)
            way.mend()
            assert pool.request("GET", ready).status == http.HTTPStatus.OK


DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
        - name: a
          image: {{ required "image is needed" .Values.image | quote }}
          ports:
            - PORT_FIELD: 8080
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart of one deployment that is in order."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\nicon: https://example.com/i\n")
    (tmp_path / "values.yaml").write_text("image: a:1\n")
    (tmp_path / "templates" / "a.yaml").write_text(DEPLOYMENT.replace("PORT_FIELD", "containerPort"))
    return tmp_path


@pytest.mark.servers
class TestHelmTools:
    def test_a_manifest_in_order_conforms(self, helm: Helm, kubeconform: Kubeconform, chart: Path) -> None:
        helm.lint(chart)
        found = kubeconform.check(helm.template(chart))
        assert (found.valid, found.skipped, found.problems) == (1, 0, ())

    def test_a_misspelt_field_does_not(self, helm: Helm, kubeconform: Kubeconform, chart: Path) -> None:
        (chart / "templates" / "a.yaml").write_text(DEPLOYMENT.replace("PORT_FIELD", "containerPrt"))
        (problem,) = kubeconform.check(helm.template(chart)).problems
        assert (problem.kind, problem.name) == ("Deployment", "test")
        assert "containerPrt" in problem.reason

    def test_helm_says_which_value_is_missing(self, helm: Helm, chart: Path) -> None:
        with pytest.raises(RenderError, match="image is needed"):
            helm.template(chart, "--set", "image=")


def test_kcat_runs(kcat: Kcat) -> None:
    assert b"librdkafka" in kcat.run("-V")


WEB_SERVER = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]


def web_server(folder: Path) -> ServerProcess:
    """Some server that every machine has."""
    port = free_port()
    return ServerProcess("web", [*WEB_SERVER, str(port)], folder, lambda: port_answers(port))


class TestServerProcess:
    @pytest.mark.parametrize("end", ["stop", "kill"])
    def test_it_is_gone_when_it_was_ended(self, tmp_path: Path, end: str) -> None:
        server = web_server(tmp_path)
        server.start()
        process = psutil.Process(server.pid)
        getattr(server, end)()
        assert not process.is_running()

    def test_it_is_gone_when_the_tests_were_killed(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", START_AND_WAIT, str(tmp_path)]
        pipe = subprocess.PIPE
        tests = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2])
        assert tests.stdout is not None
        server = psutil.Process(int(tests.stdout.readline()))
        assert server.is_running()
        os.kill(tests.pid, signal.SIGKILL)
        tests.communicate()
        gone, _ = psutil.wait_procs([server], timeout=ANSWER_S)
        assert gone == [server]

    def test_a_failed_start_shows_the_end_of_the_log(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", "raise SystemExit('the reason in the log')"]
        server = ServerProcess("broken", command, tmp_path, lambda: False)
        with pytest.raises(StartError, match="the reason in the log"):
            server.start()

    def test_a_server_that_never_answers_is_ended(self, tmp_path: Path) -> None:
        server = ServerProcess("deaf", WEB_SERVER, tmp_path, lambda: False, timeout_s=0.5)
        with pytest.raises(StartError, match="was not ready"):
            server.start()
        with pytest.raises(RuntimeError, match="not running"):
            _ = server.pid


START_AND_WAIT = """
import pathlib, sys
from tests.contract.test_servers import web_server
server = web_server(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


class TestWithoutAServer:
    def test_a_desk_skips(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match="no such server"):
            unavailable("no such server")

    def test_ci_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match="no such server"):
            unavailable("no such server")

    def test_a_server_that_was_given_is_not_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        with pytest.raises(pytest.skip.Exception, match="SOME_VARIABLE is not ours"):
            NotOurs("SOME_VARIABLE").kill()


class TestPackage:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("WHISPERX_TEST_CACHE", str(tmp_path))
        return tmp_path

    def test_it_is_made_once(self) -> None:
        made: list[Path] = []

        def make(folder: Path) -> None:
            made.append(folder)
            (folder / "proof").touch()

        package = Package("thing", "1", "proof", (), make)
        package.install()
        package.install()
        assert package.is_installed()
        assert len(made) == 1

    def test_one_that_breaks_off_leaves_nothing(self, cache: Path) -> None:
        def make(folder: Path) -> None:
            (folder / "proof").touch()
            raise InstallError("the network went away")

        with pytest.raises(InstallError):
            Package("thing", "1", "proof", (), make).install()
        assert list(cache.iterdir()) == []

    def test_it_says_which_program_it_lacks(self) -> None:
        package = Package("thing", "1", "proof", ("a-program-nobody-has",), lambda folder: None)
        with pytest.raises(InstallError, match="a-program-nobody-has"):
            package.install()
