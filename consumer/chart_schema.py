"""Which settings the Helm chart takes: their part of the chart's schema of values, from the typed settings.

A misspelt setting is then refused by `helm template`, and not by the pods.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import BaseModel, SecretStr

from consumer.settings import Settings

FILE = "helm/whisperx-consumer/values.schema.json"
_BEGIN, _END = '\n    "settingNames": {', "\n    },\n"


def renewed(text: str) -> str:
    """The schema's text with the definition `settingNames` as it is to be; the rest stays as it was written."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{FILE} has no definition settingNames to renew")
    return before + begin + "\n" + ",\n".join(_lines()) + end + after


def _lines() -> Iterator[str]:
    yield '      "type": "object"'
    yield '      "additionalProperties": false'
    groups = ",\n".join(f"        {json.dumps(group)}: {_group(model)}" for group, model in _groups())
    yield f'      "properties": {{\n{groups}\n      }}'


def _groups() -> Iterator[tuple[str, type[BaseModel]]]:
    for group, info in Settings.model_fields.items():
        assert isinstance(info.annotation, type)
        assert issubclass(info.annotation, BaseModel)
        yield group, info.annotation


def _group(model: type[BaseModel]) -> str:
    """By names alone: what a value must be, the program says. Secrets have no place among values."""
    names = [name for name, field in model.model_fields.items() if field.annotation is not SecretStr]
    return json.dumps({"additionalProperties": False, "properties": {name: {} for name in names}})
