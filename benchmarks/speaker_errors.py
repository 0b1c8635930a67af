"""Diarization error rate, by pyannote.metrics: no collar, overlapped speech counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from consumer.core.speech import Turn


def error_rates(truth: Iterable[Turn], found: Iterable[Turn]) -> dict[str, float]:
    """Shares of the speech in `truth`: `der`, and the part of it that clustering decides, `confusion` of speakers."""
    from pyannote.metrics.diarization import DiarizationErrorRate

    parts: Any = DiarizationErrorRate()(_annotation(truth), _annotation(found), detailed=True)
    return {
        "der": round(float(parts["diarization error rate"]), 4),
        "confusion": round(float(parts["confusion"] / parts["total"]), 4),
    }


def _annotation(turns: Iterable[Turn]) -> Any:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for number, turn in enumerate(turns):
        annotation[Segment(turn.start_s, turn.end_s), number] = turn.speaker
    return annotation
