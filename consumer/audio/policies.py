"""Which window policy serves a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from consumer.audio.vad_silero import silero_windows
from consumer.audio.vad_whisperx import FrameScorer, whisperx_windows
from consumer.core.windows import WindowPolicy
from consumer.events import JobOptions

LONGEST_WINDOW_S = 30.0
"""What Whisper takes; a job or its model may say less."""

PolicyName = Literal["silero", "whisperx"]


class WindowPolicies:
    """Makes the policy that a job asks for. `scorer` loads whisperx's model when a job first wants its windows."""

    def __init__(self, default: PolicyName, scorer: Callable[[], FrameScorer]) -> None:
        self._default = default
        self._scorer = scorer

    def __call__(self, options: JobOptions) -> WindowPolicy:
        """`options.vad.max_window_s` is what the model takes, as the planner has put it there."""
        vad = options.vad
        max_window_s = LONGEST_WINDOW_S if vad.max_window_s is None else vad.max_window_s
        if (vad.policy or self._default) == "silero":
            return silero_windows(vad, max_window_s)
        return whisperx_windows(vad, max_window_s, self._scorer())
