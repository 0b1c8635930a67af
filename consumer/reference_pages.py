"""Writes the generated pages of docs/.

python -m consumer.reference_pages docs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from consumer import audit, errors_reference, metrics, settings_reference, store_policies

PAGES: dict[str, Callable[[], str]] = {
    "audit.md": audit.reference_markdown,
    "settings.md": settings_reference.reference_markdown,
    "metrics.md": metrics.reference_markdown,
    "errors.md": errors_reference.reference_markdown,
    **{f"policies/{who}.json": partial(store_policies.page, who) for who in store_policies.Principal},
}


def write(folder: Path) -> None:
    for name, page in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
