"""From the probability of speech, frame by frame, to the windows that the recogniser takes. Pure and streaming.

Three small steps, each of which knows only what it has heard so far, so that a window is the same however the
recording came in:

    Hysteresis   probabilities → stretches of voice, none longer than a window
    Merger       stretches → windows: neighbours joined, cut at pauses, padded
    Windows      both, and the mark up to which all is decided

A window ends where speech pauses for long (`max_gap_s`): whisperx joins everything up to 30 s and keeps the silence
between, and Whisper makes up words in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consumer.core.values import SAMPLE_RATE_HZ, Span, Window, to_samples, to_seconds


@dataclass(frozen=True, slots=True)
class Decided:
    """Windows that are final, in order, and the sample before which no later window starts."""

    windows: tuple[Window, ...]
    upto: int


class WindowPolicy(Protocol):
    """Samples in, windows out. One object serves one recording, once."""

    def feed(self, samples: NDArray[np.int16]) -> Decided:
        """Take the next samples, (n_samples,); any number of them."""
        ...

    def finish(self) -> Decided:
        """The recording is over: decide what is left."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceShape:
    """What counts as voice, and how voice becomes windows.

    The defaults: silero's own thresholds (0.5, and 0.15 less to stop); a pause of a tenth of a second already is a
    place to cut at; padding lets the recogniser hear soft beginnings and ends.

    Word errors of the demo model (windows of 12 s) in 2,813 words, the two demo recordings and three others: whisperx's
    own windows 2.20 %, these 1.96 %; with pads of 0.2, 0.25 and 0.4 s 2.28, 2.20 and 2.06 %. Cut at the last pause
    instead of the longest late one, the shortest recording has three times the errors. Gaps of 0.6 to 60 s move single
    words only; short gaps cost many more windows.
    """

    max_window_s: float
    onset: float = 0.5
    offset: float = 0.35
    min_speech_s: float = 0.1
    min_silence_s: float = 0.1
    pad_s: float = 0.3
    max_gap_s: float = 2.0
    cut_after: float = 2 / 3
    """A full window is cut at its longest pause behind this share of its greatest length."""


class Hysteresis:
    """Stretches of voice in frames: on above `onset`, off when it stays below `offset` for `min_silence_s`.

    A stretch that grows longer than a window is cut at its least likely frame in the second half (the min-cut of
    Bain et al. 2023, arXiv:2303.00747), so what is kept in mind is bounded.
    """

    def __init__(self, shape: VoiceShape, frame_samples: int) -> None:
        frame_s = frame_samples / SAMPLE_RATE_HZ
        self._shape = shape
        self._min_speech = round(shape.min_speech_s / frame_s)
        self._min_silence = max(round(shape.min_silence_s / frame_s), 1)
        self._max = int((shape.max_window_s - 2 * shape.pad_s) / frame_s)
        self._at = 0
        self._start: int | None = None
        self._end = 0
        self._since_start: list[float] = []
        self._is_rest = False

    @property
    def earliest(self) -> int:
        """No later stretch starts before this frame."""
        return self._at if self._start is None else self._start

    def feed(self, probability: float) -> Iterator[tuple[int, int]]:
        """The next frame; what is certain now, as (start, end) in frames."""
        at, self._at = self._at, self._at + 1
        if self._start is None:
            if probability >= self._shape.onset:
                self._begin(at, [probability], is_rest=False)
            return
        self._since_start.append(probability)
        if probability >= self._shape.offset:
            self._end = at + 1
            if self._end - self._start > self._max:
                yield self._cut()
        elif at + 1 - self._end >= self._min_silence:
            yield from self.close()

    def close(self) -> Iterator[tuple[int, int]]:
        """End the open stretch, if there is one."""
        start, self._start = self._start, None
        if start is not None and (self._is_rest or self._end - start >= self._min_speech):
            yield start, self._end

    def _begin(self, start: int, probabilities: list[float], *, is_rest: bool) -> None:
        self._start, self._end, self._since_start, self._is_rest = start, self._at, probabilities, is_rest

    def _cut(self) -> tuple[int, int]:
        assert self._start is not None
        start, half = self._start, self._max // 2
        length = half + int(np.argmin(self._since_start[half : self._max + 1]))
        self._begin(start + length, self._since_start[length:], is_rest=True)
        return start, start + length


class Merger:
    """Windows from stretches of voice, in samples: joined as long as they fit, cut at the longest late pause."""

    def __init__(self, shape: VoiceShape) -> None:
        self._max = int(shape.max_window_s * SAMPLE_RATE_HZ)
        self._pad = int(shape.pad_s * SAMPLE_RATE_HZ)
        self._max_gap = int(shape.max_gap_s * SAMPLE_RATE_HZ)
        self._cut_after = int(shape.cut_after * self._max)
        self._pending: list[Span] = []
        self._decided_end = 0

    def add(self, voice: Span) -> Iterator[Span]:
        """Take the next stretch; the windows that are full now."""
        yield from self.reach(voice.start)
        while self._pending and voice.end - self._pending[0].start + 2 * self._pad > self._max:
            yield self._emit(self._best_cut(voice), voice.start)
        self._pending.append(voice)

    def reach(self, earliest: int) -> Iterator[Span]:
        """No later stretch starts before `earliest`: too far from the open window, so that is closed."""
        if self._pending and earliest - self._pending[-1].end > self._max_gap:
            yield self._emit(len(self._pending), earliest)

    def finish(self, total: int) -> Iterator[Span]:
        if self._pending:
            yield self._emit(len(self._pending), 2 * total - self._pending[-1].end)

    def decided_upto(self, earliest: int) -> int:
        start = self._pending[0].start if self._pending else earliest
        return max(self._decided_end, start - self._pad)

    def _best_cut(self, voice: Span) -> int:
        """How many of the pending stretches go out: up to the longest pause of those that leave a long window."""
        following = [*self._pending[1:], voice]
        pauses = [b.start - a.end for a, b in zip(self._pending, following, strict=True)]
        late = [i for i, v in enumerate(self._pending) if v.end - self._pending[0].start >= self._cut_after]
        return 1 + max(late, key=lambda i: (pauses[i], i), default=len(self._pending) - 1)

    def _emit(self, count: int, next_start: int) -> Span:
        """A window of the first `count` stretches; neighbours closer than two pads share the pause between them."""
        gone, self._pending = self._pending[:count], self._pending[count:]
        following = self._pending[0].start if self._pending else next_start
        start = max(self._decided_end, gone[0].start - self._pad)
        self._decided_end = gone[-1].end + min(self._pad, (following - gone[-1].end) // 2)
        return Span(start, self._decided_end)


class Windows:
    """Probabilities of frames in, numbered windows out."""

    def __init__(self, shape: VoiceShape, frame_samples: int) -> None:
        self._hysteresis = Hysteresis(shape, frame_samples)
        self._merger = Merger(shape)
        self._frame_samples = frame_samples
        self._count = 0

    def feed(self, probabilities: Iterable[float]) -> Decided:
        spans: list[Span] = []
        for probability in probabilities:
            for start, end in self._hysteresis.feed(probability):
                spans.extend(self._merger.add(Span(start * self._frame_samples, end * self._frame_samples)))
        earliest = self._hysteresis.earliest * self._frame_samples
        spans.extend(self._merger.reach(earliest))
        return Decided(self._numbered(spans), self._merger.decided_upto(earliest))

    def finish(self, total: int) -> Decided:
        """The recording has `total` samples; the last frame may have been padded beyond them."""
        spans: list[Span] = []
        for start, end in self._hysteresis.close():
            voice = Span(min(start * self._frame_samples, total), min(end * self._frame_samples, total))
            spans.extend(self._merger.add(voice))
        spans.extend(self._merger.finish(total))
        return Decided(self._numbered(spans), total)

    def _numbered(self, spans: Sequence[Span]) -> tuple[Window, ...]:
        first, self._count = self._count, self._count + len(spans)
        return tuple(Window(first + i, _time_of(s.start), _time_of(s.end)) for i, s in enumerate(spans))


def _time_of(sample: int) -> float:
    """The time that is cut off to this very sample again: one in ten quotients comes out a hair too small for that."""
    seconds = to_seconds(sample)
    return seconds if to_samples(seconds) == sample else math.nextafter(seconds, math.inf)
