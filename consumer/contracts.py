"""The Avro contracts, derived from the typed events: one `.avsc` file per event in `schemas/`.

    python -m consumer.contracts write    writes the files
    python -m consumer.contracts check    exit code 1 when a file differs from its event

The event is the source, so that a field is written down once. What Avro and the event say differently:

    Python                     Avro
    X | None                   union of null (first, and the default) and X
    StrEnum, Literal           enum with the symbol `unknown`, which a reader sees instead of a newer symbol
    tuple[X, ...]              array
    dict[str, X]               map
    datetime                   long, timestamp-millis, UTC
    int, float                 long, double
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import fastavro
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from consumer import events, work
from consumer.core.layout import CHUNK_LANES, Topic
from consumer.errors import InvalidEvent
from consumer.events import Event

NAMESPACE = "transcription"
UNKNOWN = "unknown"
FOLDER = Path(__file__).resolve().parent.parent / "schemas"

Schema = dict[str, Any]
E = TypeVar("E", bound=Event)


def _events_of(module: types.ModuleType) -> tuple[type[Event], ...]:
    found = (value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Event))
    return tuple(event for event in found if event.__module__ == module.__name__ and event is not Event)


PUBLIC = _events_of(events)
"""What others read and write."""
INTERNAL = _events_of(work)
"""What only this program reads; contracts all the same, because a rolling update has two versions running."""
EVENTS = PUBLIC + INTERNAL

CARRIED: dict[Topic, tuple[type[Event], ...]] = {
    Topic.JOBS: (events.JobRequested,),
    Topic.CONTROL: (events.JobControl,),
    Topic.PROGRESS: (events.JobProgress,),
    Topic.PARTIALS: (events.ChunkTranscribed,),
    Topic.RESULTS: (events.JobFinished,),
    Topic.AUDIT: (events.AuditRecorded,),
    Topic.JOB_EVENTS: get_args(get_args(work.JobEvent)[0]),
    Topic.PLAN_WORK: (work.PlanWork,),
    **dict.fromkeys(CHUNK_LANES, (work.ChunkWork,)),
    Topic.ASSEMBLY_WORK: (work.AssemblyWork,),
    Topic.CLEANUP_WORK: (work.CleanupWork,),
}
"""The events of each topic. Dead letters carry foreign bytes, and the job state is the coordinator's own."""


def full_name(event: type[Event]) -> str:
    return f"{NAMESPACE}.{event.__name__}"


@cache
def schema_of(event: type[Event]) -> Schema:
    """The Avro schema of an event, as a JSON object. Shared: do not change it."""
    schema = _record(event, set())
    assert isinstance(schema, dict)  # a name only where a record is met again
    return {"type": "record", "name": schema["name"], "namespace": NAMESPACE, **schema}


@cache
def parsed_schema_of(event: type[Event]) -> Schema:
    """The same, prepared for fastavro's readers and writers."""
    return parse(schema_of(event))


def parse(schema: Schema) -> Schema:
    """Raises fastavro's SchemaParseException when it is no record."""
    parsed = fastavro.parse_schema(schema)
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise fastavro.schema.SchemaParseException("not a record")
    return parsed


def fingerprint(schema: Schema) -> bytes:
    """CRC-64-AVRO of the schema's canonical form, 8 bytes in the order of the wire.

    Source: Avro 1.12 specification, "Schema Fingerprints" and "Single-object encoding".
    """
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def to_avro(event: Event) -> dict[str, Any]:
    """The event as fastavro writes it."""
    return event.model_dump()


def from_avro(model: type[E], fields: dict[str, Any]) -> E:
    """The event that fastavro (or a JSON parser) read. Raises InvalidEvent, which names the fields."""
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise InvalidEvent(
            f"Not a valid {model.__name__}: {faults(exc)}. Correct these fields and send it again.",
            event=model.__name__,
        ) from exc


def faults(error: ValidationError, most: int = 5) -> str:
    """Which fields are wrong and why, without their values: `recording: Field required; job_id: ...`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, one['loc'])) or 'event'}: {one['msg']}"[:200] for one in found[:most]]
    return "; ".join(lines) + (f"; and {len(found) - most} more" if len(found) > most else "")


# ── from Python types to Avro types ─────────────────────────────────────────────────────────────────────────────────


def _record(model: type[BaseModel], seen: set[str]) -> Schema | str:
    """A record at its first use, its name at every further one."""
    if model.__name__ in seen:
        return model.__name__
    seen.add(model.__name__)
    fields = [_field(model, name, info, seen) for name, info in model.model_fields.items()]
    return {"type": "record", "name": model.__name__, "doc": inspect.getdoc(model), "fields": fields}


def _field(model: type[BaseModel], name: str, info: FieldInfo, seen: set[str]) -> Schema:
    if not info.description:
        raise TypeError(f"{model.__name__}.{name} has no docstring; readers of the schema need one")
    made = _type(info.annotation, model.__name__ + name.title().replace("_", ""), seen)
    field = {"name": name, "type": made, "doc": " ".join(info.description.split())}
    return field | _default(f"{model.__name__}.{name}", made, info)


def _default(place: str, made: Any, info: FieldInfo) -> Schema:
    if isinstance(made, list):
        if not info.is_required() and info.get_default() is not None:
            raise TypeError(f"{place} is optional, so its default can only be None: null comes first in the union")
        return {"default": None}
    if info.is_required():
        return {}
    return {"default": to_jsonable_python(info.get_default(call_default_factory=True))}


def _type(annotation: Any, enum_name: str, seen: set[str]) -> Any:
    """The Avro type of a Python type. `enum_name` is for a Literal, which has no name of its own."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], enum_name, seen)
    if origin in (Union, types.UnionType):
        return _optional(arguments, enum_name, seen)
    if origin is Literal:
        return _enum(enum_name, arguments, seen)
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], enum_name, seen)}
    if origin is dict:
        return {"type": "map", "values": _type(arguments[1], enum_name, seen)}
    return _plain_type(annotation, seen)


def _optional(arguments: tuple[Any, ...], enum_name: str, seen: set[str]) -> list[Any]:
    others = [argument for argument in arguments if argument is not types.NoneType]
    if len(others) != 1 or len(arguments) != 2:
        raise TypeError(f"{enum_name}: only X | None can be written as Avro, not {arguments}")
    return ["null", _type(others[0], enum_name, seen)]


def _enum(name: str, symbols: tuple[str, ...], seen: set[str]) -> Schema | str:
    if name in seen:
        return name
    seen.add(name)
    known = [str(symbol) for symbol in symbols if symbol != UNKNOWN]
    return {"type": "enum", "name": name, "symbols": [*known, UNKNOWN], "default": UNKNOWN}


def _plain_type(annotation: Any, seen: set[str]) -> Any:
    plain = {str: "string", bytes: "bytes", bool: "boolean", int: "long", float: "double"}
    if annotation in plain:
        return plain[annotation]
    if annotation is datetime:
        return {"type": "long", "logicalType": "timestamp-millis"}
    if inspect.isclass(annotation) and issubclass(annotation, StrEnum):
        return _enum(annotation.__name__, tuple(annotation), seen)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return _record(annotation, seen)
    raise TypeError(f"{annotation} has no Avro type here")


# ── the files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def file_text(event: type[Event]) -> str:
    """What `schemas/<EventName>.avsc` holds."""
    return json.dumps(schema_of(event), indent=2, ensure_ascii=False) + "\n"


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the files that differ; their paths."""
    changed = differing(folder)
    for path in changed:
        path.write_text(file_text(_event_named(path.stem)), encoding="utf-8")
    return changed


def differing(folder: Path = FOLDER) -> list[Path]:
    """Files that are not there or not what their event says, and files without an event."""
    paths = {folder / f"{event.__name__}.avsc": file_text(event) for event in EVENTS}
    stale = [path for path in folder.glob("*.avsc") if path not in paths]
    if stale:
        raise ValueError(f"no event has the schema {', '.join(map(str, stale))}; move it to previous/ or remove it")
    return [path for path, text in paths.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def _event_named(name: str) -> type[Event]:
    return next(event for event in EVENTS if event.__name__ == name)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write"]:
            sys.stderr.writelines(f"wrote {path}\n" for path in write())
            return 0
        case ["check"]:
            changed = differing()
            sys.stderr.writelines(f"{path} differs from its event: run {_USAGE} write\n" for path in changed)
            return 1 if changed else 0
        case _:
            sys.stderr.write(f"usage: {_USAGE} write|check\n")
            return 2


_USAGE = "python -m consumer.contracts"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
