"""Makes docs/whisperx-jobs.md from the parser.

python -m producer_tools.reference > docs/whisperx-jobs.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from producer_tools import exit_codes
from producer_tools.parser import DESCRIPTION, PROGRAM, build_parser

PAGE = "docs/whisperx-jobs.md"


def reference_markdown() -> str:
    lines = [
        f"# {PROGRAM}",
        "",
        "Generated from `producer_tools/parser.py` by `python -m producer_tools.reference`; do not edit.",
        "",
        DESCRIPTION.strip(),
    ]
    for parser in _commands(build_parser()):
        lines += ["", f"## {parser.prog}", "", "```text", parser.format_help().rstrip(), "```"]
    lines += ["", "## Exit codes", "", "| Code | Name | Meaning |", "| --- | --- | --- |"]
    lines += [f"| {code.value} | `{code.name}` | {meaning} |" for code, meaning in exit_codes.MEANINGS.items()]
    return "\n".join((*lines, ""))


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that do something: the leaves."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        for child in action.choices.values():
            yield from _commands(child)


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
