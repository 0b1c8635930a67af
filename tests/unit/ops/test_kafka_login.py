"""How the settings for logging in at the brokers may be combined, what becomes of them, and that secrets are hidden."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from pydantic import ValidationError

from consumer import cli, doctor, settings_reference
from consumer.adapters import kafka_tail
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.kafka_client import client_config
from consumer.adapters.kafka_refusals import Refusals, away, is_refused_login
from consumer.errors import BrokerUnavailable, RefusedLogin
from consumer.exit_codes import ExitCode
from consumer.findings import Level
from consumer.settings import KafkaSettings, Settings

SCRAM = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "worker",
    "sasl_password": "hidden-1",
}
TOKEN = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "oauth_token_endpoint": "https://issuer.example/token",
    "oauth_client_id": "worker",
    "oauth_client_secret": "hidden-2",
    "oauth_scope": "kafka",
    "oauth_ca_location": "/ca/issuer.pem",
}
CERTIFICATE = {
    "security_protocol": "SSL",
    "ssl_ca_location": "/ca/brokers.pem",
    "ssl_certificate_location": "/own/chain.pem",
    "ssl_key_location": "/own/key.pem",
    "ssl_key_password": "hidden-3",
}


def without(settings: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in names}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (without(SCRAM, "security_protocol"), "without security_protocol=SASL_SSL"),
        ({**SCRAM, "security_protocol": "SSL"}, "without security_protocol=SASL_SSL"),
        ({"security_protocol": "SASL_SSL"}, "needs a sasl_mechanism"),
        (without(SCRAM, "sasl_username"), "needs sasl_username and sasl_password"),
        (without(SCRAM, "sasl_password"), "needs sasl_username and sasl_password"),
        (without(TOKEN, "oauth_token_endpoint"), "needs oauth_token_endpoint"),
        (without(TOKEN, "oauth_client_id"), "needs oauth_token_endpoint"),
        (without(TOKEN, "oauth_client_secret"), "needs oauth_token_endpoint"),
        ({**SCRAM, "oauth_client_secret": "hidden-4"}, "need sasl_mechanism=OAUTHBEARER"),
        (without(CERTIFICATE, "ssl_certificate_location"), "only of use together"),
        (without(CERTIFICATE, "ssl_key_location", "ssl_key_password"), "only of use together"),
        ({"ssl_key_password": "hidden-5"}, "ssl_key_password needs ssl_key_location"),
        (without(CERTIFICATE, "security_protocol"), "of no use without security_protocol=SSL"),
    ],
)
def test_settings_that_cannot_log_in_are_refused_at_start_and_named(
    given: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValidationError, match=words):
        KafkaSettings.model_validate(given)
    for name, value in given.items():
        monkeypatch.setenv(f"WHISPERX_KAFKA__{name.upper()}", value)
    assert cli.main(["config"]) == ExitCode.MISCONFIGURED
    said = capsys.readouterr()
    assert words in said.err
    assert "WHISPERX_KAFKA" in said.err
    assert "hidden" not in said.err + said.out


@pytest.mark.parametrize(
    "given",
    [
        {"security_protocol": "SASL_SSL", "extra": {"sasl.mechanism": "GSSAPI"}},
        {**without(SCRAM, "sasl_username", "sasl_password"), "extra": {"sasl.username": "a", "sasl.password": "b"}},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "extra": {"sasl.oauthbearer.config": "x"}},
    ],
)
def test_what_extra_properties_say_is_not_asked_for_again(given: dict[str, Any]) -> None:
    assert "sasl.oauthbearer.method" not in client_config(KafkaSettings.model_validate(given))


def test_each_login_becomes_the_properties_of_librdkafka() -> None:
    scram = client_config(KafkaSettings.model_validate(SCRAM))
    assert (scram["sasl.mechanism"], scram["sasl.username"], scram["sasl.password"]) == (
        "SCRAM-SHA-512",
        "worker",
        "hidden-1",
    )
    token = client_config(KafkaSettings.model_validate(TOKEN))
    assert {name: value for name, value in token.items() if "oauth" in name or name.startswith("https")} == {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://issuer.example/token",
        "sasl.oauthbearer.client.id": "worker",
        "sasl.oauthbearer.client.secret": "hidden-2",
        "sasl.oauthbearer.scope": "kafka",
        "https.ca.location": "/ca/issuer.pem",
    }
    assert "sasl.username" not in token
    certificate = client_config(KafkaSettings.model_validate(CERTIFICATE))
    assert {name: value for name, value in certificate.items() if name.startswith("ssl.")} == {
        "ssl.ca.location": "/ca/brokers.pem",
        "ssl.certificate.location": "/own/chain.pem",
        "ssl.key.location": "/own/key.pem",
        "ssl.key.password": "hidden-3",
        "ssl.endpoint.identification.algorithm": "https",
    }


def test_no_secret_of_a_login_is_shown_and_all_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TOKEN, **without(CERTIFICATE, "security_protocol")}.items():
        monkeypatch.setenv(f"WHISPERX_KAFKA__{name.upper()}", value)
    monkeypatch.setenv("WHISPERX_KAFKA__OAUTH_TOKEN_ENDPOINT", "https://user:hidden-4@issuer.example/token")
    settings = Settings()
    assert "hidden" not in settings_reference.effective_text(settings)
    assert "hidden" not in repr(settings.kafka).replace("user:hidden-4@", "")
    assert {"hidden-2", "hidden-3", "user:hidden-4"} <= set(settings_reference.secrets(settings))


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        ({**TOKEN, "oauth_token_endpoint": "http://issuer.example/token"}, "OAUTH_CLIENT_SECRET travels"),
        ({"ssl_verify_hostname": False}, "SSL_VERIFY_HOSTNAME is off"),
    ],
)
def test_doctor_warns_of_logins_that_give_something_away(kafka: dict[str, Any], words: str) -> None:
    settings = Settings.model_validate({"kafka": kafka, "store": {"access_key": "key", "secret_key": "secret"}})
    assert [f.level for f in doctor.settings_findings(settings) if words in f.what] == [Level.WARN]


@pytest.mark.parametrize(
    ("code", "text", "refused"),
    [
        (KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed", True),
        (KafkaError._AUTHENTICATION, 'Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client"}', True),
        (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Could not connect to server", False),
        (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Could not resolve host: a", False),
        (KafkaError._SSL, "SSL handshake failed: certificate verify failed", True),
        (KafkaError._TRANSPORT, "Receive failed: ssl/tls alert bad certificate: SSL alert number 42", True),
        (KafkaError._TRANSPORT, "Receive failed: tlsv1 alert unknown ca: SSL alert number 48", True),
        (KafkaError._TRANSPORT, "SSL handshake failed: Disconnected: SSL connection closed by peer", False),
        (KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused", False),
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", False),
    ],
)
def test_a_refusal_is_told_from_an_outage(code: int, text: str, refused: bool) -> None:
    assert is_refused_login(KafkaError(code, text)) is refused


def test_whoever_reads_a_topic_to_its_end_logs_in_as_the_further_properties_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also the client that only asks where the end is: refused there, a coordinator never gets its states back."""
    opened: list[dict[str, Any]] = []

    class Nobody:
        def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
            return 0, 7

        def close(self) -> None:
            pass

    def open_client(_: object, config: dict[str, Any], __: object) -> Nobody:
        opened.append(config)
        return Nobody()

    monkeypatch.setattr(kafka_tail, "open_client", open_client)
    own_login = {"sasl.mechanism": "GSSAPI", "ssl.ca.pem": "certificate"}
    tail = kafka_tail.KafkaTail(KafkaSettings(security_protocol="SASL_SSL", extra=own_login), "job-state")
    assert tail._high_watermarks([TopicPartition("job-state", 0)], 1.0) == {0: 7}
    assert len(opened) == 2
    for config in opened:
        assert config.items() >= own_login.items()
    assert [config["isolation.level"] for config in opened] == ["read_committed", "read_uncommitted"]


class Silent:
    """A client that has nothing to say."""

    def poll(self, timeout_s: float) -> None:
        pass


UNRESOLVED = KafkaError(KafkaError._RESOLVE, "kafka:9092/1: Failed to resolve 'kafka:9092': Name or service not known")
NO_TLS = KafkaError(
    KafkaError._TRANSPORT, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 3ms)"
)
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")


@pytest.mark.parametrize(
    ("complaints", "advice"),
    [
        ([], "look at them, or correct WHISPERX_KAFKA__BOOTSTRAP_SERVERS or __SECURITY_PROTOCOL (SSL)"),
        ([DOWN], "look at them, or correct WHISPERX_KAFKA__BOOTSTRAP_SERVERS or __SECURITY_PROTOCOL (SSL)"),
        (
            [UNRESOLVED, DOWN],
            "nobody knows the address of kafka:9092: correct WHISPERX_KAFKA__BOOTSTRAP_SERVERS, or the brokers' "
            "advertised.listeners, or look at the name service",
        ),
        ([NO_TLS, DOWN], "they seem to speak no TLS: correct WHISPERX_KAFKA__SECURITY_PROTOCOL (SSL)"),
        (
            [NO_TLS, *[DOWN] * 4],  # long ago
            "look at them, or correct WHISPERX_KAFKA__BOOTSTRAP_SERVERS or __SECURITY_PROTOCOL (SSL)",
        ),
    ],
)
def test_brokers_that_are_away_are_named_and_so_is_the_setting(complaints: list[KafkaError], advice: str) -> None:
    refusals = Refusals(KafkaSettings(bootstrap_servers="b:9092", security_protocol="SSL"))
    for complaint in complaints:
        refusals(complaint)
    failure = KafkaException(KafkaError(KafkaError._TRANSPORT, "no route"))
    error = away("asking for topic a", failure, Silent(), refusals)
    assert str(error) == f"brokers b:9092 do not answer (asking for topic a): no route; {advice}"


@pytest.mark.parametrize(
    ("complaint", "error", "words"),
    [
        (NO_TLS, BrokerUnavailable, "gave no answer in 7 s; they seem to speak no TLS"),
        (DOWN, BrokerUnavailable, "gave no answer in 7 s$"),
        (KafkaError(KafkaError._AUTHENTICATION, "Authentication failed"), RefusedLogin, "Authentication failed; check"),
    ],
)
def test_a_question_that_times_out_is_told_with_what_the_client_has_heard(
    complaint: KafkaError, error: type[BrokerUnavailable], words: str
) -> None:
    """Which of the two time-outs is the first, librdkafka's or ours, is chance."""
    admin = KafkaAdmin(KafkaSettings(bootstrap_servers="127.0.0.1:1"), timeout_s=7)

    def time_out() -> None:
        with admin._translated():
            admin._complaints.append(complaint)
            raise TimeoutError

    with pytest.raises(error, match=words):
        time_out()
