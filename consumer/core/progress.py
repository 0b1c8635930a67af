"""How far a run is, as one number that never goes back, and how long the rest will take."""

from __future__ import annotations

PLAN_SHARE = 0.05
ASSEMBLY_SHARE = 0.05
"""The recognition of the chunks is nearly all the work; plan and assembly are a token share each."""


def fraction(*, done_s: float, live_s: float, total_s: float | None, planned_share: float, assembled: bool) -> float:
    """Share of the work that is done, 0 to 1.

    `done_s` and `live_s` are seconds of audio in finished chunks and in the done part of running ones, `total_s` the
    (estimated) length of the recording, `planned_share` the part of it that is planned.

    fraction(done_s=30, live_s=0, total_s=60, planned_share=1, assembled=False) -> 0.5
    """
    chunk_share = 1.0 - PLAN_SHARE - ASSEMBLY_SHARE
    heard = min(1.0, (done_s + live_s) / total_s) if total_s else 0.0
    end = ASSEMBLY_SHARE if assembled else 0.0
    return min(1.0, PLAN_SHARE * min(1.0, planned_share) + chunk_share * heard + end)


def eta_s(*, done_s: float, total_s: float | None, elapsed_s: float) -> float | None:
    """Seconds until the rest is heard, by the speed so far; None before there is anything to measure.

    eta_s(done_s=100, total_s=300, elapsed_s=10) -> 20.0
    """
    if not total_s or done_s <= 0 or elapsed_s <= 0:
        return None
    return round(max(0.0, total_s - done_s) * elapsed_s / done_s, 1)
