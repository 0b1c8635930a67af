"""Schemas that others wrote events with: whether reading with them ends, and what reading with ours would drop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from consumer.contracts import Schema

_PRIMITIVE_BYTES = {"null": 0, "float": 4, "double": 8}


class EndlessSchema(ValueError):
    """A schema with which a few bytes can stand for any number of values."""


def require_finite(writer: Schema) -> None:
    """Refuse a parsed schema that refers to itself, or whose values may take no bytes.

    Reading such an event would need a stack as deep, or a time as long, as its bytes ask for; ours never are like that.
    """
    _least_bytes(writer, {})


def _least_bytes(schema: Any, sizes: dict[str, int | None]) -> int:
    """Fewest bytes that a value takes. `sizes` holds the named types so far, None while one is being measured."""
    if isinstance(schema, list):
        return 1 + min((_least_bytes(branch, sizes) for branch in schema), default=0)
    if isinstance(schema, str):
        return _known_bytes(schema, sizes)
    match schema["type"]:
        case "record" | "error":
            return _record_bytes(schema, sizes)
        case "enum" | "fixed":
            size = schema.get("size", 1)
            sizes[schema["name"]] = size
            return int(size)
        case "array":
            if _least_bytes(schema["items"], sizes) == 0:
                raise EndlessSchema("it has an array whose items take no bytes")
            return 1
        case "map":
            _least_bytes(schema["values"], sizes)
            return 1
        case inner:
            return _least_bytes(inner, sizes)


def _record_bytes(schema: Schema, sizes: dict[str, int | None]) -> int:
    sizes[schema["name"]] = None
    size = sum(_least_bytes(field["type"], sizes) for field in schema["fields"])
    if size == 0:
        raise EndlessSchema(f"the record {schema['name']} takes no bytes")
    sizes[schema["name"]] = size
    return size


def _known_bytes(name: str, sizes: dict[str, int | None]) -> int:
    size = sizes.get(name, _PRIMITIVE_BYTES.get(name, 1))
    if size is None:
        raise EndlessSchema(f"the record {name} contains itself")
    return size


def dropped_fields(writer: Schema, ours: Schema, values: dict[str, Any], place: str) -> Iterator[str]:
    """Fields of a newer writer, set to something else than their default, that reading with `ours` leaves out.

    `values` were read with the writer's schema. Yields paths such as `options.vad.hangover_s`.
    """
    known = {field["name"]: field for field in ours["fields"]}
    for field in writer["fields"]:
        name, value = field["name"], values.get(field["name"])
        if name not in known:
            if value != field.get("default"):
                yield f"{place}.{name}"
        elif isinstance(value, dict):
            theirs, mine = _record_in(field["type"]), _record_in(known[name]["type"])
            if theirs and mine:
                yield from dropped_fields(theirs, mine, value, f"{place}.{name}")


def _record_in(schema: Any) -> Schema | None:
    branches = schema if isinstance(schema, list) else [schema]
    return next((one for one in branches if isinstance(one, dict) and one.get("type") == "record"), None)


def record_field(schema: Schema, name: str) -> Schema | None:
    """The record that a field of `schema` holds, null when there is no such field or it holds something else."""
    return next((_record_in(field["type"]) for field in schema["fields"] if field["name"] == name), None)
