"""A deterministic engine: its text is a hash of the audio, so whatever happens to the platform shows in the text."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from consumer.core.speech import (
    Activity,
    ChunkSpeech,
    ChunkTask,
    Diarization,
    Language,
    Progress,
    Samples,
    Segment,
    Turn,
    Word,
)
from consumer.core.values import SAMPLE_RATE_HZ, Window
from consumer.events import ChunkTimings, JobOptions, ModelUsed

STEP_S = 1.0
WINDOW_S = 5.0


@dataclass
class StandInEngine:
    """Counts its calls; `during` is called in the middle of each chunk."""

    device: str = "none/none"
    calls: Counter[int] = field(default_factory=Counter)
    during: Callable[[int], None] = lambda index: None

    def max_window_s(self, model: str | None) -> float:
        return 12.0

    def min_overlap_s(self, model: str | None) -> float:
        return WINDOW_S

    def warm_up(self, model: str) -> None:
        """Nothing to load."""

    def detect_language(self, samples: Samples, model: str | None) -> Language | None:
        return Language("en", 0.9) if len(samples) else None

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        self.calls[task.chunk.index] += 1
        progress(0.0)
        self.during(task.chunk.index)
        segments = tuple(self._segment(task, window) for window in task.chunk.windows)
        progress(1.0)
        return ChunkSpeech(
            segments=segments,
            activity=_activity(task) if task.options.tells_voices_apart else None,
            language=task.language,
            language_probability=None,
            timings=ChunkTimings(transcribe_s=1.0),
            fingerprint="stand-in",
            device=self.device,
            models=(ModelUsed(role="transcribe", name="stand-in", digest="0"),),
        )

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        """One speaker from end to end; which grid windows came is checked, since that is the platform's part."""
        spans = [(activity.first, activity.first + len(activity.scores)) for activity in activities]
        firsts, ends = [first for first, _ in spans], [end for _, end in spans]
        assert firsts[0] == 0
        assert firsts[1:] == ends[:-1], "the windows of the grid are complete and in order"
        turn = Turn(0.0, recording_samples / SAMPLE_RATE_HZ, "SPEAKER_00")
        return Diarization((turn,), (turn,))

    def _segment(self, task: ChunkTask, window: Window) -> Segment:
        start, end = window.span.start - task.chunk.audio.start, window.span.end - task.chunk.audio.start
        heard = task.samples[start:end]
        assert len(heard) == window.span.length, "the chunk holds all samples of its windows"
        text = " " + hashlib.sha256(heard.tobytes()).hexdigest()[:12]
        word = Word(text.strip(), round(window.start_s, 3), round(window.end_s, 3), 1.0)
        return Segment(
            round(window.start_s, 3),
            round(window.end_s, 3),
            text,
            (word,),
            channel=window.channel,
            window_index=window.index,
            timing="aligned",
        )


def _activity(task: ChunkTask) -> Activity:
    """The windows of the grid that start in the chunk's span, each with the mean of its samples."""
    step = int(STEP_S * SAMPLE_RATE_HZ)
    first = -(-task.chunk.span.start // step)
    last = -(-task.chunk.span.end // step)
    scores = [
        float(np.abs(task.samples[k * step - task.chunk.audio.start :][: int(WINDOW_S * SAMPLE_RATE_HZ)]).mean())
        for k in range(first, last)
    ]
    return Activity(
        first=first,
        scores=np.array(scores, np.float32).reshape(-1, 1, 1),
        embeddings=np.zeros((len(scores), 1, 2), np.float32),
    )
