"""CloudEvents attributes around an event: `ce_*` headers in binary mode, a JSON object in structured mode.

Source: CloudEvents 1.0.2, Kafka protocol binding and JSON event format.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumer.errors import UnreadableEvent
from consumer.ports import Headers

STRUCTURED = "application/cloudevents+json"

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The attributes that we use. Source and id together name an event; one without the other names nothing."""

    type: str | None = None
    source: str | None = None
    id: str | None = None
    traceparent: str | None = None


def headers_of(
    *,
    event_id: str,
    source: str,
    event_type: str,
    time: datetime,
    subject: str,
    content_type: str,
    traceparent: str | None,
) -> Headers:
    """The headers of binary mode; empty attributes are left out."""
    texts = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": source,
        "ce_type": event_type,
        "ce_time": time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ce_subject": subject,
        "content-type": content_type,
        "traceparent": traceparent or "",
    }
    return tuple((name, text.encode()) for name, text in texts.items() if text)


def texts_of(headers: Headers) -> dict[str, str]:
    """Headers as text, names in lower case; the first of a name counts."""
    texts: dict[str, str] = {}
    for name, value in headers:
        texts.setdefault(name.lower(), (value or b"").decode(errors="replace"))
    return texts


def media_type(headers: dict[str, str]) -> str:
    """`Application/JSON; charset=UTF-8` -> `application/json`"""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def binary_envelope(headers: dict[str, str]) -> Envelope:
    trace = headers.get("traceparent") or headers.get("ce_traceparent")
    return _envelope(headers.get("ce_type"), headers.get("ce_source"), headers.get("ce_id"), trace)


def structured_envelope(outer: dict[str, Any], headers: dict[str, str]) -> Envelope:
    texts = {name: value for name, value in outer.items() if isinstance(value, str)}
    trace = headers.get("traceparent") or texts.get("traceparent")
    return _envelope(texts.get("type"), texts.get("source"), texts.get("id"), trace)


def looks_structured(fields: dict[str, Any]) -> bool:
    """Whether a JSON object is an envelope although no header says so: what a sender without headers can do."""
    return "specversion" in fields and ("data" in fields or "data_base64" in fields)


def structured_data(outer: dict[str, Any]) -> dict[str, Any] | bytes:
    """The data of an envelope: a JSON object, or bytes in a framing of their own."""
    data = outer.get("data")
    if isinstance(data, dict):
        return data
    encoded = outer.get("data_base64")
    if not isinstance(encoded, str):
        raise UnreadableEvent("The CloudEvent has no event in it. Put it under data, as a JSON object.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise UnreadableEvent("The CloudEvent's data_base64 is not Base64.") from exc


def _envelope(event_type: str | None, source: str | None, event_id: str | None, trace: str | None) -> Envelope:
    named = bool(source and event_id)
    traceparent = trace if trace and _TRACEPARENT.fullmatch(trace) else None  # W3C: a malformed one is ignored
    return Envelope(event_type, source if named else None, event_id if named else None, traceparent)
