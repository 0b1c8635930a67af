"""One flag for each job option, made from the options themselves: a new option has a flag at once.

align.enabled: bool = True        --no-align
vad.onset: float | None           --vad-onset 0.4
output_formats: tuple[...]        --formats json,srt
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from consumer.contracts import faults
from consumer.events import JobOptions
from producer_tools.faults import WrongUsage

Place = tuple[str, ...]
"""Where an option is: ("vad", "onset")."""

NAMES: dict[Place, str] = {
    ("align", "enabled"): "--no-align",
    ("align", "on_missing_aligner"): "--on-missing-aligner",
    ("diarize", "enabled"): "--no-diarize",
    ("diarize", "num_speakers"): "--num-speakers",
    ("diarize", "min_speakers"): "--min-speakers",
    ("diarize", "max_speakers"): "--max-speakers",
    ("diarize", "embeddings"): "--embeddings",
    ("output_formats",): "--formats",
    ("subtitles", "max_line_width"): "--max-line-width",
    ("subtitles", "max_line_count"): "--max-line-count",
    ("subtitles", "max_cue_s"): "--max-cue-s",
    ("subtitles", "speaker_labels"): "--no-speaker-labels",
}
"""Flags that are shorter than the place of their option; the others are called as their place: --vad-onset."""


@dataclass(frozen=True, slots=True)
class OptionFlag:
    """A flag and the option that it sets."""

    flag: str
    place: Place
    field: FieldInfo

    @property
    def dest(self) -> str:
        return "option_" + "_".join(self.place)


def option_flags() -> Iterator[OptionFlag]:
    """Every option in the order of the contract."""
    return _flags_of(JobOptions, ())


def _flags_of(model: type[BaseModel], above: Place) -> Iterator[OptionFlag]:
    for name, field in model.model_fields.items():
        place = (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _flags_of(field.annotation, place)
        else:
            yield OptionFlag(NAMES.get(place, "--" + "-".join(place).replace("_", "-")), place, field)


def add_option_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("job options", "What to do and how. Options that are not given have defaults.")
    for one in option_flags():
        group.add_argument(one.flag, dest=one.dest, default=None, help=_help(one.field), **_kind(one.field))


def options_from(arguments: argparse.Namespace) -> JobOptions:
    """The options that the flags ask for. Raises WrongUsage with the reason of each refusal."""
    found: dict[str, Any] = {}
    for one in option_flags():
        value = getattr(arguments, one.dest)
        if value is not None:
            *groups, name = one.place
            inner = found
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[name] = value
    try:
        return JobOptions.model_validate(found)
    except ValidationError as exc:
        raise WrongUsage(f"these job options cannot work: {faults(exc)}") from exc


def _help(field: FieldInfo) -> str:
    """The line under the field, as words about a flag."""
    text = " ".join((field.description or "").split()).replace("%", "%%").replace("; null: ", "; not given: ")
    if _plain(field.annotation) is bool:
        return f"{'Turn off' if field.default else 'Turn on'}: {text[0].lower()}{text[1:]}"
    default = field.default
    if default is None or isinstance(default, tuple):
        return text
    return f"{text} Default: {default}."


def _kind(field: FieldInfo) -> dict[str, Any]:
    """What argparse needs to know of a type."""
    annotation = _plain(field.annotation)
    if annotation is bool:
        return {"action": "store_const", "const": not field.default}
    if get_origin(annotation) is tuple:
        return _list_kind(_plain(get_args(annotation)[0]))
    if get_origin(annotation) is Literal:
        return {"choices": get_args(annotation)}
    return {"type": annotation, "metavar": {int: "N", float: "X"}.get(annotation, "TEXT")}


def _list_kind(item: Any) -> dict[str, Any]:
    if isinstance(item, type) and issubclass(item, StrEnum):
        return {"type": _comma_separated, "metavar": ",".join(item)}
    return {"type": _comma_separated, "metavar": "WORD,WORD"}


def _plain(annotation: Any) -> Any:
    """The type without `| None` and without its rules."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    others = [one for one in get_args(annotation) if one is not NoneType]
    if NoneType in get_args(annotation):
        return _plain(others[0])
    return annotation


def _comma_separated(text: str) -> tuple[str, ...]:
    """'json, srt' -> ('json', 'srt')"""
    return tuple(part.strip() for part in text.split(",") if part.strip())
