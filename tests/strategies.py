"""Hypothesis strategies for events: any valid value of each, made from the fields of its model.

A new field needs no new strategy; a new rule between fields, or of intake, does (see DiarizeOptions, JobOptions and
RecordingRef).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from consumer.contracts import EVENTS, INTERNAL, PUBLIC
from consumer.events import DiarizeOptions, Event, JobControl, JobOptions, JobRequested, RecordingRef

MAX_LONG = 2**63 - 1
MOST_ITEMS = 3
MOST_CHARACTERS = 40

M = TypeVar("M", bound=BaseModel)


def instants() -> st.SearchStrategy[datetime]:
    """UTC in whole milliseconds: what an event holds after validation."""
    days = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31))
    return days.map(lambda one: one.replace(microsecond=one.microsecond // 1000 * 1000, tzinfo=UTC))


def texts(least: int = 0, most: int = MOST_CHARACTERS) -> st.SearchStrategy[str]:
    """Any text that UTF-8 can carry."""
    return st.text(st.characters(codec="utf-8"), min_size=least, max_size=min(most, max(least, MOST_CHARACTERS)))


def values(model: type[M]) -> st.SearchStrategy[M]:
    """Any valid value of a model."""
    if model in _RULES_BETWEEN:
        return _RULES_BETWEEN[model]().map(model.model_validate)
    if model is JobOptions:
        return _fields(model).map(_that_agree).map(model.model_validate)
    return _fields(model).map(model.model_validate)


def _fields(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: _of(info.annotation, info.metadata) for name, info in model.model_fields.items()}
    required = {name: strategy for name, strategy in fields.items() if model.model_fields[name].is_required()}
    optional = {name: strategy for name, strategy in fields.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _that_agree(options: dict[str, Any]) -> dict[str, Any]:
    """Job options without those that have no effect beside the others."""
    if options.get("multichannel") and "diarize" in options:
        return options | {"diarize": DiarizeOptions(enabled=options["diarize"].enabled)}
    return options


def events(*models: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of the given types, of all types where none is given."""
    return st.sampled_from(models or EVENTS).flatmap(values)


def public_events() -> st.SearchStrategy[Event]:
    return events(*PUBLIC)


def internal_events() -> st.SearchStrategy[Event]:
    return events(*INTERNAL)


def job_requests() -> st.SearchStrategy[JobRequested]:
    return values(JobRequested)


def job_controls() -> st.SearchStrategy[JobControl]:
    return values(JobControl)


def job_options() -> st.SearchStrategy[JobOptions]:
    return values(JobOptions)


def recording_refs() -> st.SearchStrategy[RecordingRef]:
    return values(RecordingRef)


def _diarize_options() -> st.SearchStrategy[dict[str, Any]]:
    """A number of speakers, or bounds in the right order, never both."""
    count = st.integers(1, 50)
    bounds = st.tuples(count, count).map(lambda two: {"min_speakers": min(two), "max_speakers": max(two)})
    speakers: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}), count.map(lambda n: {"num_speakers": n}), bounds
    )
    flags = st.fixed_dictionaries({"enabled": st.booleans(), "embeddings": st.booleans()})
    return st.tuples(speakers, flags).map(lambda two: two[0] | two[1])


def _recording_refs() -> st.SearchStrategy[dict[str, Any]]:
    """Names that intake lets in: see `consumer.core.places`."""
    printable = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/")
    parts = st.text(printable, min_size=1, max_size=MOST_CHARACTERS).filter(lambda part: part not in (".", ".."))
    tag = st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)
    return st.fixed_dictionaries(
        {
            "bucket": st.from_regex(r"[a-w][a-z0-9]{2,18}([-.][a-z0-9]{1,18}){0,2}", fullmatch=True),
            "key": st.lists(parts, min_size=1, max_size=MOST_ITEMS).map("/".join),
        },
        optional={"version_id": tag, "etag": tag},
    )


_RULES_BETWEEN: dict[type[BaseModel], Callable[[], st.SearchStrategy[dict[str, Any]]]] = {
    DiarizeOptions: _diarize_options,
    RecordingRef: _recording_refs,
}


def _of(annotation: Any, rules: Iterable[Any]) -> st.SearchStrategy[Any]:
    """Values of a type within the rules of its field (`Ge`, `MaxLen`, a pattern ...)."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(arguments[0], [*rules, *_flat(arguments[1:])])
    if origin in (Union, types.UnionType):
        others = [one for one in arguments if one is not types.NoneType]
        return st.none() | st.one_of([_of(one, rules) for one in others])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(_of(arguments[0], ()), max_size=MOST_ITEMS).map(tuple)
    if origin is dict:
        return st.dictionaries(_of(arguments[0], ()), _of(arguments[1], ()), max_size=MOST_ITEMS)
    return _plain(annotation, _bounds(rules))


def _flat(metadata: Iterable[Any]) -> list[Any]:
    """Rules, also those inside a Field(...) of an Annotated type."""
    return [rule for one in metadata for rule in (one.metadata if isinstance(one, FieldInfo) else [one])]


def _bounds(rules: Iterable[Any]) -> dict[str, Any]:
    """[Ge(1), Le(10)] -> {"ge": 1, "le": 10}"""
    names = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
    return {name: getattr(rule, name) for rule in rules for name in names if getattr(rule, name, None) is not None}


def _plain(kind: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind is str and "pattern" in bounds:
        return st.from_regex(bounds["pattern"].removesuffix("$") + r"\Z", fullmatch=True)
    if kind is str:
        return texts(bounds.get("min_length", 0), bounds.get("max_length", MOST_CHARACTERS))
    if kind is bytes:
        return st.binary(max_size=MOST_CHARACTERS)
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(bounds.get("ge", -MAX_LONG - 1), bounds.get("le", MAX_LONG))
    if kind is float:
        return _floats(bounds)
    if kind is datetime:
        return instants()
    if issubclass(kind, StrEnum):
        return st.sampled_from(list(kind))
    if issubclass(kind, BaseModel):
        return values(kind)
    raise TypeError(f"no strategy for {kind}")


def _floats(bounds: dict[str, Any]) -> st.SearchStrategy[float]:
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    return st.floats(
        None if low is None else float(low),
        None if high is None else float(high),
        exclude_min="gt" in bounds,
        exclude_max="lt" in bounds,
        allow_nan=False,
        allow_infinity=False,
    )
