"""Reading the fields of a job request: what is wrong with it, and whether the job can be failed by its id.

A request without a readable recording or with a malformed id is no job: InvalidEvent. A request that only asks for
options that we do not have is a job, and it fails with a result: its sender reads results, not dead letters.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from consumer.contracts import from_avro
from consumer.core import places
from consumer.errors import InvalidEvent, InvalidOption, UnknownOption
from consumer.events import JobRequested, Problem

REFUSABLE = ("options", "priority", "deadline_at", "metadata")
"""Fields whose faults fail the job instead of making the event invalid."""

_EXCERPT_CHARACTERS = 40
_MOST_FAULTS = 5


@dataclass(frozen=True, slots=True)
class RequestRead:
    """A request as intake gets it. With a `refusal`, the fields that it is about have their defaults."""

    request: JobRequested
    refusal: Problem | None = None
    ce_source: str | None = None
    """Source of the CloudEvent that carried it; null when it was none."""
    ce_id: str | None = None
    """Id of the CloudEvent that carried it, unique within its source."""
    traceparent: str | None = None
    """W3C trace context."""


def read_fields(fields: dict[str, Any], unknown: Sequence[str] = ()) -> tuple[JobRequested, Problem | None]:
    """The request and what we refuse in it. `unknown` are options that the caller saw and could not pass on.

    Raises InvalidEvent when a fault lies outside REFUSABLE.
    """
    firm = from_avro(JobRequested, {name: value for name, value in fields.items() if name not in REFUSABLE})
    fault = places.fault_of(firm.recording)
    if fault is not None:
        raise InvalidEvent(f"Not a valid JobRequested: {fault}. Correct this and send it again.")
    try:
        request = JobRequested.model_validate(fields)
    except ValidationError as exc:
        return _without_faults(firm, fields), _refusal(exc)
    return (request, _unknown_options(unknown)) if unknown else (request, None)


def _without_faults(firm: JobRequested, fields: dict[str, Any]) -> JobRequested:
    """The request with those of the refusable fields that are right by themselves."""
    request = firm
    for name in REFUSABLE:
        if name in fields:
            try:
                one = JobRequested.model_validate({"recording": firm.recording, name: fields[name]})
            except ValidationError:
                continue  # it keeps its default; the refusal names it
            request = request.model_copy(update={name: getattr(one, name)})
    return request


def _refusal(error: ValidationError) -> Problem:
    found = error.errors(include_url=False, include_context=False)
    unknown = any(one["type"] == "extra_forbidden" for one in found)
    lines = [_sentence(one) for one in found[:_MOST_FAULTS]]
    more = [f"and {len(found) - _MOST_FAULTS} more faults"] if len(found) > _MOST_FAULTS else []
    return _problem(UnknownOption.code if unknown else InvalidOption.code, "; ".join(lines + more))


def _unknown_options(paths: Sequence[str]) -> Problem:
    lines = [_unknown(tuple(path.split("."))) for path in paths[:_MOST_FAULTS]]
    return _problem(UnknownOption.code, "; ".join(lines))


def _problem(code: str, faults: str) -> Problem:
    return Problem(code=code, message=f"{faults}. Correct this and submit a new job.", stage="intake")


def _sentence(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(fault["loc"])
    place = ".".join(map(str, fault["loc"]))[:80]
    if fault["type"] == "value_error":  # our own validators say all there is to say
        return f"{place}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    return f"{place}: {fault['msg']}, not {excerpt(fault['input'])}"


def _unknown(place: tuple[int | str, ...]) -> str:
    *parents, name = map(str, place)
    known = _known_options(parents)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{'.'.join((*parents, name))[:80]} has no effect here (known: {', '.join(known)}{hint})"


def _known_options(parents: Sequence[str]) -> list[str]:
    """Names that are known at this place, ["options", "vad"] -> ["policy", "onset", ...]."""
    model: type[BaseModel] = JobRequested
    for name in parents:
        inner = _model_in(model.model_fields[name].annotation) if name in model.model_fields else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    candidates = get_args(annotation) if get_origin(annotation) else (annotation,)
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)


def excerpt(value: object) -> str:
    """A few characters of what was sent, with control characters escaped, so that it can stand in a log line."""
    text = repr(value)
    return text if len(text) <= _EXCERPT_CHARACTERS else f"{text[:_EXCERPT_CHARACTERS]}…"
