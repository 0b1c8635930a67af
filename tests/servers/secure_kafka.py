"""A real Kafka that asks who calls (mTLS, SCRAM, PLAIN, OAUTHBEARER), with ACLs; its harness has a door of its own.

The OAUTHBEARER side is an `Issuer` of our own: it signs tokens, and the broker is given its public key.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not exported explicitly
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.servers.control import running, unavailable
from tests.servers.kafka import ANSWER_TIMEOUT_S, Kafka, is_cluster, kafka_process, new_cluster_id, properties
from tests.servers.packages import KAFKA
from tests.servers.process import free_ports, port_answers
from tests.servers.tls_site import QuietHandler, tls_site

AUDIENCE = "kafka"
PASSWORD = "a pass;word=\"with 'signs"
TRUSTED = ("tester", "mtls-tester", "oauth-tester")
"""Users who may do everything, for tests of the login alone."""
LOGIN_MODULE = "org.apache.kafka.common.security"


@dataclass
class Issuer:
    """Gives tokens to clients that know the secret. What they say can be changed while it runs."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048))
    secret: str = "client secret"
    lifetime_s: float = 300.0
    audience: str = AUDIENCE
    issued: list[str] = field(default_factory=list)
    """Whom tokens were given to, in order."""
    url: str = ""

    def token(self, subject: str) -> str:
        now_s = int(time.time())
        claims = {"sub": subject, "aud": self.audience, "iss": "tests", "iat": now_s - 3600}
        self.issued.append(subject)
        return jwt.encode({"alg": "RS256", "kid": "one"}, {**claims, "exp": now_s + int(self.lifetime_s)}, self.key)

    def public_keys(self) -> str:
        return json.dumps({"keys": [{**self.key.as_dict(private=False), "kid": "one", "alg": "RS256", "use": "sig"}]})


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, both PEM files."""

    chain: Path
    key: Path


class Authority:
    """Signs certificates; its own is in `file`, for those who are to trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str, not_after: datetime | None = None) -> Pair:
        """For a server on `hosts`, or a client that is called `name`."""
        issued = self._ca.issue_cert(*(hosts or (f"{name}.tests",)), common_name=name, not_after=not_after)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        # Java reads keys in this form only.
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pair.key.chmod(0o600)
        return pair


@dataclass(frozen=True)
class SecureKafka:
    """`plain` is the harness's own door; the others are for those who can say who they are."""

    plain: Kafka
    tls: str
    sasl: str
    authority: Authority
    issuer: Issuer

    def add_user(self, name: str, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512") -> None:
        kind = ScramMechanism.SCRAM_SHA_512 if mechanism.endswith("512") else ScramMechanism.SCRAM_SHA_256
        change = UserScramCredentialUpsertion(name, ScramCredentialInfo(kind, 4096), password.encode())
        admin = self.plain.admin()
        admin.alter_user_scram_credentials([change])[name].result(ANSWER_TIMEOUT_S)


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """One broker with every door: users in `TRUSTED` may do everything, for all others there are ACLs.

    Always a plain process: the doors of a container are not reachable from here.
    """
    if not KAFKA.is_installed():
        unavailable("no Kafka as a plain process: run python -m tests.servers.install kafka")
    authority = Authority(folder / "certificates")
    server = authority.issue("kafka", "127.0.0.1", "localhost")
    with issuing(server) as issuer:
        keys = folder / "keys.json"
        keys.write_text(issuer.public_keys())
        broker, controller, tls, sasl = free_ports(4)
        settings = properties(broker, controller)
        settings["listeners"] += f",SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}"
        settings["advertised.listeners"] = settings["listeners"]
        settings["listener.security.protocol.map"] += ",SSL:SSL,SASL_SSL:SASL_SSL"
        settings |= _trust(authority, server) | _logins(keys.as_uri()) | _rights()
        plain, cluster_id = f"127.0.0.1:{broker}", new_cluster_id()
        process = kafka_process(
            settings, folder / "kafka", cluster_id, lambda: port_answers(broker) and is_cluster(plain, cluster_id)
        )
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys.as_uri()}"
        process.environment = {"JAVA_TOOL_OPTIONS": allowed}
        with running(process):
            kafka = SecureKafka(
                Kafka(plain, cluster_id, process), f"127.0.0.1:{tls}", f"127.0.0.1:{sasl}", authority, issuer
            )
            kafka.add_user("tester")
            kafka.add_user("tester", mechanism="SCRAM-SHA-256")
            yield kafka


def _trust(authority: Authority, server: Pair) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": _one_line(server.chain),
        "ssl.keystore.key": _one_line(server.key),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": _one_line(authority.file),
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
    }


def _logins(keys: str) -> dict[str, str]:
    name = "listener.name.sasl_ssl"
    plain = f'{LOGIN_MODULE}.plain.PlainLoginModule required user_tester="tester";'
    return {
        f"{name}.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER",
        f"{name}.scram-sha-512.sasl.jaas.config": f"{LOGIN_MODULE}.scram.ScramLoginModule required;",
        # Who has logged in must do so again soon: a password that was changed counts for those, too, who are there.
        f"{name}.scram-sha-512.connections.max.reauth.ms": "4000",
        f"{name}.scram-sha-256.sasl.jaas.config": f"{LOGIN_MODULE}.scram.ScramLoginModule required;",
        f"{name}.plain.sasl.jaas.config": plain,
        f"{name}.oauthbearer.sasl.jaas.config": f"{LOGIN_MODULE}.oauthbearer.OAuthBearerLoginModule required;",
        f"{name}.oauthbearer.sasl.server.callback.handler.class": (
            f"{LOGIN_MODULE}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        ),
        # A connection ends with its token, unless its client logs in again in time.
        f"{name}.oauthbearer.connections.max.reauth.ms": "3600000",
        "sasl.oauthbearer.jwks.endpoint.url": keys,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.expected.issuer": "tests",
        "sasl.oauthbearer.clock.skew.seconds": "0",
    }


def _rights() -> dict[str, str]:
    """The plain door's callers are nobody in particular: they are the harness."""
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ";".join(f"User:{name}" for name in ("ANONYMOUS", *TRUSTED)),
        "allow.everyone.if.no.acl.found": "false",
    }


def _one_line(pem: Path) -> str:
    """As a properties file takes it."""
    return pem.read_text().strip().replace("\n", "\\n")


@contextmanager
def issuing(server: Pair) -> Iterator[Issuer]:
    """An issuer whose token endpoint speaks TLS on the loopback address."""
    issuer = Issuer()

    class Endpoint(QuietHandler):
        def do_POST(self) -> None:  # the name is http.server's
            form = parse_qs(self.body().decode())
            name, secret = _client_of(self.headers.get("Authorization", ""))
            if secret != issuer.secret or form.get("grant_type") != ["client_credentials"]:
                self.answer(401, b'{"error": "invalid_client"}')
                return
            answer = {"access_token": issuer.token(name), "token_type": "Bearer"}
            self.answer(200, json.dumps(answer).encode())

    with tls_site(Endpoint, server.chain, server.key) as url:
        issuer.url = f"{url}/token"
        yield issuer


def _client_of(authorization: str) -> tuple[str, str]:
    """Id and secret from a Basic header."""
    given = base64.b64decode(authorization.removeprefix("Basic ")).decode()
    name, _, secret = given.partition(":")
    return unquote_plus(name), unquote_plus(secret)
