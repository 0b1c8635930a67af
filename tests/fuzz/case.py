"""One case: a recording and the event that asks for it, one of them spoiled. Kept as JSON when it found something."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from consumer.ports import Headers

Kind = Literal["media", "events"]


@dataclass(frozen=True, slots=True)
class Case:
    """`story` names what it was made from and how it was spoiled."""

    story: tuple[str, ...]
    recording: bytes
    value: bytes
    headers: Headers = ()
    key: bytes | None = None
    topic: str = "jobs"
    timestamp_ms: int | None = None
    """None: now."""

    def written(self) -> str:
        packed = {
            **asdict(self),
            "recording": _text(zlib.compress(self.recording, 9)),
            "value": _text(self.value),
            "key": _text(self.key),
            "headers": [[name, _text(value)] for name, value in self.headers],
        }
        return json.dumps(packed, indent=1)


def read_case(path: Path) -> Case:
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return replace(
        Case(tuple(fields["story"]), zlib.decompress(_bytes(fields["recording"]) or b""), b""),
        value=_bytes(fields["value"]) or b"",
        headers=tuple((name, _bytes(value)) for name, value in fields["headers"]),
        key=_bytes(fields["key"]),
        topic=fields["topic"],
        timestamp_ms=fields["timestamp_ms"],
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
