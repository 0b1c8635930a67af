"""TLS, SCRAM, PLAIN and OAUTHBEARER to a real broker; and what is said, and done, when it does not let us in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from consumer import access
from consumer import cli as service
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import TransactionalOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.bootstrap import Role
from consumer.broker import Mark, Rebalance
from consumer.core.layout import Topic
from consumer.entry import require_entry
from consumer.errors import BrokerUnavailable, Misconfigured, RefusedLogin
from consumer.exit_codes import ExitCode
from consumer.ports import Outgoing, Received
from consumer.settings import KafkaSettings, Settings
from producer_tools import cli
from producer_tools.exit_codes import Exit
from tests.integration.server_system import ALL, ServerSystem, server_system
from tests.servers.minio import Minio
from tests.servers.process import free_port
from tests.servers.secure_kafka import PASSWORD, Authority, Pair, SecureKafka

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]
PATIENCE_S = 30.0
WRONG = "not-the-word"


@pytest.fixture(scope="module")
def client(secure: SecureKafka) -> Pair:
    return secure.authority.issue("mtls-tester")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody knows."""
    return Authority(tmp_path_factory.mktemp("strangers") / "certificates")


@pytest.fixture(autouse=True)
def _issuer_as_it_was(secure: SecureKafka) -> Iterator[None]:
    before = dict(secure.issuer.__dict__)
    yield
    secure.issuer.__dict__.update(before)


def by_certificate(secure: SecureKafka, pair: Pair | None, **changes: Any) -> KafkaSettings:
    own = {"ssl_certificate_location": str(pair.chain), "ssl_key_location": str(pair.key)} if pair else {}
    trust = {"security_protocol": "SSL", "ssl_ca_location": str(secure.authority.file)}
    return KafkaSettings.model_validate({"bootstrap_servers": secure.tls, **trust, **own, **changes})


def by_password(secure: SecureKafka, mechanism: str, **changes: Any) -> KafkaSettings:
    login = {
        "bootstrap_servers": secure.sasl,
        "security_protocol": "SASL_SSL",
        "ssl_ca_location": str(secure.authority.file),
        "sasl_mechanism": mechanism,
        "sasl_username": "tester",
        "sasl_password": "tester" if mechanism == "PLAIN" else PASSWORD,
    }
    return KafkaSettings.model_validate({**login, **changes})


def by_token(secure: SecureKafka, **changes: Any) -> KafkaSettings:
    login = {
        "bootstrap_servers": secure.sasl,
        "security_protocol": "SASL_SSL",
        "ssl_ca_location": str(secure.authority.file),
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_endpoint": secure.issuer.url,
        "oauth_client_id": "oauth-tester",
        "oauth_client_secret": secure.issuer.secret,
        "oauth_scope": "kafka",
        "oauth_ca_location": str(secure.authority.file),
    }
    return KafkaSettings.model_validate({**login, **changes})


@dataclass
class Watcher:
    """What became of a group's member."""

    assigned: set[int] = field(default_factory=set)
    gone: list[set[int]] = field(default_factory=list)

    def rebalance(self) -> Rebalance:
        return Rebalance(self.assigned.update, self.gone.append, self.gone.append)


def poll_until(inbox: KafkaInbox, done: Any) -> list[Received]:
    records: list[Received] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done(records):
        assert time.monotonic() < deadline
        if (record := inbox.poll(0.2)) is not None:
            records.append(record)
    return records


# ── let in ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("way", "protocol"),
    [
        ("certificate", "classic"),
        ("SCRAM-SHA-512", "consumer"),
        ("SCRAM-SHA-256", "classic"),
        ("PLAIN", "consumer"),
        ("token", "classic"),
        ("token", "consumer"),
    ],
)
def test_admin_inbox_outbox_and_tail_work_however_we_log_in(
    secure: SecureKafka, client: Pair, topic_prefix: str, way: str, protocol: str
) -> None:
    changes = {"group_protocol": protocol, "session_timeout_s": 6}
    match way:
        case "certificate":
            settings = by_certificate(secure, client, **changes)
        case "token":
            settings = by_token(secure, **changes)
        case _:
            settings = by_password(secure, way, **changes)
    work, out = secure.plain.create_topic(f"{topic_prefix}work"), secure.plain.create_topic(f"{topic_prefix}out")
    assert KafkaAdmin(settings).describe([work]).keys() == {work}

    outbox = TransactionalOutbox(settings, f"{topic_prefix}producer")
    outbox.publish([Outgoing(work, b"key", b"question")], [])
    watcher, inbox = Watcher(), KafkaInbox(settings, work, f"{topic_prefix}group")
    inbox.open(watcher.rebalance())
    (record,) = poll_until(inbox, lambda records: records)
    outbox.publish([Outgoing(out, b"key", b"answer")], [(inbox, {0: Mark(record.offset + 1)})])
    assert inbox.committed({0})[0].offset == record.offset + 1

    tail = KafkaTail(settings, out)
    assert [found.value for found in tail.read_to_end(0, PATIENCE_S)] == [b"answer"]
    tail.close()
    outbox.close(5.0)
    assert inbox.close(10.0)


def test_a_token_that_expires_is_renewed_and_its_consumer_stays_in_its_group(
    secure: SecureKafka, topic_prefix: str
) -> None:
    secure.issuer.lifetime_s = 4  # the broker ends connections whose token has expired
    topic = secure.plain.create_topic(f"{topic_prefix}work")
    watcher, inbox = Watcher(), KafkaInbox(by_token(secure), topic, f"{topic_prefix}group")
    inbox.open(watcher.rebalance())
    poll_until(inbox, lambda _: watcher.assigned)
    issued, began_s = len(secure.issuer.issued), time.monotonic()
    poll_until(inbox, lambda _: len(secure.issuer.issued) >= issued + 2)
    assert time.monotonic() - began_s > secure.issuer.lifetime_s, "the first token is no longer good"
    sender = Producer({"bootstrap.servers": secure.plain.bootstrap_servers})
    sender.produce(topic, b"late")
    assert sender.flush(PATIENCE_S) == 0
    (record,) = poll_until(inbox, lambda records: records)
    assert record.value == b"late"
    inbox.commit({0: Mark(record.offset + 1)})
    assert watcher.gone == []
    assert inbox.close(10.0)


# ── not let in ──────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(settings: KafkaSettings) -> str:
    """What an operator is told."""
    with pytest.raises(RefusedLogin) as caught:
        KafkaAdmin(settings, timeout_s=1).broker_ids()
    message = caught.value.message
    assert settings.bootstrap_servers in message
    for secret in (settings.sasl_password, settings.oauth_client_secret, settings.ssl_key_password):
        assert not secret.get_secret_value() or secret.get_secret_value() not in message
    return message


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password_is_said_to_be_one(secure: SecureKafka, mechanism: str) -> None:
    message = refused(by_password(secure, mechanism, sasl_password=WRONG))
    assert "WHISPERX_KAFKA__SASL_USERNAME (tester), __SASL_PASSWORD" in message


def test_a_user_that_there_is_not_looks_like_a_wrong_password(secure: SecureKafka) -> None:
    assert "SASL_USERNAME (nobody)" in refused(by_password(secure, "SCRAM-SHA-512", sasl_username="nobody"))


def test_a_broker_whose_authority_we_do_not_know_is_not_trusted(secure: SecureKafka, strangers: Authority) -> None:
    settings = by_password(secure, "SCRAM-SHA-512", ssl_ca_location=str(strangers.file))
    assert "WHISPERX_KAFKA__SSL_CA_LOCATION" in refused(settings)


def test_a_broker_with_a_certificate_for_another_host_is_not_trusted(secure: SecureKafka) -> None:
    other_name = secure.sasl.replace("127.0.0.1", "127.1")  # the same address, by a name that is not in it
    settings = by_password(secure, "PLAIN", bootstrap_servers=other_name)
    assert "the host that we call" in refused(settings)
    careless = settings.model_copy(update={"ssl_verify_hostname": False})
    assert KafkaAdmin(careless, timeout_s=5).broker_ids() == [1]


@pytest.mark.parametrize("certificate", ["none", "a stranger's", "an expired one"])
def test_a_certificate_that_the_broker_does_not_take_is_said_to_be_one(
    secure: SecureKafka, strangers: Authority, certificate: str
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    pairs = {
        "none": None,
        "a stranger's": strangers.issue("mtls-tester"),
        "an expired one": secure.authority.issue("expired", not_after=yesterday),
    }
    pair = pairs[certificate]
    assert "WHISPERX_KAFKA__SSL_CERTIFICATE_LOCATION" in refused(by_certificate(secure, pair))


def test_a_wrong_client_secret_is_said_to_be_one(secure: SecureKafka) -> None:
    assert "__OAUTH_CLIENT_SECRET" in refused(by_token(secure, oauth_client_secret=WRONG))


def test_a_token_endpoint_whose_authority_we_do_not_know_is_not_trusted(
    secure: SecureKafka, strangers: Authority
) -> None:
    message = refused(by_token(secure, oauth_ca_location=str(strangers.file)))
    assert "WHISPERX_KAFKA__OAUTH_CA_LOCATION" in message


def test_a_token_that_has_expired_is_refused(secure: SecureKafka) -> None:
    secure.issuer.lifetime_s = -60
    assert "expired" in refused(by_token(secure))


def test_a_token_for_somebody_else_is_refused_by_the_broker(secure: SecureKafka) -> None:
    secure.issuer.audience = "another service"
    assert "audience" in refused(by_token(secure))


def test_a_token_endpoint_that_is_away_is_not_a_refusal(secure: SecureKafka) -> None:
    settings = by_token(secure, oauth_token_endpoint=f"https://127.0.0.1:{free_port()}/token")
    with pytest.raises(BrokerUnavailable, match="OAUTHBEARER token") as caught:
        KafkaAdmin(settings, timeout_s=1).broker_ids()
    assert not isinstance(caught.value, RefusedLogin)


def away(settings: KafkaSettings) -> list[str]:
    """What operators and senders are told."""
    with pytest.raises(BrokerUnavailable) as admin:
        KafkaAdmin(settings, timeout_s=1).broker_ids()
    with pytest.raises(BrokerUnavailable) as tail:
        KafkaTail(settings, "topic").partitions(1.0)
    assert {type(admin.value), type(tail.value)} == {BrokerUnavailable}, "they may be back, so they are waited for"
    return [admin.value.message, tail.value.message]


def test_a_listener_without_tls_is_said_to_be_one(secure: SecureKafka) -> None:
    for message in away(by_certificate(secure, None, bootstrap_servers=secure.plain.bootstrap_servers)):
        assert "no TLS: correct WHISPERX_KAFKA__SECURITY_PROTOCOL (SSL)" in message


def test_a_listener_without_logins_is_said_to_be_one(secure: SecureKafka) -> None:
    open_door = {"bootstrap_servers": secure.plain.bootstrap_servers, "security_protocol": "SASL_PLAINTEXT"}
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        message = refused(by_password(secure, mechanism, **open_door))
        assert "check WHISPERX_KAFKA__SECURITY_PROTOCOL (SASL_PLAINTEXT): this listener takes no logins" in message


def test_a_name_that_nobody_knows_is_said_to_be_one(secure: SecureKafka) -> None:
    for message in away(by_password(secure, "PLAIN", bootstrap_servers="brokers.invalid:9092")):
        assert "nobody knows the address of brokers.invalid:9092" in message


def test_a_worker_is_told_at_start_why_it_is_not_let_in(secure: SecureKafka, caplog: pytest.LogCaptureFixture) -> None:
    def at_start(kafka: KafkaSettings) -> None:
        require_entry(Settings(kafka=kafka), [Role.INTAKE])

    with pytest.raises(RefusedLogin, match="SASL_PASSWORD"):
        at_start(by_password(secure, "PLAIN", sasl_password=WRONG))
    at_start(by_certificate(secure, None, bootstrap_servers=secure.plain.bootstrap_servers))
    (record,) = [one for one in caplog.records if one.name == "consumer.entry"]
    assert "correct WHISPERX_KAFKA__SECURITY_PROTOCOL (SSL)" in record.__dict__["reason"]


def test_a_file_that_cannot_be_read_is_said_at_once(secure: SecureKafka, tmp_path: Path) -> None:
    settings = by_certificate(secure, Pair(tmp_path / "none.pem", tmp_path / "none.key"))
    with pytest.raises(Misconfigured, match=r"ssl\.certificate\.location"):
        KafkaInbox(settings, "topic", "group")


def test_inbox_outbox_and_tail_tell_a_refusal_from_an_outage(secure: SecureKafka, topic_prefix: str) -> None:
    topic = secure.plain.create_topic(f"{topic_prefix}work")
    settings = by_password(secure, "SCRAM-SHA-256", sasl_password=WRONG, commit_timeout_s=2)
    inbox = KafkaInbox(settings, topic, f"{topic_prefix}group")
    inbox.open(Watcher().rebalance())
    with pytest.raises(RefusedLogin):
        poll_until(inbox, lambda records: records)
    with pytest.raises(RefusedLogin):
        TransactionalOutbox(settings, f"{topic_prefix}producer").publish([Outgoing(topic, b"k", b"v")], [])
    with pytest.raises(RefusedLogin):
        KafkaTail(settings, topic).read_to_end(0, 2.0)
    with pytest.raises(RefusedLogin):
        KafkaTail(settings, topic).partitions()
    inbox.close(2.0)


def test_senders_and_operators_with_a_wrong_password_are_told_so(
    secure: SecureKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(by_password(secure, "SCRAM-SHA-512", sasl_password=WRONG)).items():
        monkeypatch.setenv(f"WHISPERX_{name}", value)
    assert cli.main(["cancel", "job", "--topic-prefix", topic_prefix]) == Exit.MISCONFIGURED
    assert service.main(["topics", "create", "--dry-run"]) == ExitCode.MISCONFIGURED
    said = capsys.readouterr().err
    assert said.count("BROKER_LOGIN_REFUSED") == 2
    assert WRONG not in said


# ── let in no longer ────────────────────────────────────────────────────────────────────────────────────────────────


def environment(settings: KafkaSettings) -> dict[str, str]:
    """As `ServerSystem` takes it: what differs from the defaults."""
    given = settings.model_dump(exclude_defaults=True)
    return {
        f"KAFKA__{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in given.items()
    }


def test_workers_whose_password_is_changed_wait_and_burn_no_attempt(
    secure: SecureKafka, minio: Minio, topic_prefix: str
) -> None:
    user, everybody = f"{topic_prefix}worker", tuple(access.ROLES)
    secure.add_user(user)
    login = environment(by_password(secure, "SCRAM-SHA-512", sasl_username=user))
    with server_system(secure.plain, minio, topic_prefix) as system:
        KafkaAdmin(system.reading).allow(f"User:{user}", access.acls(everybody, system.reading))
        member = system.start(ALL, chunk_s=0.5, **login)  # type: ignore[arg-type]  # all of them are settings
        system.upload()
        system.submit("one")
        system.wait(lambda: len(system.partials()) >= 2)
        secure.add_user(user, WRONG)
        system.wait(lambda: _says(member.ready().reasons, "do not come together"), what="refused")
        assert member.system.parts.health.live().ok, "a restart would mend nothing"
        secure.add_user(user)
        system.finish("one")
        _nobody_was_blamed(system, "one")
        system.wait(lambda: member.ready().ok)


def _says(reasons: tuple[str, ...], words: str) -> bool:
    return any(words in reason for reason in reasons)


def _nobody_was_blamed(system: ServerSystem, *job_ids: str) -> None:
    system.assert_nothing_lost_or_doubled(*job_ids)
    assert system.failures() == []
    assert system.attempts() == {1}, "no attempt was burnt"
    assert system.everything(Topic.DEAD_LETTERS) == []
