"""The form of a check's answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MOST_FINDINGS = 8


@dataclass(frozen=True)
class Verdict:
    """`findings` are sentences, none when all is well; `figures` go into the summary line."""

    name: str
    findings: tuple[str, ...] = ()
    figures: dict[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.findings

    def shown(self) -> list[str]:
        left = len(self.findings) - MOST_FINDINGS
        return [*self.findings[:MOST_FINDINGS], *([f"and {left} more"] if left > 0 else [])]


def verdict(name: str, findings: Iterable[str], **figures: object) -> Verdict:
    return Verdict(name, tuple(findings), figures)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all values does not exceed; None of nothing.

    percentile([1, 2, 3, 4], 0.95) -> 4
    """
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
