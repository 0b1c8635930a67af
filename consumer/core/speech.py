"""What is heard in a recording, as plain values, and what an engine must be able to do.

The real engine is `consumer.speech.engine`; the chaos harness brings a deterministic stand-in. All times are seconds
from the start of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from consumer.core.values import Chunk
from consumer.events import ChunkTimings, JobOptions, ModelUsed, Problem

Samples = NDArray[np.float32]
"""16 kHz mono samples between -1 and 1, shape (n_samples,)."""

Timing = Literal["aligned", "interpolated", "segment"]


@dataclass(frozen=True, slots=True)
class Word:
    """One token with its span. Times and score are None where nothing is known; they are never NaN."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    score: float | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Text with its span. `words` may be empty when words could not be aligned; `text` is complete all the same."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    channel: int = 0
    window_index: int = 0
    timing: Timing = "segment"
    avg_logprob: float | None = None
    speaker: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Activity:
    """Diarization's map step over the sliding windows that start in one chunk, on the grid of the whole recording.

    `first` is the number of the first window on that grid (window k starts at k * step_s). `scores` has shape
    (windows, frames, local speakers), `embeddings` (windows, local speakers, dimension); both are float32, and an
    embedding row is NaN where its local speaker is silent, exactly as pyannote has it.
    """

    first: int
    scores: NDArray[np.float32]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChunkSpeech:
    """The finished work of one chunk: what its checkpoint holds."""

    segments: tuple[Segment, ...]
    activity: Activity | None
    language: str | None
    language_probability: float | None
    timings: ChunkTimings
    warnings: tuple[Problem, ...] = ()
    fingerprint: str = ""
    device: str = ""
    models: tuple[ModelUsed, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A span of one voice."""

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who spoke when. `turns` may overlap (two voices at once); `exclusive` never does and serves words."""

    turns: tuple[Turn, ...]
    exclusive: tuple[Turn, ...]
    embeddings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Language:
    """An ISO 639 code with the probability of the detection."""

    code: str
    probability: float


Progress = Callable[[float], None]
"""Called with the share of the chunk that is done, 0 to 1. May raise Stopped to end the work between batches."""


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """Everything the engine needs for one chunk. `samples` are those of `chunk.audio`.

    `recording_samples` is set where the chunk's audio reaches the end of the recording: only there is the last
    sliding window of the diarization padded.
    """

    chunk: Chunk
    samples: Samples
    options: JobOptions
    language: str | None
    recording_samples: int | None = None


class Engine(Protocol):
    """Speech in, text and voices out. Methods are called from one thread at a time.

    Raises GpuOutOfMemory when there is no room even after its own ladder, BrokenGpuContext when the process must go,
    UnknownModel and NoAligner as their names say.
    """

    @property
    def device(self) -> str:
        """Such as cpu/int8 or cuda/float16."""
        ...

    def max_window_s(self, model: str | None) -> float:
        """Longest window that the model takes, in seconds (30 for Whisper; a model directory may say less)."""
        ...

    def min_overlap_s(self, model: str | None) -> float:
        """Least chunk overlap in seconds: the diarization window."""
        ...

    def detect_language(self, samples: Samples, model: str | None) -> Language | None:
        """Language of a sample of speech; None for an empty one."""
        ...

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        """Recognise the planned windows, align words, and do diarization's map step, as the options say."""
        ...

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        """Diarization's reduce step over all chunks in order: cluster once, rebuild the turns.

        The activities are gone through once, so that they may come one at a time from the store.
        """
        ...
