"""Spoiled job events: requests and controls in every framing, their bytes, fields and headers changed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from random import Random
from typing import Any, Final

import fastavro

from consumer import contracts
from consumer.cloud_events import STRUCTURED
from consumer.events import Event, JobControl, JobRequested
from consumer.ports import Headers
from consumer.wire import CONFLUENT, CONFLUENT_GUID, CONTENT_TYPE, MAX_VALUE_BYTES, SCHEMA_HEADER, SINGLE_OBJECT
from tests import media
from tests.avro_numbers import varint
from tests.fuzz.case import Case
from tests.fuzz.spoiling import EVENT_WAYS, spoiled

Fields = dict[str, Any]
RECORDING: Final = {"bucket": "recordings", "key": "a"}
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

REQUESTS: Final[tuple[Fields, ...]] = (
    {"recording": RECORDING},
    {"recording": RECORDING | {"key": "folder/not there.wav", "etag": "0" * 32}},
    {"recording": RECORDING | {"version_id": "1"}, "job_id": "job-1", "force": True},
    {"recording": {"bucket": "work", "key": "jobs/job-1/1/chunks/0.pcm"}},
    {"recording": {"bucket": "elsewhere", "key": "a"}, "idempotency_key": "order 7 / part 3"},
    {"recording": RECORDING, "priority": "low", "deadline_at": "2099-01-01T00:00:00Z", "submitted_by": "a sender"},
    {"recording": RECORDING, "deadline_at": "2001-01-01T00:00:00Z", "metadata": {"call": "17", "agent": "Zoë"}},
    {"recording": RECORDING, "job_id": "job-2", "options": {"language": "en", "model": "tiny", "task": "translate"}},
    {"recording": RECORDING, "options": {"hotwords": ["Grafana", "MinIO"], "initial_prompt": "A call"}},
    {"recording": RECORDING, "options": {"multichannel": True, "track": 0}},
    {"recording": RECORDING, "options": {"diarize": {"min_speakers": 1, "max_speakers": 4, "embeddings": True}}},
    {"recording": RECORDING, "options": {"vad": {"policy": "silero", "onset": 0.4, "max_window_s": 12.5}}},
    {"recording": RECORDING, "options": {"output_formats": ["json", "srt", "vtt"], "align": {"enabled": False}}},
    {"recording": RECORDING, "options": {"delete_recording": True}},
)  # fmt: skip
CONTROLS: Final[tuple[Fields, ...]] = (
    {"job_id": "job-1", "action": "cancel", "reason": "no longer wanted", "requested_by": "somebody"},
    {"job_id": "job-2", "action": "retry", "run": 1},
    {"job_id": "job-1", "action": "retry"},
)

ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 256, 1 << 31, 1 << 63, -(1 << 70), 10**400, 0.5, -0.0, 1e-300, 1e308, float("inf"),
    float("nan"), "", "x", "x" * 300, "x" * 70_000, "../../etc/passwd", "/etc/passwd", "file:///etc/passwd",
    "http://127.0.0.1:9/", "a\r\nX-Header: y", "\x00", "\x1b[2J", "é" * 200, "\ud800", "NaN", "%n%s", "{}", "$(id)",
    "' OR 1=1 --", [], {}, [[]], [None] * 1_000, ["x"] * 200, {"": ""}, {"x" * 500: "y"}, "2026-13-45", "9" * 5_000,
    "arn:aws:s3:::x", "klingon", "large-v3", "tiny", "low", "cancel", "retry", "json",
)  # fmt: skip
ODD_NUMBERS: Final = (-1, -2, 0, 1, 63, 64, 255, 1 << 16, 1 << 31, 1 << 40, 1 << 62, -(1 << 62), -(1 << 63))
HEADER_NAMES: Final = (
    *("ce_id", "ce_source", "ce_type", "ce_specversion", "ce_subject", "ce_time", "content-type", "traceparent"),
    *(SCHEMA_HEADER, "CE_ID", "tracestate", "x", ""),
)


def event_case(seed: int, number: int) -> Case:
    """The same for the same seed and number."""
    r = Random(f"events/{seed}/{number}")
    model, fields, topic = _drawn(r)
    fields, changes = _changed(r, fields)
    framing = r.choices(tuple(FRAMINGS), (8, 6, 1, 1, 4, 4))[0]
    value, headers = FRAMINGS[framing](model, fields)
    ways: tuple[str, ...] = ()
    if r.random() < 0.35 or not changes:
        _, other, _ = _drawn(r)
        value, ways = spoiled(r, value, [_as_json(JobRequested, other)[0]], (*EVENT_WAYS, count_wrongly))
    if r.random() < 0.15:
        headers, ways = _with_odd_headers(r, headers), (*ways, "headers")
    if r.random() < 0.02:
        value, ways = value + b" " * MAX_VALUE_BYTES, (*ways, "padding")
    timestamp_ms = r.choice((0, -1, 1 << 62, 253_402_300_800_000, r.getrandbits(40))) if r.random() < 0.1 else None
    key = r.choice((None, None, b"", b"job-1", r.randbytes(20)))
    return Case((framing, *changes, *ways), _recording(), value, headers, key, topic, timestamp_ms)


def _drawn(r: Random) -> tuple[type[Event], Fields, str]:
    if r.random() < 0.15:
        return JobControl, r.choice(CONTROLS), "control"
    return JobRequested, r.choice(REQUESTS), "jobs" if r.random() < 0.97 else "control"


@cache
def _recording() -> bytes:
    return media.wav(media.buzz([(0.1, 0.9)], 1.0))


# ── fields ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _changed(r: Random, fields: Fields) -> tuple[Fields, tuple[str, ...]]:
    """None to three of the fields are otherwise, and what was done."""
    fields = json.loads(json.dumps(fields))
    changes = [r.choice(FIELD_CHANGES) for _ in range(r.choice((0, 1, 1, 1, 2, 3)))]
    for change in changes:
        inside = r.choice(_objects(fields))
        change(r, inside)
    return fields, tuple(change.__name__ for change in changes)


def _objects(fields: Fields) -> list[Fields]:
    """It, and every object in it."""
    inner = [one for value in fields.values() if isinstance(value, dict) for one in _objects(value)]
    return [fields, *inner]


def odd_value(r: Random, fields: Fields) -> None:
    fields[r.choice(list(fields) or ["x"])] = deepcopy(r.choice(ODD_VALUES))


def missing(r: Random, fields: Fields) -> None:
    fields.pop(r.choice(list(fields) or ["x"]), None)


def renamed(r: Random, fields: Fields) -> None:
    if fields:
        name = r.choice(list(fields))
        fields[r.choice((name.upper(), name + "s", "", name[:-1], "__class__"))] = fields.pop(name)


def added(r: Random, fields: Fields) -> None:
    known = [name for request in (*REQUESTS, *CONTROLS) for one in _objects(request) for name in one]
    fields[r.choice((*known, "unknown", "x" * 200))] = deepcopy(r.choice((*ODD_VALUES, RECORDING)))


def deep(r: Random, fields: Fields) -> None:
    value: Any = "x"
    for _ in range(r.choice((10, 70, 900))):  # Python's own writer stops at a thousand
        value = [value] if r.random() < 0.5 else {"x": value}
    fields[r.choice(list(fields) or ["x"])] = value


def bloated(r: Random, fields: Fields) -> None:
    fields[r.choice(list(fields) or ["x"])] = {f"name {number}": r.choice(ODD_VALUES[:12]) for number in range(3_000)}


FIELD_CHANGES: Final[tuple[Callable[[Random, Fields], None], ...]] = (
    odd_value, odd_value, odd_value, missing, renamed, added, added, deep, bloated,
)  # fmt: skip


# ── framings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _as_json(model: type[Event], fields: Fields) -> tuple[bytes, Headers]:
    return json.dumps(fields).encode(), ()


def _as_avro(model: type[Event], fields: Fields) -> tuple[bytes, Headers]:
    """With the mark of our schema. What Avro cannot hold is left out."""
    return SINGLE_OBJECT + contracts.fingerprint(contracts.schema_of(model)) + _body(model, fields), ()


def _as_confluent(model: type[Event], fields: Fields) -> tuple[bytes, Headers]:
    return CONFLUENT + (7).to_bytes(4, "big") + _body(model, fields), ()


def _as_confluent_by_header(model: type[Event], fields: Fields) -> tuple[bytes, Headers]:
    return _body(model, fields), ((SCHEMA_HEADER, CONFLUENT_GUID + bytes(16)),)


def _as_structured(model: type[Event], fields: Fields) -> tuple[bytes, Headers]:
    outer = {"specversion": "1.0", "id": "17", "source": "/calls", "type": contracts.full_name(model), "data": fields}
    return json.dumps(outer | {"traceparent": TRACE}).encode(), (("content-type", STRUCTURED.encode()),)


def _as_binary(model: type[Event], fields: Fields) -> tuple[bytes, Headers]:
    names = {"ce_specversion": "1.0", "ce_id": "17", "ce_source": "/calls", "ce_type": contracts.full_name(model)}
    headers = names | {"content-type": CONTENT_TYPE, "traceparent": TRACE}
    return _as_avro(model, fields)[0], tuple((name, text.encode()) for name, text in headers.items())


FRAMINGS: Final[dict[str, Callable[[type[Event], Fields], tuple[bytes, Headers]]]] = {
    "JSON": _as_json,
    "Avro": _as_avro,
    "Confluent": _as_confluent,
    "Confluent by header": _as_confluent_by_header,
    "CloudEvents, structured": _as_structured,
    "CloudEvents, binary": _as_binary,
}


def _body(model: type[Event], fields: Fields) -> bytes:
    """Without those of the fields that are wrong."""
    least: Fields = {"recording": RECORDING} if model is JobRequested else {"job_id": "job-1", "action": "cancel"}
    body = _written(model, least)
    for name, value in fields.items():
        try:
            body = _written(model, least | {name: value})
        except ValueError:
            continue
        least[name] = value
    return body


def _written(model: type[Event], fields: Fields) -> bytes:
    """Raises ValueError for what is no such event, or has no bytes."""
    body = io.BytesIO()
    event = contracts.to_avro(model.model_validate(fields))
    fastavro.schemaless_writer(body, contracts.parsed_schema_of(model), event)
    return body.getvalue()


def count_wrongly(r: Random, data: bytes, others: object) -> bytes:
    """A number of Avro, which may be a length or a count, says something else."""
    at = r.randrange(len(data) + 1)
    return data[:at] + varint(r.choice(ODD_NUMBERS)) + data[at + r.randrange(3) :]


def _with_odd_headers(r: Random, headers: Headers) -> Headers:
    changed = list(headers)
    for _ in range(r.choice((1, 1, 3, 200))):
        value = r.choice(
            (None, b"", b"\xff\xfe", b"x" * 3_000, b"1\r\nX: y", r.randbytes(16), STRUCTURED.encode(), b"0")
        )
        changed.insert(r.randrange(len(changed) + 1), (r.choice(HEADER_NAMES), value))
    if r.random() < 0.3:
        r.shuffle(changed)
    return tuple(changed)
