"""Every attempt as a JSON line: what was meant (intent), and that it went well (ok), not (failed), or nobody knows.

The checks read the file afterwards; "unknown" counts as either.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    time_s: float
    what: str
    fields: dict[str, Any]


class Journal:
    """Written from several threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, what: str, **fields: object) -> None:
        line = json.dumps({"time_s": round(time.time(), 3), "what": what, **fields})
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> Iterator[Entry]:
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        yield Entry(fields.pop("time_s"), fields.pop("what"), fields)
