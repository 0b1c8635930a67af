"""All checks of a run, and the summary of their verdicts. `python -m tests.chaos.checks FOLDER` checks a run again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.chaos import checks_of_audit as audit
from tests.chaos import checks_of_contents as contents
from tests.chaos import checks_of_time as time
from tests.chaos.evidence import Evidence
from tests.chaos.loading import load
from tests.chaos.verdict import Verdict

CHECKS: tuple[Callable[[Evidence], Verdict], ...] = (
    contents.terminal_events,
    contents.partials,
    contents.transcripts,
    contents.dead_letters,
    contents.due_times,
    contents.progress,
    contents.lag,
    audit.audit_trail,
    time.faults,
    time.endings,
    time.takeovers,
    time.computed_again,
    time.standstill,
)


def check(seen: Evidence) -> list[Verdict]:
    return [one(seen) for one in CHECKS]


def summary(verdicts: list[Verdict]) -> dict[str, object]:
    """All figures and verdicts, for one line of JSON."""
    figures = {name: value for one in verdicts for name, value in one.figures.items()}
    findings = {one.name: one.shown() for one in verdicts if not one.ok}
    return {"ok": not findings, **figures, "verdicts": {one.name: one.ok for one in verdicts}, "findings": findings}


def main() -> int:
    found = summary(check(load(Path(sys.argv[1]))))
    print(json.dumps(found, indent=2))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
