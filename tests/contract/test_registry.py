"""A real schema registry and the client's own fake take our schemas, and say what is wrong in our words."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fastavro
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from consumer import contracts
from consumer.adapters.registry import ConfluentRegistry
from consumer.contracts import schema_of
from consumer.errors import Misconfigured, RegistryUnavailable, UnreadableEvent
from consumer.events import JobControl, JobRequested
from consumer.ports import Received
from consumer.wire import Codec
from tests.servers.certificates import Certificates, certificates
from tests.servers.process import free_port
from tests.servers.registry import Registry
from tests.servers.tls_site import QuietHandler, tls_site

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CANCEL = JobControl(job_id="job-1", action="cancel")
TOPIC = "control"


def received(value: bytes) -> Received:
    return Received(TOPIC, 0, 0, None, value)


def encode(ours: ConfluentRegistry, topic: str = TOPIC) -> bytes:
    return Codec(ours, "here").encode(CANCEL, topic, event_id="1", time=NOW)[0]


class TestClientsFake:
    @pytest.fixture
    def ours(self) -> ConfluentRegistry:
        return ConfluentRegistry("mock://tests")

    def test_every_event_of_every_topic_is_registered(self, ours: ConfluentRegistry) -> None:
        ours.prepare("t.")
        subjects = ours._client.get_subjects()
        assert "t.control-transcription.JobControl" in subjects
        assert "t.chunk-work.high-transcription.ChunkWork" in subjects
        assert len(subjects) == sum(map(len, contracts.CARRIED.values()))

    def test_an_event_survives_and_names_its_schema(self, ours: ConfluentRegistry) -> None:
        value = encode(ours)
        assert value[0] == 0
        assert ours.schema_with_id(int.from_bytes(value[1:5], "big")) == schema_of(JobControl)
        assert Codec(ours, "here").decode(received(value), (JobControl,)) == CANCEL

    def test_a_schema_is_found_by_its_guid(self, ours: ConfluentRegistry) -> None:
        ours.id_of(TOPIC, JobControl)
        guid = ours._client.get_latest_version(f"{TOPIC}-transcription.JobControl").guid
        assert guid is not None
        assert ours.schema_with_guid(guid) == schema_of(JobControl)

    @pytest.mark.parametrize(
        "foreign",
        [Schema("{}", "JSON"), Schema('syntax = "proto3";', "PROTOBUF"), Schema("not JSON", "AVRO")],
    )
    def test_a_schema_that_is_not_avro_makes_its_event_unreadable(
        self, ours: ConfluentRegistry, foreign: Schema
    ) -> None:
        foreign_id = ours._client.register_schema("foreign", foreign)
        with pytest.raises(UnreadableEvent, match="schema"):
            ours.schema_with_id(foreign_id)

    def test_an_id_is_asked_for_once(self, ours: ConfluentRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        first = ours.id_of(TOPIC, JobControl)
        monkeypatch.delattr(type(ours._client), "register_schema")
        monkeypatch.delattr(SchemaRegistryClient, "register_schema")
        assert ours.id_of(TOPIC, JobControl) == first


class TestAddresses:
    def test_a_registry_that_is_away_is_unavailable_and_its_login_is_not_told(self) -> None:
        ours = ConfluentRegistry(f"http://user:hidden@127.0.0.1:{free_port()}")
        for ask in (lambda: ours.id_of(TOPIC, JobControl), lambda: ours.schema_with_id(1)):
            with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1") as caught:
                ask()
            assert "hidden" not in str(caught.value)
        ours.close()

    @pytest.mark.parametrize("url", ["ftp://user:hidden@host", "localhost:8081"])
    def test_a_url_that_is_none_is_misconfigured(self, url: str) -> None:
        with pytest.raises(Misconfigured, match=r"registry\.url") as caught:
            ConfluentRegistry(url)
        assert "hidden" not in str(caught.value)

    def test_a_login_is_sent_apart_from_the_url(self) -> None:
        ours = ConfluentRegistry("http://127.0.0.1:1", username="user", password="pass:word")
        assert ours._client._rest_client.auth == ("user", "pass:word")
        ours.close()


class TestTls:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Certificates:
        return certificates(tmp_path)

    @pytest.fixture
    def url(self, made: Certificates) -> Iterator[str]:
        """A registry over TLS that knows no schema."""

        class Empty(QuietHandler):
            def do_POST(self) -> None:  # the name is http.server's
                self.body()
                self.answer(404, b'{"error_code": 40401, "message": "Subject not found."}')

        with tls_site(Empty, made.chain, made.key) as url:
            yield url

    def test_the_authority_of_the_settings_is_trusted(self, url: str, made: Certificates) -> None:
        ours = ConfluentRegistry(url, ca_file=str(made.authority), auto_register=False)
        with pytest.raises(Misconfigured, match="does not have"):
            ours.id_of(TOPIC, JobControl)
        ours.close()

    def test_another_authority_is_not(self, url: str, tmp_path: Path) -> None:
        strangers = certificates(tmp_path / "strangers")
        ours = ConfluentRegistry(url, ca_file=str(strangers.authority), auto_register=False)
        with pytest.raises(RegistryUnavailable, match=r"check registry\.ca_file"):
            ours.id_of(TOPIC, JobControl)
        ours.close()

    def test_a_file_that_is_not_there_is_misconfigured(self) -> None:
        with pytest.raises(Misconfigured, match=r"registry\.ca_file '/nowhere'"):
            ConfluentRegistry("https://127.0.0.1:1", ca_file="/nowhere")


@pytest.mark.servers
class TestRealRegistry:
    @pytest.fixture
    def client(self, registry: Registry) -> Iterator[SchemaRegistryClient]:
        with SchemaRegistryClient({"url": registry.url}) as client:
            yield client

    @pytest.fixture
    def ours(self, registry: Registry) -> Iterator[ConfluentRegistry]:
        ours = ConfluentRegistry(registry.url)
        yield ours
        ours.close()

    @pytest.fixture
    def topic(self, topic_prefix: str) -> str:
        return f"{topic_prefix}{TOPIC}"

    def test_every_event_is_registered_and_held_to_full_transitive(
        self, ours: ConfluentRegistry, client: SchemaRegistryClient, topic_prefix: str
    ) -> None:
        ours.prepare(topic_prefix)
        subjects = [subject for subject in client.get_subjects() if subject.startswith(topic_prefix)]
        assert len(subjects) == sum(map(len, contracts.CARRIED.values()))
        assert {client.get_compatibility(subject) for subject in subjects} == {"FULL_TRANSITIVE"}

    def test_a_second_start_registers_nothing_new(
        self, ours: ConfluentRegistry, registry: Registry, client: SchemaRegistryClient, topic: str
    ) -> None:
        first = ours.id_of(topic, JobControl)
        again = ConfluentRegistry(registry.url)
        assert again.id_of(topic, JobControl) == first
        assert client.get_versions(f"{topic}-transcription.JobControl") == [1]
        again.close()

    def test_a_reader_with_confluents_own_deserializer_reads_us(
        self, ours: ConfluentRegistry, client: SchemaRegistryClient, topic: str
    ) -> None:
        read = AvroDeserializer(client)(encode(ours, topic), SerializationContext(topic, MessageField.VALUE))
        assert read == contracts.to_avro(CANCEL)

    def test_what_a_newer_sender_registered_is_read(
        self, ours: ConfluentRegistry, client: SchemaRegistryClient, topic: str
    ) -> None:
        ours.id_of(topic, JobControl)
        newer = copy.deepcopy(schema_of(JobControl))
        newer["fields"].append({"name": "added", "type": "string", "default": ""})
        newer_id = client.register_schema(f"{topic}-transcription.JobControl", Schema(json.dumps(newer), "AVRO"))
        value = bytearray(b"\0" + newer_id.to_bytes(4, "big"))
        value += body(newer, {**contracts.to_avro(CANCEL), "added": "news"})
        assert Codec(ours, "here").decode(received(bytes(value)), (JobControl,)) == CANCEL

    def test_a_schema_that_not_every_version_can_read_stops_the_start(
        self, registry: Registry, client: SchemaRegistryClient, topic: str
    ) -> None:
        subject = f"{topic}-transcription.JobControl"
        other = copy.deepcopy(schema_of(JobControl))
        other["fields"] = [{"name": "job_id", "type": "long"}]
        client.register_schema(subject, Schema(json.dumps(other), "AVRO"))
        ours = ConfluentRegistry(registry.url)
        with pytest.raises(Misconfigured, match=f"does not fit the versions of {subject}"):
            ours.id_of(topic, JobControl)
        ours.close()

    def test_without_auto_register_what_is_missing_stops_the_start(
        self, ours: ConfluentRegistry, registry: Registry, topic: str
    ) -> None:
        readonly = ConfluentRegistry(registry.url, auto_register=False)
        with pytest.raises(Misconfigured, match="AUTO_REGISTER"):
            readonly.id_of(topic, JobRequested)
        registered = ours.id_of(topic, JobRequested)
        assert readonly.id_of(topic, JobRequested) == registered
        readonly.close()

    def test_an_unknown_id_makes_its_event_unreadable(self, ours: ConfluentRegistry) -> None:
        with pytest.raises(UnreadableEvent, match="4294967295"):
            Codec(ours, "here").decode(received(b"\0\xff\xff\xff\xffbody"), (JobControl,))
        with pytest.raises(UnreadableEvent, match="GUID"):
            ours.schema_with_guid("00000000-0000-4000-8000-000000000000")

    def test_a_server_that_is_no_registry_is_misconfigured(self, registry: Registry, topic: str) -> None:
        ours = ConfluentRegistry(f"{registry.url}/nothing")
        with pytest.raises(Misconfigured, match="refuses"):
            ours.id_of(topic, JobControl)
        ours.close()

    def test_ids_that_are_known_outlive_the_registry(
        self, ours: ConfluentRegistry, registry: Registry, topic: str
    ) -> None:
        codec = Codec(ours, "here")
        value = codec.encode(CANCEL, topic, event_id="1", time=NOW)[0]
        assert codec.decode(received(value), (JobControl,)) == CANCEL
        registry.stop()
        try:
            assert codec.encode(CANCEL, topic, event_id="1", time=NOW)[0] == value
            assert codec.decode(received(value), (JobControl,)) == CANCEL
            with pytest.raises(RegistryUnavailable):
                ours.id_of(f"{topic}-new", JobControl)
        finally:
            registry.start()


def body(schema: contracts.Schema, fields: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, fields)
    return stream.getvalue()
