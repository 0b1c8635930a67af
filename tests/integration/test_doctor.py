"""Doctor and `topics create` against a real broker and a real store."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from consumer import access, doctor, topics
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.object_store import S3Store
from consumer.adapters.store_clock import clock_skew_s
from consumer.core.layout import Topic
from consumer.errors import BrokerUnavailable, Misconfigured, RefusedLogin, StoreUnavailable
from consumer.findings import Finding, Level, failed, report
from consumer.settings import KafkaSettings, Settings, StoreSettings, TopicSettings
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio
from tests.servers.process import free_port

pytestmark = pytest.mark.servers

ONE_BROKER = {
    "replication_factor": 1,
    "min_insync_replicas": 1,
    "state_partitions": 3,
    "work_partitions": 4,
    "public_partitions": 2,
}


@pytest.fixture
def admin(kafka: Kafka) -> KafkaAdmin:
    return KafkaAdmin(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))


@pytest.fixture
def specs(topic_prefix: str) -> tuple[topics.TopicSpec, ...]:
    return topics.table(topic_prefix, TopicSettings.model_validate(ONE_BROKER))


def test_created_topics_are_as_the_table_says(admin: KafkaAdmin, specs: tuple[topics.TopicSpec, ...]) -> None:
    created = topics.create(admin, specs)
    assert sorted(created.created) == sorted(spec.name for spec in specs)
    assert [finding.level for finding in topics.check(admin, specs)] == [Level.OK]
    state = admin.describe([spec.name for spec in specs if spec.topic is Topic.JOB_STATE])
    (facts,) = state.values()
    assert (facts.partitions, facts.config["cleanup.policy"]) == (3, "compact")


def test_creating_again_creates_nothing(admin: KafkaAdmin, specs: tuple[topics.TopicSpec, ...]) -> None:
    topics.create(admin, specs)
    assert topics.create(admin, specs).created == ()


def test_two_at_once_create_each_topic_once(admin: KafkaAdmin, specs: tuple[topics.TopicSpec, ...]) -> None:
    """The second one found them missing, too, and then there."""
    assert len(admin.create(specs)) == len(specs)
    assert admin.create(specs) == []


def test_a_dry_run_leaves_no_topic(admin: KafkaAdmin, specs: tuple[topics.TopicSpec, ...]) -> None:
    outcome = topics.create(admin, specs, dry_run=True)
    assert len(outcome.created) == len(specs)
    assert admin.describe(spec.name for spec in specs) == {}


def test_unequal_partitions_are_found(admin: KafkaAdmin, specs: tuple[topics.TopicSpec, ...]) -> None:
    admin.create([replace(spec, partitions=2) for spec in specs if spec.topic is Topic.JOB_STATE])
    at_creation, afterwards = topics.create(admin, specs).findings, topics.check(admin, specs)
    for findings in (at_creation, afterwards):
        assert any("must have one number" in finding.todo for finding in findings if finding.level is Level.FAIL)


def test_an_open_transaction_is_seen_until_it_ends(
    kafka: Kafka, admin: KafkaAdmin, topic_prefix: str, settings: Settings
) -> None:
    (spec,) = [spec for spec in topics.table(topic_prefix, settings.topics) if spec.topic is Topic.RESULTS]
    topic = kafka.create_topic(spec.name, partitions=2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"{topic_prefix}open"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"a", partition=1)
    producer.flush(30)
    assert admin.undecided([topic]) == {(topic, 1): 0}
    producer.abort_transaction(30)  # answered before the marker is written
    (found,) = doctor.transaction_findings(admin, [spec], settings)
    assert found.level is Level.OK


def test_a_broker_that_is_away_is_unavailable() -> None:
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerUnavailable, match="do not answer"):
        KafkaAdmin(settings, timeout_s=2).broker_ids()


def test_a_broker_that_speaks_another_protocol_is_unavailable_and_says_which(kafka: Kafka) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, security_protocol="SSL")
    with pytest.raises(BrokerUnavailable, match=r"(?i)ssl.handshake"):
        KafkaAdmin(settings, timeout_s=3).broker_ids()


def test_a_broker_that_refuses_the_login_is_not_taken_for_one_that_is_away(kafka: Kafka) -> None:
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="nobody",
        sasl_password=SecretStr("wrong"),
    )
    with pytest.raises(RefusedLogin, match="SECURITY_PROTOCOL") as refusal:
        KafkaAdmin(settings, timeout_s=3).broker_ids()
    assert "wrong" not in str(refusal.value)


def test_more_copies_than_brokers_are_misconfigured(admin: KafkaAdmin, topic_prefix: str) -> None:
    spec = topics.table(topic_prefix, TopicSettings(replication_factor=3))[0]
    with pytest.raises(Misconfigured, match="lower WHISPERX_TOPICS__REPLICATION_FACTOR"):
        admin.create([spec])


def test_brokers_that_check_no_rights_take_no_rules_and_are_not_said_to_be_away(admin: KafkaAdmin) -> None:
    with pytest.raises(Misconfigured, match=r"set their authorizer\.class\.name first"):
        admin.allow("User:anybody", access.acls(["plan"], KafkaSettings()))


def test_the_clocks_of_one_machine_agree(minio: Minio) -> None:
    settings = StoreSettings(endpoint=minio.endpoint, secure=minio.secure)
    assert abs(clock_skew_s(settings)) < 5
    skew_s = clock_skew_s(settings, lambda: time.time() + 3600)
    assert doctor.clock_finding(skew_s).level is Level.FAIL


def test_a_store_that_is_away_has_no_time() -> None:
    settings = StoreSettings(endpoint=f"127.0.0.1:{free_port()}", secure=False, request_timeout_s=2)
    with pytest.raises(StoreUnavailable):
        clock_skew_s(settings)


def store_of(minio: Minio) -> S3Store:
    return S3Store(minio.endpoint, minio.access_key, minio.secret_key, secure=minio.secure)


def settings_for(kafka: Kafka, minio: Minio, topic_prefix: str, bucket_prefix: str) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "topic_prefix": topic_prefix},
            "topics": ONE_BROKER,
            "store": {
                "endpoint": minio.endpoint,
                "access_key": minio.access_key,
                "secret_key": minio.secret_key,
                "secure": minio.secure,
                "work_bucket": f"{bucket_prefix}work",
                "results_bucket": f"{bucket_prefix}results",
            },
        }
    )


@pytest.fixture
def settings(kafka: Kafka, minio: Minio, topic_prefix: str, bucket_prefix: str) -> Settings:
    return settings_for(kafka, minio, topic_prefix, bucket_prefix)


def examine(settings: Settings, admin: KafkaAdmin, store: S3Store) -> list[Finding]:
    checks = doctor.installation_checks(
        settings, admin=admin, store=store, probe_id="test", clock_skew_s=lambda: clock_skew_s(settings.store)
    )
    return doctor.run(checks)


def test_a_good_installation_has_no_failure(
    settings: Settings, admin: KafkaAdmin, specs: tuple[topics.TopicSpec, ...], minio: Minio
) -> None:
    store = store_of(minio)
    topics.create(admin, specs)
    buckets = (settings.store.work_bucket, settings.store.results_bucket)
    for bucket in buckets:
        store.make_bucket(bucket)
    found = examine(settings, admin, store)
    assert not failed(found), report(found)
    assert {finding.check for finding in found} == {"settings", "brokers", "topics", "transactions", "store", "clock"}
    assert [key for bucket in buckets for key in store.list_keys(bucket, "")] == []  # the probes are gone


def test_an_empty_installation_is_told_what_to_make(settings: Settings, admin: KafkaAdmin, minio: Minio) -> None:
    found = examine(settings, admin, store_of(minio))
    todo = {finding.todo for finding in found if finding.level is Level.FAIL}
    assert todo == {"run `whisperx-consumer topics create`", "run `whisperx-consumer buckets create`"}


def test_a_refused_key_is_a_finding(settings: Settings, admin: KafkaAdmin, minio: Minio) -> None:
    store = S3Store(minio.endpoint, minio.access_key, "not-the-secret-key", secure=minio.secure)
    refused = [finding for finding in examine(settings, admin, store) if finding.check == "store"]
    assert [finding.level for finding in refused] == [Level.FAIL, Level.FAIL]
    assert "CREDENTIALS_REFUSED" in refused[0].todo
