"""The table of values in the chart's README, made from the `# --` lines of values.yaml.

python helm/values_table.py helm/whisperx-consumer            # writes the table into README.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
_KEY = re.compile(r"^(?P<indent> *)(?P<name>[\w.-]+):")
_MEANING = re.compile(r"^ *# -- (?P<text>.*)")


def readme_with_table(chart: Path) -> str:
    """The README's text with the table as it should be."""
    before, _, rest = (chart / "README.md").read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table((chart / 'values.yaml').read_text(encoding='utf-8'))}{END}{after}"


def table(values: str) -> str:
    """Markdown rows for each documented value, in the order of the file."""
    defaults = yaml.safe_load(values)
    rows = [f"| `{'.'.join(path)}` | `{_default(defaults, path)}` | {text} |" for path, text in documented(values)]
    return "\n".join(("| Value | Default | Meaning |", "| --- | --- | --- |", *rows, ""))


def documented(values: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of each key that has a `# --` line above it, and that line."""
    path: list[tuple[int, str]] = []
    meaning = None
    for line in values.splitlines():
        if found := _MEANING.match(line):
            meaning = found["text"]
        elif found := _KEY.match(line):
            indent = len(found["indent"])
            path = [(depth, name) for depth, name in path if depth < indent] + [(indent, found["name"])]
            if meaning is not None:
                yield tuple(name for _, name in path), meaning
            meaning = None


def _default(values: Any, path: tuple[str, ...]) -> str:
    for name in path:
        values = values[name]
    return json.dumps(values).replace("|", "\\|")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "README.md").write_text(readme_with_table(folder), encoding="utf-8")
