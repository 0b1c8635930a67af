"""Writes the generated pages of docs/, and the settings' part of the chart's schema beside it.

python -m consumer.reference_pages docs
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from consumer import audit, chart_schema, errors_reference, metrics, settings_reference, store_policies

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
    schema = folder.parent / chart_schema.FILE
    schema.write_text(chart_schema.renewed(schema.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
