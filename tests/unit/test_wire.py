"""What goes onto Kafka and what comes off it, in every framing, from friends and strangers."""

from __future__ import annotations

import base64
import copy
import io
import json
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer import contracts, wire
from consumer.contracts import EVENTS, Schema, schema_of
from consumer.errors import InvalidEvent, RegistryUnavailable, UnreadableEvent
from consumer.events import AuditRecorded, Event, JobControl, JobOptions, JobProgress, JobRequested, Priority
from consumer.ports import Headers, Received
from consumer.wire import MAX_VALUE_BYTES, Codec
from consumer.work import CleanupWork, JobReceived
from tests.strategies import events, job_controls, job_requests

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = {"recording": {"bucket": "calls", "key": "a.wav"}}
CANCEL = JobControl(job_id="job-1", action="cancel")


class FakeRegistry:
    """Schemas by id and by GUID, as a registry keeps them; unreachable when told so."""

    def __init__(self, *foreign: Schema) -> None:
        self.schemas = [schema_of(event) for event in EVENTS] + list(foreign)
        self.asked = 0
        self.away = False

    def id_of(self, topic: str, event: type[Event]) -> int:
        return self.schemas.index(schema_of(event))

    def schema_with_id(self, schema_id: int) -> Schema:
        self.asked += 1
        if self.away:
            raise RegistryUnavailable("away")
        if schema_id >= len(self.schemas):
            raise UnreadableEvent(f"no schema {schema_id}")
        return self.schemas[schema_id]

    def schema_with_guid(self, guid: str) -> Schema:
        return self.schema_with_id(uuid.UUID(guid).int)


def received(value: bytes | None, headers: Headers = ()) -> Received:
    return Received("jobs", 3, 42, None, value, headers)


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


def encoded(event: Event, codec: Codec | None = None) -> Received:
    codec = codec or Codec(None, "here")
    return received(*codec.encode(event, "jobs", event_id="id-1", time=NOW, traceparent=TRACE))


def body(schema: Schema, fields: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, fields)
    return stream.getvalue()


def confluent(schema_id: int, avro: bytes) -> Received:
    return received(b"\0" + struct.pack(">I", schema_id) + avro)


def require_event_or_rejection(read: Callable[[], Event], kind: type[Event]) -> None:
    """Nothing else may come out of reading: anything else would end the process."""
    try:
        found: object = read()
    except (UnreadableEvent, InvalidEvent) as error:
        found = error
    assert isinstance(found, kind) or str(found).startswith("jobs[3]@42: ")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(None, "here")


class TestOurFramings:
    @given(events())
    def test_every_event_survives_single_object_encoding(self, event: Event) -> None:
        codec = Codec(None, "here")
        assert codec.decode(encoded(event, codec), (AuditRecorded, type(event))) == event

    @given(events())
    def test_every_event_survives_confluent_framing(self, event: Event) -> None:
        codec = Codec(FakeRegistry(), "here")
        assert codec.decode(encoded(event, codec), (AuditRecorded, type(event))) == event

    def test_single_object_encoding_is_mark_fingerprint_and_body(self) -> None:
        value = encoded(CANCEL).value
        assert value is not None
        assert value[:2] == b"\xc3\x01"
        assert value[2:10] == contracts.fingerprint(schema_of(JobControl))
        assert value[10:] == body(schema_of(JobControl), contracts.to_avro(CANCEL))

    def test_confluent_framing_is_zero_id_and_body(self) -> None:
        registry = FakeRegistry()
        value = encoded(CANCEL, Codec(registry, "here")).value
        assert value == b"\0\0\0\0\1" + body(schema_of(JobControl), contracts.to_avro(CANCEL))
        assert registry.schemas[1]["name"] == "JobControl"

    def test_headers_are_those_of_the_cloudevents_binding(self) -> None:
        assert dict(encoded(CANCEL).headers) == {
            "ce_specversion": b"1.0",
            "ce_id": b"id-1",
            "ce_source": b"here",
            "ce_type": b"transcription.JobControl",
            "ce_time": b"2026-03-01T12:00:00.250Z",
            "ce_subject": b"job-1",
            "content-type": b"application/avro",
            "traceparent": TRACE.encode(),
        }

    def test_attributes_without_a_value_are_left_out(self) -> None:
        request = JobRequested.model_validate(REQUEST)
        _, headers = Codec(None, "here").encode(request, "jobs", event_id="id-1", time=NOW)
        assert {"ce_subject", "traceparent"}.isdisjoint(dict(headers))

    def test_the_subject_is_the_job_id_also_where_the_key_is_more(self) -> None:
        work = CleanupWork.model_validate({"job_id": "job-7", "run": 1, "status": "completed"})
        assert dict(encoded(work).headers)["ce_subject"] == b"job-7"

    def test_both_framings_may_share_a_topic(self) -> None:
        registry = FakeRegistry()
        codec = Codec(registry, "here")
        assert codec.decode(encoded(CANCEL), (JobControl,)) == CANCEL
        assert codec.decode(encoded(CANCEL, codec), (JobControl,)) == CANCEL

    def test_a_schema_is_asked_for_once(self) -> None:
        registry = FakeRegistry()
        codec = Codec(registry, "here")
        for _ in range(3):
            codec.decode(encoded(CANCEL, codec), (JobControl,))
        assert registry.asked == 1

    def test_the_schema_may_be_named_in_a_header(self) -> None:
        avro = body(schema_of(JobControl), contracts.to_avro(CANCEL))
        codec = Codec(FakeRegistry(), "here")
        for frame in (b"\1" + uuid.UUID(int=1).bytes, b"\0\0\0\0\1"):
            assert codec.decode(received(avro, (("__value_schema_id", frame),)), (JobControl,)) == CANCEL

    def test_a_registry_that_is_away_is_worth_another_try(self) -> None:
        registry = FakeRegistry()
        registry.away = True
        codec = Codec(registry, "here")
        with pytest.raises(RegistryUnavailable):
            codec.decode(confluent(1, b""), (JobControl,))
        registry.away = False
        assert codec.decode(encoded(CANCEL, codec), (JobControl,)) == CANCEL


class TestJsonAndCloudEvents:
    @given(job_requests())
    def test_a_request_in_json_is_the_same_request(self, request: JobRequested) -> None:
        assert Codec(None, "here").read_request(received(request.model_dump_json().encode())).request == request

    @given(job_controls())
    def test_a_control_in_json_is_the_same_control(self, control: JobControl) -> None:
        assert Codec(None, "here").decode(received(control.model_dump_json().encode()), (JobControl,)) == control

    def test_white_space_before_json_does_not_matter(self, codec: Codec) -> None:
        assert codec.read_request(received(b"\r\n\t " + as_json(REQUEST))).request.recording.key == "a.wav"

    def test_binary_mode_gives_its_source_and_id(self, codec: Codec) -> None:
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", b"42"),
            ("ce_source", b"/pbx"),
            ("ce_type", b"com.example.call.ended"),
            ("Content-Type", b"application/json; charset=utf-8"),
            ("traceparent", TRACE.encode()),
        )
        read = codec.read_request(received(as_json(REQUEST), headers))
        assert (read.ce_source, read.ce_id, read.traceparent) == ("/pbx", "42", TRACE)

    def test_structured_mode_gives_its_source_and_id(self, codec: Codec) -> None:
        outer = {"specversion": "1.0", "id": "42", "source": "/pbx", "type": "x", "data": REQUEST, "traceparent": TRACE}
        with_header = received(as_json(outer), (("content-type", b"application/cloudevents+json; charset=UTF-8"),))
        for record in (with_header, received(as_json(outer))):
            read = codec.read_request(record)
            assert (read.ce_source, read.ce_id, read.traceparent) == ("/pbx", "42", TRACE)
            assert read.request.recording.bucket == "calls"

    def test_structured_mode_may_carry_avro(self, codec: Codec) -> None:
        request = JobRequested.model_validate(REQUEST)
        avro = base64.b64encode(encoded(request).value or b"").decode()
        outer = {"specversion": "1.0", "id": "42", "source": "/pbx", "type": "x", "data_base64": avro}
        assert codec.read_request(received(as_json(outer))).request == request

    @pytest.mark.parametrize("data", [{}, {"data": "text"}, {"data_base64": "%"}, {"data_base64": 7}])
    def test_structured_mode_without_an_event_is_unreadable(self, codec: Codec, data: dict[str, object]) -> None:
        outer = {"specversion": "1.0", "id": "42", "source": "/pbx", "type": "x", **data}
        with pytest.raises(UnreadableEvent, match="CloudEvent"):
            codec.read_request(received(as_json(outer), (("content-type", b"application/cloudevents+json"),)))

    def test_a_batch_is_unreadable_and_says_what_to_do(self, codec: Codec) -> None:
        headers = (("content-type", b"application/cloudevents-batch+json"),)
        with pytest.raises(UnreadableEvent, match="one event per record"):
            codec.read_request(received(b"[]", headers))

    def test_a_source_without_an_id_names_nothing(self, codec: Codec) -> None:
        read = codec.read_request(received(as_json(REQUEST), (("ce_source", b"/pbx"),)))
        assert (read.ce_source, read.ce_id) == (None, None)

    def test_a_malformed_trace_context_is_ignored(self, codec: Codec) -> None:
        assert codec.read_request(received(as_json(REQUEST), (("traceparent", b"00-x\n"),))).traceparent is None

    def test_the_first_of_two_equal_headers_counts(self, codec: Codec) -> None:
        headers = (("ce_source", b"/a"), ("ce_id", b"1"), ("ce_id", b"2"))
        assert codec.read_request(received(as_json(REQUEST), headers)).ce_id == "1"

    def test_our_own_type_of_another_event_is_refused(self, codec: Codec) -> None:
        with pytest.raises(InvalidEvent, match="JobControl"):
            codec.read_request(received(as_json(REQUEST), (("ce_type", b"transcription.JobControl"),)))

    def test_json_is_told_apart_by_its_type_where_two_events_are_expected(self, codec: Codec) -> None:
        record = received(CANCEL.model_dump_json().encode(), (("ce_type", b"transcription.JobControl"),))
        assert codec.decode(record, (JobRequested, JobControl)) == CANCEL
        with pytest.raises(InvalidEvent, match="JobRequested or JobControl"):
            codec.decode(received(CANCEL.model_dump_json().encode()), (JobRequested, JobControl))

    def test_internal_events_are_not_read_from_json(self, codec: Codec) -> None:
        with pytest.raises(UnreadableEvent, match="Avro"):
            codec.decode(received(b'{"job_id": "j", "run": 1}'), (CleanupWork,))


class TestUnreadable:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "no value"),
            (b"", "no value"),
            (b"hello", "Neither Avro nor a JSON object"),
            (b"[1, 2]", "Neither Avro nor a JSON object"),
            (b'{"recording": ', "Not JSON"),
            (b'{"recording": NaN}', "Not JSON"),
            (b'{"a": "\\ud800"}', "Not JSON"),
            (b'{"a": "\xff"}', "Not JSON"),
            (b'{"a": ' + b"1" * 5000 + b"}", "Not JSON"),
            (b'{"a":' * 1000 + b"1" + b"}" * 1000, "recursion"),
            (b'{"a":' + b"[" * (MAX_VALUE_BYTES - 6), "recursion"),
            (b" " * MAX_VALUE_BYTES + b"{", "are the most"),
            (b"\xc3\x01", "fingerprint"),
            (b"\xc3\x01" + b"\x00" * 8 + b"body", "fingerprint 0000000000000000"),
            (b"\x00\x00\x00\x00\x01body", "no registry is configured"),
        ],
    )
    def test_it_is_refused_with_its_position_and_reason(self, codec: Codec, value: bytes | None, reason: str) -> None:
        for read in (codec.read_request, lambda record: codec.decode(record, (JobControl,))):
            with pytest.raises(UnreadableEvent, match=reason) as caught:
                read(received(value))
            assert caught.value.message.startswith("jobs[3]@42: ")
            assert len(caught.value.message) < 400

    @pytest.mark.parametrize("frame", [b"\0\0\0\0", b"\1short", b"\2", b"\0\0\0\0\1\0"])
    def test_a_malformed_schema_id_is_refused(self, frame: bytes) -> None:
        record = received(b"body", (("__value_schema_id", frame),))
        with pytest.raises(UnreadableEvent, match="names no schema"):
            Codec(FakeRegistry(), "here").decode(record, (JobControl,))

    def test_a_message_shows_little_of_the_payload_and_escapes_it(self, codec: Codec) -> None:
        with pytest.raises(UnreadableEvent) as caught:
            codec.decode(received(b"\n\x1b[31m" + b"secret" * 1000), (JobControl,))
        assert "\n" not in caught.value.message
        assert caught.value.message.count("secret") <= 1

    def test_bytes_behind_the_body_are_refused(self, codec: Codec) -> None:
        record = received((encoded(CANCEL).value or b"") + b"x")
        with pytest.raises(UnreadableEvent, match="1 bytes follow"):
            codec.decode(record, (JobControl,))

    @given(st.binary(max_size=300), st.sampled_from(EVENTS))
    def test_any_bytes_under_a_known_fingerprint_end_in_an_event_or_a_rejection(
        self, tail: bytes, event: type[Event]
    ) -> None:
        record = received(b"\xc3\x01" + contracts.fingerprint(schema_of(event)) + tail)
        require_event_or_rejection(lambda: Codec(None, "here").decode(record, (event,)), event)

    @given(events(), st.data())
    def test_a_damaged_event_ends_in_an_event_or_a_rejection(self, event: Event, data: st.DataObject) -> None:
        value = bytearray(encoded(event).value or b"")
        for _ in range(data.draw(st.integers(1, 4))):
            value[data.draw(st.integers(10, len(value) - 1))] = data.draw(st.integers(0, 255))
        record = received(bytes(value))
        require_event_or_rejection(lambda: Codec(None, "here").decode(record, (type(event),)), type(event))

    JSON_VALUES = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )

    @given(st.dictionaries(st.sampled_from(list(JobRequested.model_fields)) | st.text(max_size=5), JSON_VALUES))
    def test_any_json_object_ends_in_a_request_or_a_rejection(self, document: dict[str, object]) -> None:
        record = received(as_json({**REQUEST, **document}))
        require_event_or_rejection(lambda: Codec(None, "here").read_request(record).request, JobRequested)


class TestInvalid:
    @pytest.mark.parametrize(
        ("document", "field"),
        [
            ({}, "recording"),
            ({"recording": {"bucket": "calls"}}, "recording.key"),
            ({"recording": {"bucket": "calls", "key": ""}}, "recording.key"),
            ({**REQUEST, "job_id": "../../etc"}, "job_id"),
            ({**REQUEST, "job_id": "a\n"}, "job_id"),
            ({**REQUEST, "idempotency_key": ""}, "idempotency_key"),
            ({**REQUEST, "submitted_at": "soon"}, "submitted_at"),
        ],
    )
    def test_a_request_that_is_no_job_is_invalid_by_field(
        self, codec: Codec, document: dict[str, object], field: str
    ) -> None:
        with pytest.raises(InvalidEvent, match=rf"jobs\[3\]@42: Not a valid JobRequested: {field}: "):
            codec.read_request(received(as_json(document)))

    def test_another_event_than_expected_is_invalid(self, codec: Codec) -> None:
        with pytest.raises(InvalidEvent, match="Expected JobProgress or AuditRecorded, not 'JobControl'"):
            codec.decode(encoded(CANCEL), (JobProgress, AuditRecorded))


class TestRefusals:
    def refused(self, document: dict[str, object]) -> Any:
        read = Codec(None, "here").read_request(received(as_json({**REQUEST, "job_id": "job-9", **document})))
        assert read.request.job_id == "job-9"
        assert read.refusal is not None
        assert read.refusal.stage == "intake"
        assert not read.refusal.retryable
        return read

    def test_an_unknown_option_is_refused_by_name_with_a_hint(self) -> None:
        read = self.refused({"options": {"beamsize": 3}})
        assert read.refusal.code == "OPTION_UNKNOWN"
        for part in ("options.beamsize has no effect", "did you mean beam_size?", "language", "submit a new job"):
            assert part in read.refusal.message

    def test_an_unknown_inner_option_is_refused_with_those_of_its_group(self) -> None:
        read = self.refused({"options": {"vad": {"onnset": 0.4}}})
        assert "options.vad.onnset" in read.refusal.message
        assert "policy, onset, offset, max_window_s; did you mean onset?" in read.refusal.message

    def test_a_value_outside_its_bounds_is_refused_with_what_is_allowed(self) -> None:
        read = self.refused({"options": {"beam_size": 99}})
        assert read.refusal.code == "OPTION_INVALID"
        assert "options.beam_size: Input should be less than or equal to 10, not 99" in read.refusal.message

    @pytest.mark.parametrize(
        ("document", "part"),
        [
            ({"options": {"task": "sing"}}, "'transcribe' or 'translate', not 'sing'"),
            (
                {"options": {"diarize": {"num_speakers": 2, "max_speakers": 3}}},
                "options.diarize: give num_speakers, or",
            ),
            ({"options": {"track": -1}}, "options.track: Input should be greater than or equal to 0"),
            (
                {"options": {"multichannel": True, "diarize": {"num_speakers": 2, "embeddings": True}}},
                "diarize.num_speakers, diarize.embeddings has no effect",
            ),
            ({"options": {"multichannel": True, "diarize": {"max_speakers": 2}}}, "diarize.max_speakers has no effect"),
            ({"options": {"hotwords": ["x"] * 101}}, "options: hotwords: at most 100"),
            ({"options": None}, "options: "),
            ({"options": [1]}, "options: "),
            ({"priority": "urgent"}, "priority: Input should be 'high', 'normal' or 'low', not 'urgent'"),
            ({"deadline_at": "tomorrow"}, "deadline_at: "),
            ({"deadline_at": "0001-01-01T00:00:00+14:00"}, "deadline_at: lies outside"),
            ({"metadata": {"a": 1}}, "metadata.a: "),
            ({"metadata": {"a": "x" * 2000}}, "metadata: at most 1024"),
        ],
    )
    def test_what_can_be_refused_by_result_is_not_a_dead_letter(self, document: dict[str, object], part: str) -> None:
        read = self.refused(document)
        assert read.refusal.code == "OPTION_INVALID"
        assert part in read.refusal.message
        assert read.request.options == JobOptions()

    def test_the_parts_without_a_fault_are_kept(self) -> None:
        read = self.refused({"options": {"beam_size": 0}, "priority": "high", "metadata": {"call": "7"}})
        assert read.request.options == JobOptions()
        assert (read.request.priority, read.request.metadata) == (Priority.HIGH, {"call": "7"})

    def test_a_long_value_is_cut_and_many_faults_are_counted(self) -> None:
        read = self.refused({"options": {f"option_{n}" + "x" * 500: "y" * 500 for n in range(20)}})
        assert "and 15 more faults" in read.refusal.message
        assert len(read.refusal.message) < 2000
        assert "y" * 100 not in self.refused({"options": {"beam_size": "y" * 500}}).refusal.message

    def test_a_refusal_fits_into_the_event_that_carries_it(self, codec: Codec) -> None:
        read = self.refused({"options": {"beam_size": 0}})
        origin = {"topic": "jobs", "partition": 0, "offset": 0, "timestamp_ms": 0}
        event = JobReceived.model_validate(
            {
                "job_id": "job-9",
                "request": read.request,
                "request_digest": "",
                "refusal": read.refusal,
                "original": origin,
                "received_at": NOW,
            }
        )
        assert codec.decode(encoded(event), (JobReceived,)) == event

    def test_a_right_request_has_no_refusal(self, codec: Codec) -> None:
        assert codec.read_request(received(as_json(REQUEST))).refusal is None
        assert codec.read_request(encoded(JobRequested.model_validate(REQUEST))).refusal is None


class TestStrangers:
    """Events written with other schemas than ours, through a registry."""

    @staticmethod
    def newer_request(option: Schema) -> Schema:
        schema = copy.deepcopy(schema_of(JobRequested))
        options = next(field for field in schema["fields"] if field["name"] == "options")
        options["type"]["fields"].append(option)
        options["default"] |= {option["name"]: option["default"]}
        return schema

    def read(self, schema: Schema, fields: dict[str, Any]) -> Any:
        codec = Codec(FakeRegistry(schema), "here")
        return codec.read_request(confluent(len(EVENTS), body(schema, fields)))

    def fields(self, **options: object) -> dict[str, Any]:
        fields = contracts.to_avro(JobRequested.model_validate(REQUEST))
        fields["options"].update(options)
        return fields

    OPTION = {"name": "denoise", "type": "boolean", "default": False}  # noqa: RUF012 - read only

    def test_a_newer_sender_is_read_while_its_new_option_is_not_used(self) -> None:
        assert self.read(self.newer_request(self.OPTION), self.fields(denoise=False)).refusal is None

    def test_a_new_option_that_is_used_is_refused_by_name(self) -> None:
        read = self.read(self.newer_request(self.OPTION), self.fields(denoise=True))
        assert read.refusal.code == "OPTION_UNKNOWN"
        assert "options.denoise has no effect here" in read.refusal.message
        assert read.request == JobRequested.model_validate(REQUEST)

    def test_a_new_symbol_is_refused_as_a_value_that_we_do_not_know(self) -> None:
        schema = copy.deepcopy(schema_of(JobRequested))
        text = json.dumps(schema).replace('"translate", "unknown"', '"translate", "summarise", "unknown"')
        read = self.read(json.loads(text), self.fields(task="summarise"))
        assert read.refusal.code == "OPTION_INVALID"
        assert "options.task" in read.refusal.message

    def test_a_foreign_namespace_and_fewer_fields_are_fine(self) -> None:
        recording = schema_of(JobRequested)["fields"][0]
        schema = {"type": "record", "name": "com.example.JobRequested", "fields": [recording]}
        assert self.read(schema, REQUEST).request == JobRequested.model_validate(REQUEST)

    def test_a_schema_without_a_field_that_we_need_is_invalid(self) -> None:
        schema = {"type": "record", "name": "JobRequested", "fields": [{"name": "x", "type": "string"}]}
        with pytest.raises(InvalidEvent, match="recording"):
            self.read(schema, {"x": "y"})

    @pytest.mark.parametrize(
        "field",
        [
            {"type": "array", "items": "null"},
            {"type": "array", "items": {"type": "record", "name": "Nothing", "fields": []}},
            {"type": "array", "items": {"type": "fixed", "name": "Nought", "size": 0}},
            ["null", "JobRequested"],
            {"type": "array", "items": "JobRequested"},
        ],
    )
    def test_a_schema_that_makes_much_of_few_bytes_is_refused(self, field: Any) -> None:
        schema = {"type": "record", "name": "JobRequested", "fields": [{"name": "bomb", "type": field}]}
        bomb = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" * 10
        with pytest.raises(UnreadableEvent, match="cannot be used"):
            Codec(FakeRegistry(schema), "here").read_request(confluent(len(EVENTS), bomb))

    @pytest.mark.parametrize("schema", ["string", {"type": "enum", "name": "E", "symbols": []}, {"type": "record"}, {}])
    def test_a_registered_schema_that_is_no_record_is_refused(self, schema: Any) -> None:
        with pytest.raises(UnreadableEvent, match="cannot be used"):
            Codec(FakeRegistry(schema), "here").read_request(confluent(len(EVENTS), b""))

    def test_an_earlier_version_that_we_ship_is_read_without_a_registry(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        earlier = copy.deepcopy(schema_of(JobControl))
        earlier["fields"] = [field for field in earlier["fields"] if field["name"] != "reason"]
        (tmp_path / "JobControl-1.avsc").write_text(json.dumps(earlier))
        (tmp_path / "notes.txt").write_text("not a schema")
        monkeypatch.setattr(wire, "_shipped", lambda: wire._schemas_in(tmp_path))
        record = received(b"\xc3\x01" + contracts.fingerprint(earlier) + body(earlier, contracts.to_avro(CANCEL)))
        assert Codec(None, "here").decode(record, (JobControl,)) == CANCEL
