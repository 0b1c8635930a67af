"""What a check found out: a value, so that checks can be asked, compared and printed in any way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the installation. `todo` is empty when nothing is to be done."""

    level: Level
    check: str
    what: str
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}


def ok(check: str, what: str) -> Finding:
    return Finding(Level.OK, check, what)


def warn(check: str, what: str, todo: str) -> Finding:
    return Finding(Level.WARN, check, what, todo)


def fail(check: str, what: str, todo: str) -> Finding:
    return Finding(Level.FAIL, check, what, todo)


def failed(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.FAIL for finding in findings)


def report(findings: Iterable[Finding]) -> str:
    """A list for people: one line per finding, and what to do on the line below."""
    return "\n".join(line for finding in findings for line in _lines(finding))


def _lines(finding: Finding) -> tuple[str, ...]:
    head = f"{finding.level.upper():<4}  {finding.check}: {finding.what}"
    return (head, f"      → {finding.todo}") if finding.todo else (head,)
