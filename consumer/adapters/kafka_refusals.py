"""A broker that refuses us, told apart from one that is away; and what may be wrong where none answers.

librdkafka says no more than "transport failure" to who asks while a login fails: the reason comes through the client's
error callback alone. Which errors mean what was tried on a real broker: tests/integration/test_kafka_security.py.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from consumer.errors import BrokerUnavailable, Misconfigured, NotAuthorized, RefusedLogin
from consumer.settings import KafkaSettings

AUTHENTICATION = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
AUTHORIZATION = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_ALERT = re.compile(r"alert .*(certificate|unknown ca|access denied|handshake failure)", re.IGNORECASE)
"""With TLS 1.3 a broker says only after the handshake that it does not take our certificate, and hangs up."""
_TOKENS_AWAY = re.compile(r"connect to|resolve|timed? ?out|timeout", re.IGNORECASE)
"""The token endpoint is away: in time it gives tokens again."""
_TOKEN = "OAUTHBEARER token"  # noqa: S105 - words of a message
_NO_LOGINS = "Request not valid in current SASL state"
"""A listener without SASL says so to who wants to log in."""
_NO_TLS = "connecting to a PLAINTEXT broker listener"
"""A guess of the client's: a broker that hangs up on a TLS greeting may also be one that goes down."""
_UNRESOLVED = re.compile(r"resolve '([^']*)'")
_REMEMBERED = 4
"""So many of the newest complaints are about what is wrong now: while no broker answers, the client has a few each
second."""

C = TypeVar("C")


class Refusals:
    """The `error_cb` of one client: keeps the newest refusal until somebody takes it, and the newest complaints."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.servers = settings.bootstrap_servers
        self._settings = settings
        self._newest: RefusedLogin | None = None
        self._complaints: deque[KafkaError] = deque(maxlen=_REMEMBERED)

    def __call__(self, error: KafkaError) -> None:
        self._complaints.append(error)
        if is_refused_login(error):
            self._newest = RefusedLogin(_sentence(error.str(), self._settings))

    def take(self) -> RefusedLogin | None:
        """What was refused since the last time; the client says it again with its next try."""
        newest, self._newest = self._newest, None
        return newest

    def advice(self) -> str:
        """What to look at where no broker answers, as far as the client has said."""
        return advice(tuple(self._complaints), self._settings) or (  # another thread may hear the next one
            "look at them, or correct WHISPERX_KAFKA__BOOTSTRAP_SERVERS "
            f"or __SECURITY_PROTOCOL ({self._settings.security_protocol})"
        )


def is_refused_login(error: KafkaError) -> bool:
    """Whether only a person can mend it: a wrong password, token or certificate, and none that we trust."""
    code, text = error.code(), error.str()
    if code in AUTHENTICATION:
        return not (_TOKEN in text and _TOKENS_AWAY.search(text))
    return code == KafkaError._SSL or (code == KafkaError._TRANSPORT and bool(_ALERT.search(text)))


def advice(complaints: Iterable[KafkaError], settings: KafkaSettings) -> str:
    """The mistake that the client's complaints look like; empty where they look like none."""
    for complaint in complaints:
        if complaint.code() == KafkaError._RESOLVE and (name := _UNRESOLVED.search(complaint.str())):
            return (
                f"nobody knows the address of {name[1]}: correct WHISPERX_KAFKA__BOOTSTRAP_SERVERS, or the brokers' "
                "advertised.listeners, or look at the name service"
            )
        if _NO_TLS in complaint.str():
            return (
                f"they seem to speak no TLS: correct WHISPERX_KAFKA__SECURITY_PROTOCOL ({settings.security_protocol})"
            )
    return ""


def away(doing: str, exc: KafkaException, client: Any, refusals: Refusals) -> BrokerUnavailable:
    """What a failed question means: refused, not allowed, or nobody there. `doing` is what we wanted of them."""
    error: KafkaError = exc.args[0]
    with contextlib.suppress(KafkaException):  # one that cannot go on says so here, too
        client.poll(0)  # hands over what the client has to say
    if is_refused_login(error):
        refusals(error)
    return refusals.take() or BrokerUnavailable(
        f"brokers {refusals.servers} do not answer ({doing}): {error.str()}; {refusals.advice()}"
    )


def not_allowed(operation: str, kind: str, name: str) -> NotAuthorized:
    """not_allowed("Read", "topic", "transcription.jobs")"""
    return NotAuthorized(
        f"Kafka does not allow us {operation} on {kind} {name}; add the ACL "
        "(`whisperx-consumer topics acls` prints what each role needs), or log in as another user",
        operation=operation,
        resource=f"{kind} {name}",
    )


def open_client(kind: Callable[..., C], config: dict[str, Any], logger: Any) -> C:
    """Make a client. Raises Misconfigured for a file that cannot be read and a property that cannot work."""
    try:
        return kind(config, logger=logger)
    except KafkaException as exc:
        raise Misconfigured(
            f"Kafka's client cannot be made: {exc.args[0].str()}; look at the files and the login in WHISPERX_KAFKA__*"
        ) from exc


def _sentence(reason: str, settings: KafkaSettings) -> str:
    return (
        f"brokers {settings.bootstrap_servers} and we do not come together: {reason}; check {_what(reason, settings)}"
    )


def _what(reason: str, settings: KafkaSettings) -> str:
    """The settings that it may be about."""
    if _NO_LOGINS in reason:
        return f"WHISPERX_KAFKA__SECURITY_PROTOCOL ({settings.security_protocol}): this listener takes no logins"
    if _TOKEN in reason:
        certificates = " and WHISPERX_KAFKA__OAUTH_CA_LOCATION" if "certificate" in reason.lower() else ""
        return f"WHISPERX_KAFKA__OAUTH_CLIENT_ID, __OAUTH_CLIENT_SECRET, __OAUTH_TOKEN_ENDPOINT{certificates}"
    if _ALERT.search(reason):
        return "WHISPERX_KAFKA__SSL_CERTIFICATE_LOCATION and __SSL_KEY_LOCATION: is it one that the brokers trust?"
    if "certificate" in reason.lower():
        return "WHISPERX_KAFKA__SSL_CA_LOCATION, and that the certificate is for the host that we call"
    if settings.sasl_mechanism == "OAUTHBEARER":
        return "what the token says (audience, issuer, expiry) against the brokers' settings"
    return f"WHISPERX_KAFKA__SASL_USERNAME ({settings.sasl_username}), __SASL_PASSWORD and __SASL_MECHANISM"
