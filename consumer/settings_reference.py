"""What settings there are, and which are in effect: read from the typed settings, never written by hand."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from consumer.settings import Settings

MASK = "***"
_SECRET_NAME = re.compile(r"password|secret|token|credential|jaas|\bkey\b|\.key$|key\.pem", re.IGNORECASE)
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the reference shows it."""

    variable: str
    kind: str
    default: str
    meaning: str


def reference() -> Iterator[tuple[str, list[Setting]]]:
    """Every setting, by group, in the order of the source."""
    for group, info in Settings.model_fields.items():
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel), f"{group} is not a group"  # noqa: PT018
        yield group, [_setting(group, name, field) for name, field in model.model_fields.items()]


def reference_markdown() -> str:
    """The text of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Read once at start from environment variables. Generated from `consumer/settings.py`; do not edit.",
        "Lists and maps are JSON. `whisperx-consumer config` shows what is in effect, with secrets masked.",
    ]
    for group, settings in reference():
        lines += ["", f"## {group}", "", "| Variable | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{s.variable}` | {s.kind} | {s.default} | {s.meaning} |" for s in settings]
    return "\n".join((*lines, ""))


def effective(settings: Settings) -> dict[str, object]:
    """Variable → value as JSON can hold it, secrets masked."""
    return {
        _variable(group, name): _shown(getattr(getattr(settings, group), name))
        for group, _ in reference()
        for name in type(getattr(settings, group)).model_fields
    }


def effective_text(settings: Settings) -> str:
    """The effective settings as lines that a shell or an env file takes."""
    return "\n".join(_assignment(name, value) for name, value in effective(settings).items())


def _assignment(name: str, value: object) -> str:
    return f"# {name} is not set" if value is None else f"{name}={shlex.quote(_as_text(value))}"


def secrets(settings: Settings) -> list[str]:
    """Every secret value that is set: what must never be written."""
    groups = (getattr(settings, group) for group in Settings.model_fields)
    values = (getattr(group, name) for group in groups for name in type(group).model_fields)
    found = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    found += [value for name, value in settings.kafka.extra.items() if _SECRET_NAME.search(name)]
    found += _LOGIN_IN_URL.findall(settings.registry.url) + _LOGIN_IN_URL.findall(settings.kafka.oauth_token_endpoint)
    return [secret for secret in found if secret]


def faults(error: ValidationError) -> list[str]:
    """Which variables are wrong, and why: never their values, they may be secrets."""
    known = [setting.variable for _, settings in reference() for setting in settings]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        _fault("WHISPERX_" + "__".join(map(str, one["loc"])).upper(), one["type"], one["msg"], known) for one in found
    ]


def _fault(variable: str, kind: str, message: str, known: list[str]) -> str:
    match kind:
        case "extra_forbidden":
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.8)
            return f"{variable}: there is no such setting" + (f"; {near[0]} is one" if near else "")
        case "tuple_type":
            return f'{variable}: a list is written as JSON, such as ["one", "two"]'
        case "dict_type" | "model_type":
            return f'{variable}: a map is written as JSON, such as {{"name": "value"}}'
        case _:
            return f"{variable}: {message.removeprefix('Value error, ')}"


def _setting(group: str, name: str, field: FieldInfo) -> Setting:
    meaning = " ".join((field.description or "").split())
    return Setting(_variable(group, name), _kind(field), _default(field), meaning.replace("|", "\\|"))


def _variable(group: str, name: str) -> str:
    return f"WHISPERX_{group}__{name}".upper()


def _kind(field: FieldInfo) -> str:
    return _type_name(field.annotation) + "".join(f", {bound}" for bound in _bounds(field))


def _type_name(kind: object) -> str:
    if get_origin(kind) is Literal:
        return " \\| ".join(f"`{choice}`" if choice else "empty" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    if get_origin(kind) is dict:
        return "map"
    if Path in get_args(kind):
        return "path or null"
    return {SecretStr: "secret", str: "text", bool: "boolean", int: "integer", float: "number"}[kind]  # type: ignore[index]


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (value := getattr(bound, attribute, None)) is not None:
                yield f"{sign} {value}"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr) or value == "":
        return "empty"
    return f"`{_as_text(_shown(value))}`"


def _shown(value: object) -> object:
    match value:
        case SecretStr():
            return MASK if value.get_secret_value() else ""
        case dict():
            return {key: MASK if _SECRET_NAME.search(key) else item for key, item in value.items()}
        case tuple():
            return list(value)
        case Path():
            return str(value)
        case str():
            return _LOGIN_IN_URL.sub(MASK, value)
        case _:
            return value


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
