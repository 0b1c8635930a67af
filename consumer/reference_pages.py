"""Writes the generated pages of docs/.

python -m consumer.reference_pages docs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from consumer import audit, errors_reference, metrics, settings_reference

PAGES: dict[str, Callable[[], str]] = {
    "audit.md": audit.reference_markdown,
    "settings.md": settings_reference.reference_markdown,
    "metrics.md": metrics.reference_markdown,
    "errors.md": errors_reference.reference_markdown,
}


def write(folder: Path) -> None:
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
