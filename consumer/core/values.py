"""Plain values that every part of the program speaks in: spans, windows, chunks, claim checks."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE_HZ = 16_000
"""Everything behind the decoder is 16 kHz mono (or one stream per channel), because the models are."""

BYTES_PER_SAMPLE = 2
"""Chunk audio is stored as signed 16-bit little-endian samples: what whisperx's own decoder makes."""


def to_samples(seconds: float) -> int:
    """Seconds to samples, cut off and not rounded: the rule that whisperx uses when it slices (`int(t * 16000)`)."""
    return int(seconds * SAMPLE_RATE_HZ)


def to_seconds(samples: int) -> float:
    return samples / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Span:
    """A start and an end in samples from the start of the recording; the end is not included."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, got {self.start}-{self.end}")

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def start_s(self) -> float:
        return to_seconds(self.start)

    @property
    def end_s(self) -> float:
        return to_seconds(self.end)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of at most 30 s that the recogniser takes at once.

    Times are seconds from the start of the recording, exactly as the voice-activity detection gave them, because
    they become the segment's times; samples are cut off from them as whisperx does. `index` counts the windows of
    the channel in the whole recording, so it is the same however the recording is cut into chunks.
    """

    index: int
    start_s: float
    end_s: float
    channel: int = 0

    @property
    def span(self) -> Span:
        return Span(to_samples(self.start_s), to_samples(self.end_s))


@dataclass(frozen=True, slots=True)
class Chunk:
    """The part of a recording that is done, saved and retried as one.

    The spans of a channel tile the recording. `audio` is the stretch whose samples are stored: the span and the chunk
    overlap behind it (less at the end of the recording). `windows` are those that start in the span; they also end in
    it.
    """

    index: int
    span: Span
    audio: Span
    windows: tuple[Window, ...]
    is_last: bool = False
    channel: int = 0
