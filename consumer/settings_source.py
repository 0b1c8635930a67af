"""The environment as pydantic-settings reads it, less two of its habits.

It ends in a trace that names no variable where a list or map is not JSON, and it passes over a group that it does not
know. Here the first is left to the check of the field, and the second is refused as an unknown name in a group is.
"""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource


class Environment(EnvSettingsSource):
    """What the variables say, to be checked."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The list or map; the text itself where it is not JSON, which the field then refuses by its own name."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value

    def __call__(self) -> dict[str, Any]:
        """All groups, and what names none. A variable without the delimiter is not ours: Kubernetes sets such ones."""
        return {**super().__call__(), **dict.fromkeys(self._strangers(), "")}

    def _strangers(self) -> list[str]:
        """stoer__endpoint, for WHISPERX_STOER__ENDPOINT. The values stay out: nobody knows what they are."""
        delimiter = self.env_nested_delimiter or ""
        ours = [name.removeprefix(self.env_prefix.lower()) for name in self.env_vars if self._has_prefix(name)]
        return [
            name
            for name in ours
            if delimiter in name and name.split(delimiter)[0] not in self.settings_cls.model_fields
        ]

    def _has_prefix(self, name: str) -> bool:
        return name.startswith(self.env_prefix.lower())
