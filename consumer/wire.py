"""Events to bytes and back: Avro in two framings, plain JSON, CloudEvents in both modes.

    C3 01 | 8 bytes CRC-64-AVRO, little endian | Avro body     single-object encoding: written without a registry
    00    | 4 bytes schema id, big endian      | Avro body     Confluent: written with a registry
    {...}                                                      JSON: what others may send as JobRequested, JobControl

The framing is told by the first bytes, so a topic may hold all of them. An event of a newer version is read with our
schema: its added fields are dropped, its new enum symbols become `unknown`.

Sources: Avro 1.12 specification, "Single-object encoding"; Confluent, "Wire format".
"""

from __future__ import annotations

import io
import json
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Protocol, TypeVar

import fastavro
import pydantic_core
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException

from consumer import cloud_events, contracts
from consumer.cloud_events import Envelope
from consumer.contracts import Schema
from consumer.errors import InvalidEvent, UnreadableEvent
from consumer.events import Event, JobControl, JobRequested
from consumer.ports import Headers, Received
from consumer.requests import RequestRead, excerpt, read_fields
from consumer.writers import dropped_fields, record_field, require_finite

MAX_VALUE_BYTES = 256 * 1024
"""What is larger belongs into the object store."""

CONTENT_TYPE = "application/avro"
SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
CONFLUENT_GUID = b"\x01"
SCHEMA_HEADER = "__value_schema_id"
"""Confluent's newer framing: the schema in this header (01 and a 16-byte GUID, or 00 and a 4-byte id), a bare body."""

_JSON_EVENTS: tuple[type[Event], ...] = (JobRequested, JobControl)
_ALIEN_BYTES = (ValueError, LookupError, TypeError, ArithmeticError, EOFError, AttributeError, struct.error)
"""What fastavro raises on bytes, or on a registered schema, that are not what they claim to be."""

E = TypeVar("E", bound=Event)


class SchemaRegistry(Protocol):
    """What the wire asks of a registry. Raises UnreadableEvent for what it does not have, and RegistryUnavailable."""

    def id_of(self, topic: str, event: type[Event]) -> int:
        """Id of our schema of this event on this topic."""
        ...

    def schema_with_id(self, schema_id: int) -> Schema: ...

    def schema_with_guid(self, guid: str) -> Schema: ...


@dataclass(frozen=True, slots=True)
class _Json:
    """A JSON object; `name` is the event's name where its CloudEvents type says it."""

    fields: dict[str, Any]
    name: str | None


@dataclass(frozen=True, slots=True)
class _Avro:
    """A bare Avro body and the parsed schema that it was written with."""

    writer: Schema
    body: bytes

    @property
    def name(self) -> str:
        return str(self.writer["name"]).rpartition(".")[2]


class Codec:
    """Encodes our events and decodes everyone's. `source` is who we are to readers: `ce_source`."""

    def __init__(self, registry: SchemaRegistry | None, source: str) -> None:
        self._registry = registry
        self._source = source
        self._registered: dict[int | str, Schema] = {}

    def encode(
        self, event: Event, topic: str, *, event_id: str, time: datetime, traceparent: str | None = None
    ) -> tuple[bytes, Headers]:
        """The record's value and headers. `event_id` is the same whenever the same event is sent again."""
        body = io.BytesIO()
        body.write(self._frame(topic, type(event)))
        fastavro.schemaless_writer(body, contracts.parsed_schema_of(type(event)), contracts.to_avro(event))
        headers = cloud_events.headers_of(
            event_id=event_id,
            source=self._source,
            event_type=contracts.full_name(type(event)),
            time=time,
            subject=str(getattr(event, "job_id", None) or ""),
            content_type=CONTENT_TYPE,
            traceparent=traceparent,
        )
        return body.getvalue(), headers

    def decode(self, received: Received, expected: tuple[type[E], ...]) -> E:
        """The event in a record, one of those that its topic carries.

        Raises UnreadableEvent (no framing that we know), InvalidEvent (another event, or fields that are missing or
        wrong) and RegistryUnavailable.
        """
        try:
            content, _ = self._open(received)
            model = _model(content, expected)
            return contracts.from_avro(model, _fields(content, model))
        except (UnreadableEvent, InvalidEvent) as exc:
            raise _placed(exc, received) from exc

    def read_request(self, received: Received) -> RequestRead:
        """The job request in a record, with the reason to refuse it where there is one. Raises as `decode` does."""
        try:
            content, envelope = self._open(received)
            model = _model(content, (JobRequested,))
            request, refusal = read_fields(_fields(content, model), _dropped_options(content))
        except (UnreadableEvent, InvalidEvent) as exc:
            raise _placed(exc, received) from exc
        return RequestRead(request, refusal, envelope.source, envelope.id, envelope.traceparent)

    def _frame(self, topic: str, event: type[Event]) -> bytes:
        if self._registry is None:
            return SINGLE_OBJECT + _fingerprint(event)
        return CONFLUENT + struct.pack(">I", self._registry.id_of(topic, event))

    def _open(self, received: Received) -> tuple[_Json | _Avro, Envelope]:
        """The content of a record without its framing, and what came around it."""
        value, headers = _bounded(received.value), cloud_events.texts_of(received.headers)
        media_type = cloud_events.media_type(headers)
        if media_type == cloud_events.STRUCTURED:
            return self._structured(_json_object(value), headers)
        if media_type.startswith("application/cloudevents"):
            raise UnreadableEvent(f"{excerpt(media_type)} is not read here. Send one event per record, in JSON.")
        envelope = cloud_events.binary_envelope(headers)
        schema_header = next((data for name, data in received.headers if name == SCHEMA_HEADER), None)
        if schema_header:
            return _Avro(self._writer(schema_header), value), envelope
        content = self._sniffed(value, envelope)
        if isinstance(content, _Json) and cloud_events.looks_structured(content.fields):
            return self._structured(content.fields, headers)
        return content, envelope

    def _structured(self, outer: dict[str, Any], headers: dict[str, str]) -> tuple[_Json | _Avro, Envelope]:
        envelope = cloud_events.structured_envelope(outer, headers)
        data = cloud_events.structured_data(outer)
        return (self._sniffed(data, envelope) if isinstance(data, bytes) else _json(data, envelope)), envelope

    def _sniffed(self, value: bytes, envelope: Envelope) -> _Json | _Avro:
        """The framing by its first bytes."""
        if value.startswith(SINGLE_OBJECT):
            return _Avro(_shipped_with(value[2:10]), value[10:])
        if value.startswith(CONFLUENT):
            return _Avro(self._writer(value[:5]), value[5:])
        if value.lstrip(b" \t\r\n").startswith(b"{"):
            return _json(_json_object(value), envelope)
        raise UnreadableEvent(f"Neither Avro nor a JSON object: it begins with {excerpt(value[:12])}.")

    def _writer(self, frame: bytes) -> Schema:
        """The writer's schema by its name in the registry: 00 and a 4-byte id, or 01 and a 16-byte GUID."""
        registry = self._registry
        if registry is None:
            raise UnreadableEvent(
                "The event names a schema in a registry, and no registry is configured here. "
                "Set WHISPERX_REGISTRY__URL, or send JSON or Avro single-object encoding."
            )
        if frame.startswith(CONFLUENT) and len(frame) == 5:
            number = int.from_bytes(frame[1:], "big")
            return self._remembered(number, lambda: registry.schema_with_id(number))
        if frame.startswith(CONFLUENT_GUID) and len(frame) == 17:
            guid = str(uuid.UUID(bytes=frame[1:]))
            return self._remembered(guid, lambda: registry.schema_with_guid(guid))
        raise UnreadableEvent(f"{excerpt(frame[:17])} names no schema. Send 00 and a 4-byte schema id.")

    def _remembered(self, name: int | str, fetch: Callable[[], Schema]) -> Schema:
        if name not in self._registered:
            self._registered[name] = _parsed_writer(fetch(), name)
        return self._registered[name]


# ── schemas ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def _fingerprint(event: type[Event]) -> bytes:
    return contracts.fingerprint(contracts.schema_of(event))


@cache
def _shipped() -> dict[bytes, Schema]:
    """Parsed schemas by fingerprint: ours, and the earlier versions of them in `schemas/previous`."""
    ours = {_fingerprint(event): contracts.parsed_schema_of(event) for event in contracts.EVENTS}
    return _schemas_in(resources.files("schemas") / "previous") | ours


def _schemas_in(folder: Traversable) -> dict[bytes, Schema]:
    """Parsed schemas of a folder by fingerprint; none when there is no such folder."""
    files = [file for file in folder.iterdir() if file.name.endswith(".avsc")] if folder.is_dir() else []
    parsed = [contracts.parse(json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return {contracts.fingerprint(schema): schema for schema in parsed}


def _shipped_with(mark: bytes) -> Schema:
    writer = _shipped().get(mark)
    if writer is None:
        raise UnreadableEvent(
            f"No schema that this version ships has the fingerprint {mark.hex()}. "
            "Update the readers before the writers, or send through a schema registry."
        )
    return writer


def _parsed_writer(schema: Schema, name: int | str) -> Schema:
    """A registered schema, ready to read with; the very object of ours where it is ours."""
    try:
        parsed = contracts.parse(schema)
        require_finite(parsed)
        return _shipped().get(contracts.fingerprint(parsed), parsed)
    except (SchemaParseException, RecursionError, *_ALIEN_BYTES) as exc:
        raise UnreadableEvent(f"Schema {name} of the registry cannot be used: {str(exc)[:120]}.") from exc


# ── contents ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _bounded(value: bytes | None) -> bytes:
    if not value:
        raise UnreadableEvent("The record has no value. Send the event as its value.")
    if len(value) > MAX_VALUE_BYTES:
        raise UnreadableEvent(f"The event has {len(value)} bytes; {MAX_VALUE_BYTES} are the most. Send references.")
    return value


def _json(fields: dict[str, Any], envelope: Envelope) -> _Json:
    namespace, _, name = (envelope.type or "").rpartition(".")
    return _Json(fields, name if namespace == contracts.NAMESPACE else None)


def _json_object(value: bytes) -> dict[str, Any]:
    try:
        found = pydantic_core.from_json(value, allow_inf_nan=False)  # bounded in depth, unlike the standard library's
    except ValueError as exc:
        raise UnreadableEvent(f"Not JSON: {str(exc)[:120]}; it begins with {excerpt(value[:12])}.") from exc
    if not isinstance(found, dict):
        raise UnreadableEvent("JSON, but not an object.")
    return found


def _model(content: _Json | _Avro, expected: tuple[type[E], ...]) -> type[E]:
    """Which of the expected events it is."""
    if isinstance(content, _Json):
        expected = tuple(event for event in expected if event in _JSON_EVENTS)
        if not expected:
            raise UnreadableEvent("JSON is read for job requests and job controls only. Send Avro.")
        if content.name is None and len(expected) == 1:
            return expected[0]
    for event in expected:
        if event.__name__ == content.name:
            return event
    names = " or ".join(event.__name__ for event in expected)
    raise InvalidEvent(f"Expected {names}, not {excerpt(content.name)}. Send each event to its own topic.")


def _fields(content: _Json | _Avro, model: type[Event]) -> dict[str, Any]:
    return content.fields if isinstance(content, _Json) else _read_avro(content, contracts.parsed_schema_of(model))


def _read_avro(content: _Avro, ours: Schema | None) -> dict[str, Any]:
    """The fields as our schema has them, or as the writer's has them where `ours` is None."""
    stream = io.BytesIO(content.body)
    reader = None if ours is content.writer else ours
    try:
        read: Any = fastavro.schemaless_reader(stream, content.writer, reader)
    except SchemaResolutionError as exc:
        raise InvalidEvent(f"Its schema does not fit {content.name}: {str(exc)[:120]}.") from exc
    except _ALIEN_BYTES as exc:
        raise UnreadableEvent(f"Its bytes are not those of a {content.name}: {type(exc).__name__}.") from exc
    if stream.tell() != len(content.body):
        raise UnreadableEvent(f"{len(content.body) - stream.tell()} bytes follow after the {content.name}.")
    fields: dict[str, Any] = read  # a record, because the writer's schema is one
    return fields


def _dropped_options(content: _Json | _Avro) -> tuple[str, ...]:
    """Options of a newer sender that we do not know: dropped by reading, so they are refused by name."""
    if isinstance(content, _Json):
        return ()
    theirs = record_field(content.writer, "options")
    ours = record_field(contracts.parsed_schema_of(JobRequested), "options")
    if theirs is None or ours is None or content.writer is contracts.parsed_schema_of(JobRequested):
        return ()
    values = _read_avro(content, None).get("options")
    return tuple(dropped_fields(theirs, ours, values, "options")) if isinstance(values, dict) else ()


def _placed(error: UnreadableEvent | InvalidEvent, received: Received) -> UnreadableEvent | InvalidEvent:
    """The same error with the position of the record in it."""
    position = f"{received.topic}[{received.partition}]@{received.offset}"
    return type(error)(f"{position}: {error.message}", position=position, **error.facts)
