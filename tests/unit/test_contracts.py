"""Each event and its Avro schema agree, and the schemas can be read by people and by other versions."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from pydantic import BaseModel

from consumer import contracts
from consumer.contracts import EVENTS, Schema, schema_of
from consumer.core.layout import Topic
from consumer.errors import InvalidEvent
from consumer.events import Contract, Event, JobControl, JobOptions, JobRequested, VadOptions
from consumer.work import ChunkWork
from tests.strategies import events, job_options

UNITS = {"_s": "second", "_hz": "hertz", "_bytes": "byte", "_ms": "millisecond", "_hours": "hour"}

every_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)


def write(schema: Schema, fields: dict[str, Any]) -> io.BytesIO:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, fields)
    body.seek(0)
    return body


def records(schema: Any) -> Iterator[Schema]:
    """Every record in a schema, inner ones too."""
    if isinstance(schema, list):
        for branch in schema:
            yield from records(branch)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema
        for inner in [field["type"] for field in schema.get("fields", ())] + [schema.get("items")]:
            yield from records(inner)


class TestFiles:
    def test_every_committed_schema_agrees_with_its_event(self) -> None:
        assert contracts.differing() == [], "run python -m consumer.contracts write"

    @every_event
    def test_every_committed_schema_is_read_by_fastavro(self, event: type[Event]) -> None:
        parsed: Any = fastavro.parse_schema(json.loads((contracts.FOLDER / f"{event.__name__}.avsc").read_text()))
        assert parsed["name"] == f"transcription.{event.__name__}"

    def test_a_changed_file_is_found_and_written_again(self, tmp_path: Path) -> None:
        assert len(contracts.write(tmp_path)) == len(EVENTS)
        changed = tmp_path / "JobControl.avsc"
        changed.write_text(changed.read_text().replace('"reason"', '"motive"'))
        assert contracts.differing(tmp_path) == [changed]
        assert contracts.write(tmp_path) == [changed]
        assert contracts.differing(tmp_path) == []

    def test_a_schema_without_an_event_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "Gone.avsc").write_text("{}")
        with pytest.raises(ValueError, match="Gone"):
            contracts.differing(tmp_path)

    def test_check_says_which_file_differs(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(contracts, "differing", lambda: [Path("schemas/JobControl.avsc")])
        assert contracts.main(["check"]) == 1
        assert "JobControl.avsc" in capsys.readouterr().err

    def test_the_readme_names_every_event_with_its_topics(self) -> None:
        readme = (contracts.FOLDER / "README.md").read_text()
        for topic, carried in contracts.CARRIED.items():
            for event in carried:
                (row,) = [line for line in readme.splitlines() if f"({event.__name__}.avsc)" in line]
                assert f"`{topic}`" in row.replace("chunk-work.{high,normal,low}", f"{topic}"), (topic, event)


class TestSchemas:
    def test_every_event_class_has_a_schema_and_a_topic(self) -> None:
        assert set(EVENTS) == set(Event.__subclasses__())
        assert {event for carried in contracts.CARRIED.values() for event in carried} == set(EVENTS)
        assert set(Topic) - set(contracts.CARRIED) == {Topic.DEAD_LETTERS, Topic.JOB_STATE}

    @every_event
    def test_every_event_is_named_as_its_class(self, event: type[Event]) -> None:
        assert event.__name__ == event.NAME

    @every_event
    def test_every_record_and_field_is_documented_with_its_unit(self, event: type[Event]) -> None:
        for record in records(schema_of(event)):
            assert record["doc"]
            for field in record["fields"]:
                unit = next((word for suffix, word in UNITS.items() if field["name"].endswith(suffix)), "")
                assert unit in field["doc"].lower(), f"{record['name']}.{field['name']} does not say its unit"

    @every_event
    def test_every_enum_has_a_symbol_for_what_a_reader_does_not_know(self, event: type[Event]) -> None:
        for enum in re.findall(r'\{[^{}]*"type": "enum"[^{}]*\}', contracts.file_text(event)):
            parsed = json.loads(enum)
            assert parsed["default"] == "unknown"
            assert parsed["symbols"].count("unknown") == 1

    @every_event
    def test_an_optional_field_is_null_first_and_null_by_default(self, event: type[Event]) -> None:
        unions = [f for r in records(schema_of(event)) for f in r["fields"] if isinstance(f["type"], list)]
        assert all(field["type"][0] == "null" and field["default"] is None for field in unions)

    def test_defaults_in_the_schema_are_those_of_the_event(self) -> None:
        fields = {field["name"]: field for field in schema_of(JobRequested)["fields"]}
        assert JobOptions.model_validate(fields["options"]["default"]) == JobOptions()
        assert fields["priority"]["default"] == "normal"
        assert fields["metadata"]["default"] == {}
        assert "default" not in fields["recording"]

    def test_the_fingerprint_is_the_one_of_the_specification(self) -> None:
        """The vector of Avro's own test suite: "null" has 7195948357588979594."""
        assert int.from_bytes(bytes.fromhex(fastavro.schema.fingerprint('"null"', "CRC-64-AVRO")), "little") == (
            7195948357588979594
        )
        assert len({contracts.fingerprint(schema_of(event)) for event in EVENTS}) == len(EVENTS)

    def test_documentation_does_not_change_the_fingerprint(self) -> None:
        schema = copy.deepcopy(schema_of(JobControl))
        schema["doc"] = schema["fields"][0]["doc"] = "said differently"
        assert contracts.fingerprint(schema) == contracts.fingerprint(schema_of(JobControl))

    def test_a_field_without_documentation_is_refused(self) -> None:
        class Mute(Contract):
            """Says nothing about its field."""

            silent: int

        with pytest.raises(TypeError, match=r"Mute\.silent"):
            contracts._record(Mute, set())

    def test_a_default_that_avro_cannot_hold_is_refused(self) -> None:
        class Odd(Contract):
            """Optional, but not null by default."""

            number: int | None = 1
            """A number."""

        with pytest.raises(TypeError, match=r"Odd\.number"):
            contracts._record(Odd, set())

    @pytest.mark.parametrize("annotation", [set, int | str, BaseModel | str | None])
    def test_a_type_without_an_avro_counterpart_is_refused(self, annotation: Any) -> None:
        with pytest.raises(TypeError):
            contracts._type(annotation, "Enum", set())


class TestConversions:
    @given(events())
    def test_an_event_survives_the_way_through_avro(self, event: Event) -> None:
        schema = contracts.parsed_schema_of(type(event))
        fields: Any = fastavro.schemaless_reader(write(schema, contracts.to_avro(event)), schema, None)
        assert contracts.from_avro(type(event), fields) == event

    def test_a_fault_is_told_with_its_field_and_without_the_value(self) -> None:
        with pytest.raises(InvalidEvent, match="job_id: ") as caught:
            contracts.from_avro(JobControl, {"job_id": "secret/../path", "action": "cancel"})
        assert "secret" not in caught.value.message

    def test_many_faults_are_counted(self) -> None:
        with pytest.raises(InvalidEvent, match="and 4 more"):
            contracts.from_avro(JobControl, dict.fromkeys("abcdefg"))


class TestEvolution:
    """Each side of a rolling update reads the other: FULL_TRANSITIVE in practice."""

    @staticmethod
    def with_field(schema: Schema, name: str) -> Schema:
        newer = copy.deepcopy(schema)
        newer["fields"].append({"name": name, "type": ["null", "string"], "default": None})
        return newer

    @given(events())
    def test_a_newer_reader_reads_an_older_event(self, event: Event) -> None:
        older = schema_of(type(event))
        newer = self.with_field(older, "added_later")
        read: Any = fastavro.schemaless_reader(write(older, contracts.to_avro(event)), older, newer)
        assert read.pop("added_later") is None
        assert contracts.from_avro(type(event), read) == event

    @given(events())
    def test_an_older_reader_reads_a_newer_event(self, event: Event) -> None:
        older = schema_of(type(event))
        newer = self.with_field(older, "added_later")
        body = write(newer, {**contracts.to_avro(event), "added_later": "news"})
        assert contracts.from_avro(type(event), fastavro.schemaless_reader(body, newer, older)) == event  # type: ignore[arg-type]

    @given(job_options())
    def test_fields_with_defaults_may_be_left_out_by_an_older_writer(self, options: JobOptions) -> None:
        newer = schema_of(ChunkWork)
        older = copy.deepcopy(newer)
        older["fields"] = [field for field in older["fields"] if field["name"] not in ("attempt", "language")]
        work = ChunkWork(job_id="j", run=1, chunk_index=0, audio_s=1.0, options=options)
        body = write(older, contracts.to_avro(work))
        assert contracts.from_avro(ChunkWork, fastavro.schemaless_reader(body, older, newer)) == work  # type: ignore[arg-type]

    def test_a_new_symbol_is_read_as_unknown(self) -> None:
        older = schema_of(JobControl)
        newer = copy.deepcopy(older)
        action = next(field for field in newer["fields"] if field["name"] == "action")
        action["type"]["symbols"].insert(0, "rewind")
        body = write(newer, {"job_id": "j", "action": "rewind"})
        read: Any = fastavro.schemaless_reader(body, newer, older)
        assert read["action"] == "unknown"

    def test_nested_records_have_whole_defaults(self) -> None:
        """A reader of any language can fill the field in without knowing our inner defaults."""
        options = next(field for field in schema_of(JobRequested)["fields"] if field["name"] == "options")
        assert set(options["default"]["vad"]) == set(VadOptions.model_fields)
