"""Job events by an attacker: each ends in a job, a refusal or a dead letter with a code, and costs little."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer import contracts
from consumer.cloud_events import STRUCTURED
from consumer.core.identity import event_id
from consumer.core.layout import RunKeys, results_of, work_of
from consumer.errors import InvalidEvent, Rejected, UnreadableEvent
from consumer.events import (
    JOB_ID_PATTERN,
    JobControl,
    JobOptions,
    JobProgress,
    JobRequested,
    OutputFormat,
    RecordingRef,
)
from consumer.functions.intake import Intake
from consumer.ports import Headers, Received
from consumer.requests import RequestRead
from consumer.wire import MAX_VALUE_BYTES, SINGLE_OBJECT, Codec
from tests.avro_numbers import varint
from tests.strategies import job_requests

CODEC = Codec(None, "tests")
RECORDING = '"recording": {"bucket": "calls", "key": "a.wav"}'
MOST_MEMORY_BYTES = 24 << 20
"""What reading the largest event may take: a hundred times its bytes."""


def received(value: bytes, headers: Headers = ()) -> Received:
    return Received("jobs", 3, 42, None, value, headers, timestamp_ms=1_700_000_000_000)


def read(value: bytes, headers: Headers = ()) -> RequestRead:
    return CODEC.read_request(received(value, headers))


def read_json(more: str) -> RequestRead:
    return read(f"{{{RECORDING}, {more}}}".encode())


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY_BYTES
    finally:
        tracemalloc.stop()


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OUT_OF_BOUNDS = {
    "options.model": ['"x"' .replace("x", "m" * 257)],
    "options.language": ['"klingon"', '"en\\n"', '""', "7", '"EN"'],
    "options.task": ['"summarise"', '""'],
    "options.hotwords": [json.dumps(["x" * 257]), json.dumps(["x"] * 101), json.dumps(["x" * 250] * 5), '"x"', "[7]"],
    "options.initial_prompt": [json.dumps("x" * 1001), "7"],
    "options.track": ["-1", "256", "0.5", '"second"', "9" * 30],
    "options.beam_size": ["0", "11", "-1", "5.5", '"many"', "9" * 30, "1e400"],
    "options.vad.policy": ['"none"'],
    "options.vad.onset": ["0", "1", "-0.5", "1e400", "-1e400", '"high"'],
    "options.vad.offset": ["0", "1", "2"],
    "options.vad.max_window_s": ["0", "31", "1e400", "1e-9"],
    "options.align.enabled": ['"perhaps"', "2"],
    "options.align.on_missing_aligner": ['"guess"'],
    "options.diarize.num_speakers": ["0", "51", "-1", "1e9", "9" * 30],
    "options.diarize.min_speakers": ["0", "51"],
    "options.diarize.max_speakers": ["0", "51"],
    "options.output_formats": ['["exe"]', '["../x"]', '"srt"', "[[]]"],
    "options.subtitles.max_line_width": ["9", "201", "9e99"],
    "options.subtitles.max_line_count": ["0", "11"],
    "options.subtitles.max_cue_s": ["0", "31", "1e400"],
    "options.retention_hours": ["0", "87601", "-1", "1e300"],
    "options.on_chunk_failure": ['"ignore"'],
    "priority": ['"urgent"', "1", "null"],
    "deadline_at": ['"soon"', "1e308", "-1e15", '"9999-12-31T23:59:59-14:00"', "[]"],
    "metadata": [json.dumps({"k": "x" * 1024}), '{"k": 7}', '{"k": null}', "[]", json.dumps({"x" * 1025: ""})],
}  # fmt: skip
"""By place in the request: values that nobody may have."""


def nested(place: str, value: str) -> str:
    """nested("options.vad.onset", "2") -> '"options": {"vad": {"onset": 2}}'"""
    first, *inner = place.split(".")
    for name in reversed(inner):
        value = f'{{"{name}": {value}}}'
    return f'"{first}": {value}'


def test_every_option_has_its_values_in_the_table() -> None:
    def places(model: Any, prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            inner = getattr(field.annotation, "model_fields", None)
            yield from places(field.annotation, f"{prefix}.{name}") if inner else [f"{prefix}.{name}"]

    def is_flag(place: str) -> bool:
        return read_json(nested(place, "true")).refusal is None and read_json(nested(place, "7")).refusal is not None

    assert {place for place in places(JobOptions, "options") if not is_flag(place)} <= set(OUT_OF_BOUNDS)


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in OUT_OF_BOUNDS.items() for value in values]
)
def test_a_value_outside_its_bounds_fails_the_job_with_a_code(place: str, value: str) -> None:
    found = read_json(nested(place, value))
    assert found.refusal is not None
    assert found.refusal.code == "OPTION_INVALID"
    assert place.rpartition(".")[2] in found.refusal.message
    assert len(found.refusal.message) < 1_000
    assert found.request == JobRequested(recording=RecordingRef(bucket="calls", key="a.wav"))


@pytest.mark.parametrize(
    "more",
    [
        '"options": {"vad": {"onset": NaN}}',
        '"options": {"vad": {"onset": Infinity}}',
        '"options": {"vad": {"onset": -Infinity}}',
        '"options": {"beam_size": ' + "9" * 5_000 + "}",
        '"options": ' + "[" * 100_000 + "]" * 100_000,
        '"options": ' + '{"vad":' * 20_000 + "1" + "}" * 20_000,
        '"metadata": {"k": "\\ud800"}',
        '"options": {"initial_prompt": "\\udfff"}',
        '"metadata": {"k": "\\ud800\\u0041"}',
        '"metadata": {"k": "' + "\x00" + '"}',
        '"force": true} {"force": false',
        '"force": tru',
    ],
    ids=lambda more: str(more)[:40],
)
def test_what_is_no_json_is_unreadable(more: str) -> None:
    with little_memory(), pytest.raises(UnreadableEvent, match="Not JSON"):
        read_json(more)


@pytest.mark.parametrize(
    "value",
    [b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[]", b'"x"', b"7", b"", b"\x00", b"{" + b" " * MAX_VALUE_BYTES + b"}"],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_no_event_is_unreadable(value: bytes) -> None:
    with little_memory(), pytest.raises(UnreadableEvent):
        read(value)


LARGE = {
    "10,000 unknown options": '"options": {' + ",".join(f'"k{n}": 1' for n in range(10_000)) + "}",
    "50,000 hotwords": '"options": {"hotwords": [' + ",".join(['"a"'] * 50_000) + "]}",
    "15,000 empty metadata": '"metadata": {' + ",".join(f'"k{n}": ""' for n in range(15_000)) + "}",
    "a name of 200,000 characters": '"metadata": {"' + "a" * 200_000 + '": ""}',
    "an option of 200,000 characters": '"options": {"' + "a" * 200_000 + '": 1}',
    "a prompt of 200,000 characters": '"options": {"initial_prompt": "' + "a" * 200_000 + '"}',
    "50,000 formats that do not exist": '"options": {"output_formats": [' + ",".join(['"a"'] * 50_000) + "]}",
    "15,000 numbers as metadata": '"metadata": {' + ",".join(f'"k{n}": 1' for n in range(15_000)) + "}",
    "50,000 numbers as hotwords": '"options": {"hotwords": [' + ",".join(["1"] * 50_000) + "]}",
    "a list 100 deep": '"options": ' + "[" * 100 + "]" * 100,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_event_costs_little_and_gets_a_short_answer(name: str) -> None:
    with little_memory():
        found = read_json(LARGE[name])
    assert found.refusal is not None
    assert found.refusal.code in ("OPTION_INVALID", "OPTION_UNKNOWN")
    assert len(found.refusal.message) < 4_000
    assert len(found.request.model_dump_json()) < 2_000


def test_a_format_that_is_asked_for_forty_thousand_times_is_asked_for_once() -> None:
    """It would be carried through every event and state of the job."""
    found = read_json('"options": {"output_formats": [' + ",".join(['"srt"', '"vtt"'] * 15_000) + "]}")
    assert found.refusal is None
    assert found.request.options.output_formats == (OutputFormat.SRT, OutputFormat.VTT)


def test_of_a_name_that_comes_twice_the_last_value_counts_and_is_judged() -> None:
    """As in every JSON parser; nobody can show one value to us and another one to the functions behind us."""
    assert read_json('"force": true, "force": false').request.force is False
    assert read_json('"recording": {"bucket": "other", "key": "b"}').request.recording.bucket == "other"
    with pytest.raises(InvalidEvent):
        read_json('"recording": {"bucket": "calls", "key": "../b"}')


@pytest.mark.parametrize("key", ["../x", "a//b", "a\nb", "https://s/b/k?X-Amz-Signature=5ecre7", "\u2028"])
def test_a_recording_whose_name_is_dangerous_is_no_job_and_is_not_repeated(key: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        read(json.dumps({"recording": {"bucket": "calls", "key": key}}).encode())
    assert "recording.key" in caught.value.message
    assert "5ecre7" not in caught.value.message
    assert caught.value.message.isprintable()


# ── Avro ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def avro(request: JobRequested) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, contracts.parsed_schema_of(JobRequested), contracts.to_avro(request))
    return body.getvalue()


MARK = SINGLE_OBJECT + contracts.fingerprint(contracts.schema_of(JobRequested))
ODD_NUMBERS = [-1, -2, -(1 << 40), -(1 << 62), 0, 1, 255, 1 << 31, 1 << 40, 1 << 62]
places_to_spoil = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.sampled_from(ODD_NUMBERS), st.integers(0, 2)), min_size=1, max_size=4
)


@given(job_requests(), places_to_spoil)
def test_counts_and_lengths_that_lie_cost_no_memory(request: JobRequested, spoiled: list[tuple[int, int, int]]) -> None:
    """Lengths below zero, strings of a terabyte, blocks of 2^62 items."""
    body = bytearray(avro(request))
    for at, number, replaced in spoiled:
        at %= len(body)
        body[at : at + replaced] = varint(number)
    with little_memory(), suppress(UnreadableEvent, InvalidEvent):
        read(MARK + bytes(body))


@pytest.mark.parametrize("count", [1 << 31, 1 << 62, -(1 << 62)])
def test_a_list_or_a_map_of_any_announced_length_ends_with_its_bytes(count: int) -> None:
    whole = avro(
        JobRequested(recording=RecordingRef(bucket="calls", key="a"), options=JobOptions(hotwords=("hot-word",)))
    )
    at = whole.index(varint(1) + varint(8) + b"hot-word")
    size = varint(16) if count < 0 else b""
    with little_memory(), pytest.raises(Rejected):
        read(MARK + whole[:at] + varint(count) + size + whole[at + 1 :])


@pytest.mark.parametrize("body", [b"\xff" * 200, b"\xff" * 200_000, b"\x80" * 200_000], ids=["200", "200,000", "zeros"])
def test_a_number_without_an_end_is_unreadable(body: bytes) -> None:
    with little_memory(), pytest.raises(UnreadableEvent):
        read(MARK + body)


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

PATHS = [
    "../../x",
    "a/b",
    ".",
    "..",
    "/",
    "",
    "a\n",
    "a\r\nX: y",
    "\x1b[2J",
    "a b",
    "%2e%2e",
    "é",
    "a" * 129,
    "-a",
    "a\x00",
]
hostile_ids = st.one_of(st.sampled_from(PATHS), st.text(max_size=300))


def job_id_of(document: dict[str, object], headers: Headers = ()) -> str | None:
    """The id that intake gives; None where it is no job."""
    try:
        record = received(json.dumps({"recording": {"bucket": "calls", "key": "a"}} | document).encode(), headers)
        return Intake().job(record, CODEC.read_request(record)).job_id
    except Rejected:
        return None


def assert_is_one_part_of_a_path(job_id: str) -> None:
    keys = RunKeys(job_id, 1)
    for path in (keys.manifest, keys.chunk_audio(0), keys.checkpoint(7), keys.artifact("srt"), keys.plan_shape):
        parts = path.split("/")
        assert parts[1] == job_id
        assert not {"", ".", ".."} & set(parts)
    assert work_of(job_id).count("/") == results_of(job_id).count("/") == 2
    assert job_id.isascii()
    assert job_id.isprintable()


@given(hostile_ids)
def test_an_id_is_one_part_of_a_path_whichever_way_it_comes(text: str) -> None:
    encodable = text.encode("utf-8", "replace")
    structured: dict[str, object] = {
        "specversion": "1.0",
        "source": text,
        "id": text,
        "data": {"recording": {"bucket": "calls", "key": "a"}},
    }
    ways = [
        job_id_of({"job_id": text}),
        job_id_of({"idempotency_key": text}),
        job_id_of({}, (("ce_id", encodable), ("ce_source", encodable))),
        job_id_of({}, (("ce_subject", encodable), ("traceparent", encodable))),
        job_id_of(structured, (("content-type", STRUCTURED.encode()),)),
    ]
    for job_id in filter(None, ways):
        assert_is_one_part_of_a_path(job_id)
    assert ways[3] is not None


@pytest.mark.parametrize("job_id", PATHS)
@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_a_control_event_for_such_an_id_is_invalid(job_id: str, action: str) -> None:
    with pytest.raises(InvalidEvent):
        CODEC.decode(received(json.dumps({"job_id": job_id, "action": action}).encode()), (JobControl,))


@given(st.from_regex(JOB_ID_PATTERN.removesuffix("$") + r"\Z", fullmatch=True), hostile_ids)
def test_what_a_sender_writes_cannot_add_a_header(job_id: str, text: str) -> None:
    """The headers of our events are made of our own words, ids and numbers."""
    progress = JobProgress(
        job_id=job_id, run=1, sequence=1, stage="queued", fraction=0, chunks_done=0, emitted_at="2026-01-01T00:00:00Z"
    )
    record = received(b"{" + RECORDING.encode() + b"}", (("traceparent", text.encode("utf-8", "replace")),))
    trace = CODEC.read_request(record).traceparent
    _, headers = CODEC.encode(
        progress, "progress", event_id=event_id(progress), time=progress.emitted_at, traceparent=trace
    )
    assert [name for name, _ in headers] == [
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type",
    ]  # fmt: skip
    assert all(value.decode("ascii").isprintable() for _, value in headers if value is not None)


def test_the_numbers_of_the_table_are_what_they_say() -> None:
    assert math.isinf(float("1e400"))
    assert varint(-1) == b"\x01"
    assert varint(64) == b"\x80\x01"
