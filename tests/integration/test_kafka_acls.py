"""The ACLs that `topics acls` prints are enough for every role and client, and allow nothing else: on a real broker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not exported explicitly
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from consumer import access
from consumer import cli as service
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.kafka_client import client_config
from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import TransactionalOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.bootstrap import Role
from consumer.broker import Mark, Rebalance
from consumer.core.layout import Topic
from consumer.entry import require_entry
from consumer.errors import BrokenWorker, NotAuthorized
from consumer.exit_codes import ExitCode
from consumer.ports import Outgoing
from consumer.settings import KafkaSettings
from producer_tools import cli as tools
from producer_tools.exit_codes import Exit
from tests.integration.server_system import ServerSystem, server_system
from tests.servers.kafka import ANSWER_TIMEOUT_S
from tests.servers.minio import Minio
from tests.servers.secure_kafka import PASSWORD, SecureKafka

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def users(secure: SecureKafka) -> None:
    for name in access.NAMES:
        secure.add_user(f"whisperx-{name}")


@contextmanager
def variables(given: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    try:
        os.environ.update(given)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Yard:
    """A system whose topics only those may touch who are allowed to."""

    def __init__(self, secure: SecureKafka, system: ServerSystem) -> None:
        self.secure = secure
        self.system = system

    def login(self, name: str) -> dict[str, str]:
        return {
            "KAFKA__BOOTSTRAP_SERVERS": self.secure.sasl,
            "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA__SASL_USERNAME": f"whisperx-{name}",
            "KAFKA__SASL_PASSWORD": PASSWORD,
            "KAFKA__SSL_CA_LOCATION": str(self.secure.authority.file),
        }

    def kafka(self, name: str) -> KafkaSettings:
        return self.system.settings(**self.login(name)).kafka

    def service(self, name: str, *arguments: str) -> int:
        """`whisperx-consumer` as one of the users; nobody: as the harness, who may do everything."""
        with variables(self.system.environment(**(self.login(name) if name else {}))):
            return service.main(arguments)

    def jobs(self, name: str, *arguments: str) -> int:
        """`whisperx-jobs` as one of the users."""
        with variables(self.system.environment(**self.login(name))):
            return tools.main(arguments)

    def topic(self, topic: Topic) -> str:
        return self.system.prefix + topic

    def close(self) -> None:
        """The rules go with the topics that they are for."""
        admin = self.secure.plain.admin()
        everything = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type]  # whatever name, principal and host
            ResourcePatternType.ANY,
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for deleted in admin.delete_acls([everything]).values():
            deleted.result(ANSWER_TIMEOUT_S)


@pytest.fixture
def yard(
    secure: SecureKafka, minio: Minio, topic_prefix: str, users: None, capsys: pytest.CaptureFixture[str]
) -> Iterator[Yard]:
    with server_system(secure.plain, minio, topic_prefix) as system:
        made = Yard(secure, system)
        assert made.service("", "topics", "acls", "--apply") == ExitCode.OK
        capsys.readouterr()
        last = made.kafka(access.NAMES[-1])  # the broker hears of rules in the order in which they were made
        system.wait(lambda: not KafkaAdmin(last).lacking(access.acls(access.NAMES[-1:], last)))
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_every_role_and_client_does_its_part_of_a_job_with_its_own_rights_alone(
    yard: Yard, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    system = yard.system
    for role in Role:
        require_entry(system.settings(**yard.login(role)), (role,))
        login = {**yard.login(role), "KAFKA__GROUP_PROTOCOL": protocol}
        system.start((role,), name=role, **login)  # type: ignore[arg-type]  # all of them are settings
    system.upload()
    recording = f"s3://{system.recordings}/a.flac"
    assert yard.jobs("sender", "submit", recording, "--job-id", "done", "--watch", "--timeout", "2m") == Exit.OK
    assert yard.jobs("sender", "submit", recording, "--job-id", "cancelled", "--deadline", "1h") == Exit.OK
    assert yard.jobs("sender", "cancel", "cancelled") == Exit.OK
    system.finish("done", "cancelled")

    reader = KafkaInbox(yard.kafka("reader"), yard.topic(Topic.PARTIALS), f"{system.prefix}reader.search")
    assert record_of(reader) is not None

    system._sender.produce(yard.topic(Topic.JOBS), b"no event at all")
    assert system._sender.flush(PATIENCE_S) == 0
    system.wait(lambda: len(system.read(Topic.DEAD_LETTERS)) == 1)
    assert yard.jobs("operator", "dead-letters", "list") == Exit.OK
    assert "EVENT_UNREADABLE" in capsys.readouterr().out
    assert yard.jobs("operator", "dead-letters", "redrive", "--since", "1h", "--force", "--execute") == Exit.OK
    system.wait(lambda: len(system.read(Topic.DEAD_LETTERS)) >= 3, what="parked, settled, parked again")
    assert not [failure for failure in system.failures() if "was cancelled" not in failure]
    assert system.attempts() == {1}


def record_of(inbox: KafkaInbox) -> object:
    """The first record that a member of the group gets."""
    inbox.open(Rebalance(lambda _: None, lambda _: None, lambda _: None))
    try:
        return next(found for _ in range(int(PATIENCE_S)) if (found := inbox.poll(1.0)) is not None)
    finally:
        inbox.close(5.0)


def test_nobody_may_do_more_with_any_topic_than_the_table_says(yard: Yard) -> None:
    """The brokers themselves say what each user may do with each topic."""
    topics = {yard.topic(topic): topic for topic in Topic}
    for name in access.NAMES:
        rights = access.ROLES.get(name) or access.CLIENTS[name]
        admin = AdminClient(client_config(yard.kafka(name)))
        described = admin.describe_topics(TopicCollection(list(topics)), include_authorized_operations=True)
        for full_name, future in described.items():
            topic = topics[full_name]
            expected = {"READ"} if topic in (*rights.reads, *rights.follows) else set()
            expected |= {"WRITE"} if topic in rights.writes else set()
            if expected or rights.runs_topics:
                expected |= {"DESCRIBE"}
            expected |= {"CREATE", "DESCRIBE_CONFIGS"} if rights.runs_topics else set()
            assert allowed(future) == expected, (name, topic)


def allowed(future: Any) -> set[str]:
    """Nothing, when even its name is not to be known."""
    error = future.exception(ANSWER_TIMEOUT_S)
    if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return set()
    described = future.result(ANSWER_TIMEOUT_S)
    return {operation.name for operation in described.authorized_operations}


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("transcribe", Topic.JOBS),
        ("transcribe", Topic.JOB_STATE),
        ("sender", Topic.DEAD_LETTERS),
        ("reader", Topic.DEAD_LETTERS),
        ("reader", Topic.JOBS),
    ],
)
def test_what_a_user_need_not_read_it_cannot_read(yard: Yard, name: str, topic: Topic) -> None:
    tail = KafkaTail(yard.kafka(name), yard.topic(topic))
    with pytest.raises(NotAuthorized, match=yard.topic(topic)):
        tail.read_to_end(0, PATIENCE_S)
    tail.close()


@pytest.mark.parametrize(
    ("name", "transactional_id", "topic"),
    [
        ("transcribe", "transcribe.one", Topic.RESULTS),
        ("plan", "plan.one", Topic.CHUNK_WORK_HIGH),
        ("intake", "intake.one", Topic.JOB_STATE),
    ],
)
def test_what_a_role_need_not_write_it_cannot_write_and_is_told_which_right_it_lacks(
    yard: Yard, name: str, transactional_id: str, topic: Topic
) -> None:
    outbox = TransactionalOutbox(yard.kafka(name), yard.system.prefix + transactional_id)
    with pytest.raises(NotAuthorized, match=f"Write on topic {yard.topic(topic)};"):
        outbox.publish([Outgoing(yard.topic(topic), b"k", b"v")], [])
    outbox.publish([Outgoing(yard.topic(Topic.JOB_EVENTS), b"k", b"v")], [])
    outbox.close(5.0)


@pytest.mark.parametrize("name", ["sender", "reader", "transcribe"])
def test_nobody_can_fence_the_producers_of_another(yard: Yard, name: str) -> None:
    other = f"{yard.system.prefix}coordinate.one"
    outbox = TransactionalOutbox(yard.kafka(name), other)
    with pytest.raises(NotAuthorized, match=f"Write on transactional id {other};"):
        outbox.publish([Outgoing(yard.topic(Topic.JOB_EVENTS), b"k", b"v")], [])


def test_nobody_can_join_the_group_of_another(yard: Yard) -> None:
    group = f"{yard.system.prefix}coordinate.job-events"
    inbox = KafkaInbox(yard.kafka("reader"), yard.topic(Topic.RESULTS), group)
    with pytest.raises(NotAuthorized, match=f"Read on group {group};"):
        record_of(inbox)


def test_a_member_of_the_new_protocol_that_loses_its_group_says_so_and_ends(yard: Yard) -> None:
    """To librdkafka this is the end of the client; a worker that polled on would wait for ever."""
    login = {**yard.login("plan"), "KAFKA__GROUP_PROTOCOL": "consumer"}
    group, joined = f"{yard.system.prefix}plan.plan-work", set[int]()
    inbox = KafkaInbox(yard.system.settings(**login).kafka, yard.topic(Topic.PLAN_WORK), group)
    inbox.open(Rebalance(joined.update, lambda _: None, lambda _: None))
    yard.system.wait(lambda: inbox.poll(0.2) is None and bool(joined))
    yard.close()

    def ended() -> bool:
        try:
            inbox.poll(0.2)
        except NotAuthorized:  # said of the topic, while the group is still being asked
            return False
        return False

    with pytest.raises(BrokenWorker, match=f"Read on group {group};"):
        yard.system.wait(ended)
    inbox.close(5.0)


def test_a_group_whose_right_is_taken_away_as_it_gives_partitions_gives_them_once_it_is_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka would ask for their positions once, and then keep them without a record for as long as it lives."""
    group, began = f"{yard.system.prefix}plan.plan-work", dict[int, Mark]()
    inbox = KafkaInbox(yard.kafka("plan"), yard.topic(Topic.PLAN_WORK), group)
    ask = inbox._asked

    def refused_at_first(client: Consumer, partitions: set[int], timeout_s: float) -> dict[int, Mark]:
        monkeypatch.setattr(inbox, "_asked", ask)
        yard.close()
        while True:  # until the broker has heard of it
            ask(client, partitions, timeout_s)

    monkeypatch.setattr(inbox, "_asked", refused_at_first)
    inbox.open(Rebalance(began.update, lambda _: None, lambda _: None))

    def is_told() -> bool:
        with suppress(NotAuthorized):
            inbox.poll(0.2)
        return bool(began)

    with pytest.raises(NotAuthorized, match=f"Read on group {group};"):
        yard.system.wait(lambda: inbox.poll(0.2) is not None)
    assert inbox.awaits_positions
    assert yard.service("", "topics", "acls", "--apply") == ExitCode.OK
    yard.system.wait(is_told)
    assert set(began) == {0, 1}
    inbox.resume({0, 1})
    yard.system._sender.produce(yard.topic(Topic.PLAN_WORK), b"work")
    assert yard.system._sender.flush(PATIENCE_S) == 0
    yard.system.wait(lambda: inbox.poll(0.2) is not None)
    inbox.close(5.0)


def test_a_worker_without_its_rights_does_not_start_and_names_them(
    yard: Yard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yard.service("reader", "doctor", "--roles", "cleanup") == ExitCode.FAILED
    said = capsys.readouterr().out
    assert f"Read on topic {yard.topic(Topic.CLEANUP_WORK)}" in said
    assert f"Write on topic {yard.topic(Topic.JOB_EVENTS)}" in said
    with pytest.raises(NotAuthorized, match=f"Read on topic {yard.topic(Topic.CLEANUP_WORK)}"):
        require_entry(yard.system.settings(**yard.login("reader")), (Role.CLEANUP,))
    require_entry(yard.system.settings(**yard.login("cleanup")), (Role.CLEANUP,))


def test_the_operator_creates_topics_of_the_installation_and_no_others(
    yard: Yard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yard.service("operator", "topics", "create") == ExitCode.OK
    admin = yard.secure.plain.admin()
    gone = yard.topic(Topic.AUDIT)
    admin.delete_topics([gone])[gone].result(ANSWER_TIMEOUT_S)
    yard.system.wait(lambda: gone not in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics)
    capsys.readouterr()
    assert yard.service("operator", "topics", "create") == ExitCode.OK
    assert capsys.readouterr().out.split() == [gone]
    with variables({"WHISPERX_KAFKA__TOPIC_PREFIX": "elsewhere."}):
        environment = yard.system.environment(**yard.login("operator"), KAFKA__TOPIC_PREFIX="elsewhere.")
        with variables(environment):
            assert service.main(["topics", "create"]) == ExitCode.MISCONFIGURED


def test_a_role_whose_rights_are_taken_away_waits_until_it_has_them_again(yard: Yard) -> None:
    """No attempt is burnt, readiness says what is missing, and work goes on by itself."""
    system = yard.system
    everybody = {
        role: system.start((role,), name=role, **yard.login(role))  # type: ignore[arg-type]  # all of them are settings
        for role in Role
    }
    system.wait(lambda: all(member.system.parts.health.live().ok for member in everybody.values()))
    yard.close()
    system.upload()
    system.submit("one")
    system.wait(lambda: any("does not allow us" in reason for reason in everybody[Role.INTAKE].ready().reasons))
    assert all(member.system.parts.health.live().ok for member in everybody.values())
    assert yard.service("", "topics", "acls", "--apply") == ExitCode.OK
    system.finish("one")
    system.assert_nothing_lost_or_doubled("one")
    assert system.failures() == []
    assert system.attempts() == {1}
    system.wait(lambda: all(member.ready().ok for member in everybody.values()))
