"""A schema registry with Confluent's API: our schemas' ids, and the schemas behind the ids of others.

Subjects are `<topic>-transcription.<Event>` (TopicRecordNameStrategy), because a topic may carry several events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from confluent_kafka.schema_registry import (
    ConfigCompatibilityLevel,
    SchemaRegistryClient,
    SchemaRegistryError,
    ServerConfig,
)
from confluent_kafka.schema_registry import Schema as RegisteredText
from confluent_kafka.schema_registry.common._httpx_compat import httpx  # the one of two packages whose errors it raises

from consumer.contracts import CARRIED, Schema, full_name, schema_of
from consumer.errors import Misconfigured, RegistryUnavailable, UnreadableEvent
from consumer.events import Event

COMPATIBILITY = ConfigCompatibilityLevel.FULL_TRANSITIVE
"""Every version reads every other, as a rolling update needs it."""

TIMEOUT_S = 10.0
RETRIES = 2
FIRST_WAIT_MS = 200

_NOT_FOUND = 404
_CONFLICT = 409
_WORTH_A_RETRY = 408, 429


class ConfluentRegistry:
    """Implements `wire.SchemaRegistry`. Ids are remembered; only `prepare` and foreign schemas cost a request."""

    def __init__(
        self, url: str, *, username: str = "", password: str = "", ca_file: str = "", auto_register: bool = True
    ) -> None:
        self._address = _address(url)
        self._auto_register = auto_register
        self._ids: dict[str, int] = {}
        login = {"basic.auth.user.info": f"{username}:{password}"} if username else {}
        trust = {"ssl.ca.location": ca_file} if ca_file else {}
        limits = {"timeout": TIMEOUT_S, "max.retries": RETRIES, "retries.wait.ms": FIRST_WAIT_MS}
        try:
            self._client = SchemaRegistryClient.new_client({"url": url, **limits, **login, **trust})
        except ValueError as exc:
            raise Misconfigured(f"registry.url {self._address!r} cannot be used. Give http://HOST:PORT.") from exc
        except OSError as exc:
            raise Misconfigured(
                f"registry.ca_file {ca_file!r} cannot be read ({exc.strerror}). Give a PEM file."
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def prepare(self, topic_prefix: str) -> None:
        """Register every event of every topic, or only look it up: at start, so that a mistake shows there.

        Raises Misconfigured (not compatible, not registered, not permitted) and RegistryUnavailable.
        """
        for topic, events in CARRIED.items():
            for event in events:
                self.id_of(f"{topic_prefix}{topic}", event)

    def id_of(self, topic: str, event: type[Event]) -> int:
        subject = f"{topic}-{full_name(event)}"
        if subject not in self._ids:
            text = RegisteredText(json.dumps(schema_of(event)), "AVRO")
            with self._explained(subject):
                self._ids[subject] = self._register(subject, text) if self._auto_register else self._find(subject, text)
        return self._ids[subject]

    def schema_with_id(self, schema_id: int) -> Schema:
        with self._reading(f"the id {schema_id}"):
            return _avro(self._client.get_schema(schema_id))

    def schema_with_guid(self, guid: str) -> Schema:
        with self._reading(f"the GUID {guid}"):
            return _avro(self._client.get_schema_by_guid(guid))

    def _register(self, subject: str, text: RegisteredText) -> int:
        bound = self._bind(subject)
        schema_id = self._client.register_schema(subject, text)
        if not bound:
            self._bind(subject)  # some registries know no rule for a subject without a schema
        return schema_id

    def _bind(self, subject: str) -> bool:
        """Hold a subject to our compatibility; False when the registry does not have it yet."""
        try:
            if self._level(subject) != COMPATIBILITY:
                self._client.set_config(subject, ServerConfig(compatibility=COMPATIBILITY))
        except SchemaRegistryError as exc:
            if exc.http_status_code != _NOT_FOUND:
                raise
            return False
        return True

    def _level(self, subject: str) -> ConfigCompatibilityLevel | None:
        """The subject's own level; null when it has none."""
        try:
            config = self._client.get_config(subject)
        except SchemaRegistryError as exc:
            if exc.http_status_code != _NOT_FOUND:
                raise
            return None
        return (config.compatibility or config.compatibility_level) if config else None

    def _find(self, subject: str, text: RegisteredText) -> int:
        found = self._client.lookup_schema(subject, text).schema_id
        if found is None:
            raise RegistryUnavailable(f"The registry at {self._address} named no id for {subject}. Try again.")
        return found

    @contextmanager
    def _explained(self, subject: str) -> Iterator[None]:
        """Errors about our own schemas: what the registry refuses needs a hand, what it fails at needs time."""
        try:
            yield
        except SchemaRegistryError as exc:
            if not 400 <= exc.http_status_code < 500 or exc.http_status_code in _WORTH_A_RETRY:
                raise self._unavailable(f"status {exc.http_status_code}") from exc
            raise Misconfigured(f"{self._refusal(exc.http_status_code, subject)}", subject=subject) from exc
        except (httpx.HTTPError, ValueError) as exc:
            raise self._unavailable(_reason(exc)) from exc

    def _refusal(self, status: int, subject: str) -> str:
        if status == _CONFLICT:
            return (
                f"Our schema does not fit the versions of {subject} in the registry at {self._address}. "
                "Compare it with schemas/ and make the change one that every version can read."
            )
        if status == _NOT_FOUND and not self._auto_register:
            return (
                f"The registry at {self._address} does not have {subject}. "
                "Register the file in schemas/, or set WHISPERX_REGISTRY__AUTO_REGISTER=true."
            )
        return f"The registry at {self._address} refuses {subject} (status {status}). Check registry.* and its rights."

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Errors about the schemas of others: an unknown one makes its event unreadable."""
        try:
            yield
        except SchemaRegistryError as exc:
            if exc.http_status_code == _NOT_FOUND:
                raise UnreadableEvent(
                    f"The registry at {self._address} has no schema under {what}. Send with a registered one."
                ) from exc
            raise self._unavailable(f"status {exc.http_status_code}") from exc
        except (httpx.HTTPError, ValueError) as exc:
            raise self._unavailable(_reason(exc)) from exc

    def _unavailable(self, reason: str) -> RegistryUnavailable:
        return RegistryUnavailable(f"The registry at {self._address} does not answer ({reason}). Try again.")


def _reason(exc: Exception) -> str:
    """The kind of error; of TLS what is wrong, since waiting does not mend it."""
    untrusted = "CERTIFICATE_VERIFY_FAILED" in str(exc)
    return "its certificate is not trusted, check registry.ca_file" if untrusted else type(exc).__name__


def _avro(text: RegisteredText) -> Schema:
    """The schema as JSON. What is no record at all is found when it is parsed."""
    if text.schema_type not in (None, "AVRO") or text.references:
        raise UnreadableEvent("The event's schema is not a self-contained Avro schema. Send Avro without references.")
    try:
        schema: Schema = json.loads(text.schema_str or "")
    except ValueError as exc:
        raise UnreadableEvent("The event's schema in the registry is not JSON.") from exc
    return schema


def _address(url: str) -> str:
    """Host and port, without a login that the URL may hold."""
    return urlsplit(url).netloc.rpartition("@")[2] or url.rpartition("@")[2]
