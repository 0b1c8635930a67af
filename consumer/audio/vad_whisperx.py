"""whisperx's own windows, streamed: the same as `whisperx.load_model(...).transcribe` plans, to the last bit.

whisperx 3.8.6 runs its pyannote segmentation over the whole recording, then cuts the scores into regions
(`vads/pyannote.py`) and joins these into windows (`vads/vad.py`). Here the same three steps run one behind the other:

    OverlapAdd   scores of sliding windows → one score per frame     (pyannote.audio 4.0.7, `Inference.aggregate`)
    Regions      scores → regions of voice                           (whisperx `Binarize` with `max_duration`)
    Joiner       regions → windows                                   (whisperx `Vad.merge_chunks`)

What looks odd below is there because it is so over there, and equality is the point of this policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consumer.core.values import SAMPLE_RATE_HZ, Window, to_samples
from consumer.core.windows import Decided
from consumer.events import VadOptions

ONSET = 0.5
OFFSET = 0.363
"""whisperx's defaults (`asr.py`, `default_vad_options`)."""

LEAST_REGION_S = 1e-6
"""pyannote.core drops segments that are not longer than this."""

Scores = NDArray[np.float32]


class FrameScorer(Protocol):
    """The segmentation model with its two grids: sliding windows over samples, frames within a window."""

    window_samples: int
    step_samples: int
    window_s: float
    step_s: float
    frame_s: float
    """Duration of a frame's receptive field in seconds."""
    frame_step_s: float
    batch_windows: int
    """Windows that go through the model together; rounding depends on it, so it is the model's own."""

    def score(self, windows: NDArray[np.float32]) -> Scores:
        """(n_windows, window_samples) to probabilities of speech, (n_windows, n_frames)."""
        ...


class SlidingScores:
    """Scores of the sliding windows on the grid of the recording, in the same batches as pyannote makes.

    Yields arrays (n_windows, n_frames) in order; the last window is filled up with zeros when the recording does not
    end with one.
    """

    def __init__(self, scorer: FrameScorer) -> None:
        self._scorer = scorer
        self._buffer = np.empty(0, dtype=np.float32)
        self._waiting: list[NDArray[np.int16]] = []
        self._waiting_samples = 0
        self.samples = 0
        self.has_padded_window = False

    @property
    def _batch_samples(self) -> int:
        scorer = self._scorer
        return (scorer.batch_windows - 1) * scorer.step_samples + scorer.window_samples

    def feed(self, samples: NDArray[np.int16]) -> Iterator[Scores]:
        self.samples += len(samples)
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        if len(self._buffer) + self._waiting_samples >= self._batch_samples:
            self._gather()
            while len(self._buffer) >= self._batch_samples:
                yield self._run(self._scorer.batch_windows)

    def finish(self) -> Iterator[Scores]:
        self._gather()
        scorer = self._scorer
        left = (len(self._buffer) - scorer.window_samples) // scorer.step_samples + 1
        if left > 0:
            yield self._run(left)
        past = self.samples - scorer.window_samples
        self.has_padded_window = past < 0 or past % scorer.step_samples > 0
        if self.has_padded_window:
            self._buffer = np.pad(self._buffer, (0, scorer.window_samples - len(self._buffer)))
            yield self._run(1)

    def _gather(self) -> None:
        fresh = [block.astype(np.float32) / 32768 for block in self._waiting]
        self._buffer = np.concatenate([self._buffer, *fresh])
        self._waiting, self._waiting_samples = [], 0

    def _run(self, count: int) -> Scores:
        scorer = self._scorer
        windows = np.lib.stride_tricks.sliding_window_view(self._buffer, scorer.window_samples)
        scores = scorer.score(np.ascontiguousarray(windows[:: scorer.step_samples][:count]))
        self._buffer = self._buffer[count * scorer.step_samples :]
        return scores


class OverlapAdd:
    """One score per frame from overlapping windows, each weighted with a Hamming window.

    Sums are kept in float32 and windows are added in order, as pyannote does.
    """

    EPSILON = 1e-12

    def __init__(self, scorer: FrameScorer) -> None:
        self._scorer = scorer
        self._added = 0
        self._first = 0
        self._sum = np.empty(0, dtype=np.float32)
        self._weight = np.empty(0, dtype=np.float32)

    def add(self, scores: Scores) -> Scores:
        """Add windows, (n_windows, n_frames); the frames that no later window touches, (n,)."""
        for window in scores:
            self._add(window)
        return self._give(self._first_frame(self._added) - self._first)

    def finish(self) -> Scores:
        """The rest, up to the last frame that pyannote counts; frames without a window score 0."""
        scorer = self._scorer
        end_s = scorer.window_s + (self._added - 1) * scorer.step_s
        total = self._closest_frame(end_s + 0.5 * scorer.frame_s) + 1
        self._reserve(total - self._first)
        return self._give(total - self._first)

    def _add(self, scores: NDArray[np.float32]) -> None:
        at = self._first_frame(self._added) - self._first
        weights = np.hamming(len(scores))
        self._reserve(at + len(scores))
        self._sum[at : at + len(scores)] += scores * weights
        self._weight[at : at + len(scores)] += weights
        self._added += 1

    def _give(self, count: int) -> Scores:
        average = self._sum[:count] / np.maximum(self._weight[:count], self.EPSILON)
        self._sum, self._weight = self._sum[count:], self._weight[count:]
        self._first += count
        return np.asarray(average, dtype=np.float32)

    def _reserve(self, length: int) -> None:
        missing = length - len(self._sum)
        if missing > 0:
            self._sum = np.pad(self._sum, (0, missing))
            self._weight = np.pad(self._weight, (0, missing))

    def _first_frame(self, window: int) -> int:
        return self._closest_frame(window * self._scorer.step_s + 0.5 * self._scorer.frame_s)

    def _closest_frame(self, at_s: float) -> int:
        return int(np.rint((at_s - 0.5 * self._scorer.frame_s) / self._scorer.frame_step_s))


class Regions:
    """Regions of voice by hysteresis; one that grows too long is cut at its least score in the second half.

    Note that a region ends with the first frame below the offset, that the frame at which a region is cut is not
    asked for the offset, and that the score before a region is among those that a cut looks at.
    """

    def __init__(self, onset: float, offset: float, max_s: float) -> None:
        self._onset = onset
        self._offset = offset
        self._max_s = max_s
        self._is_active = False
        self._is_first = True
        self._start_s = 0.0
        self._last_s = 0.0
        self._scores: list[float] = []
        self._times_s: list[float] = []

    @property
    def earliest_s(self) -> float:
        """No later region starts before this."""
        return self._start_s if self._is_active else self._last_s

    def feed(self, at_s: float, score: float) -> Iterator[tuple[float, float]]:
        """The next frame by its middle; regions as (start_s, end_s)."""
        self._last_s = at_s
        if self._is_first:
            self._is_first, self._start_s, self._is_active = False, at_s, score > self._onset
            self._keep(at_s, score)
        elif self._is_active:
            yield from self._go_on(at_s, score)
        elif score > self._onset:
            self._start_s, self._is_active = at_s, True

    def finish(self) -> Iterator[tuple[float, float]]:
        if self._is_active:
            yield from self._region(self._start_s, self._last_s)

    def _go_on(self, at_s: float, score: float) -> Iterator[tuple[float, float]]:
        if at_s - self._start_s > self._max_s:
            yield from self._cut()
        elif score < self._offset:
            yield from self._region(self._start_s, at_s)
            self._start_s, self._is_active = at_s, False
            self._scores, self._times_s = [], []
        self._keep(at_s, score)

    def _cut(self) -> Iterator[tuple[float, float]]:
        half = len(self._scores) // 2
        least = half + int(np.argmin(self._scores[half:]))
        cut_s = self._times_s[least]
        yield from self._region(self._start_s, cut_s)
        self._start_s = cut_s
        self._scores, self._times_s = self._scores[least + 1 :], self._times_s[least + 1 :]

    def _keep(self, at_s: float, score: float) -> None:
        self._scores.append(score)
        self._times_s.append(at_s)

    @staticmethod
    def _region(start_s: float, end_s: float) -> Iterator[tuple[float, float]]:
        if end_s - start_s > LEAST_REGION_S:
            yield start_s, end_s


class Joiner:
    """Windows from regions: joined as long as they span no more than `max_s`, with the silence between."""

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s
        self._start_s: float | None = None
        self._end_s = 0.0
        self._count = 0

    def add(self, start_s: float, end_s: float) -> Iterator[Window]:
        if self._start_s is None:
            self._start_s = start_s
        elif end_s - self._start_s > self._max_s and self._end_s - self._start_s > 0:
            yield self._window(self._start_s)
            self._start_s = start_s
        self._end_s = end_s

    def reach(self, earliest_s: float) -> Iterator[Window]:
        """A region that starts there cannot join any more, so the open window is final."""
        if self._start_s is not None and earliest_s - self._start_s > self._max_s:
            yield from self.finish()

    def finish(self) -> Iterator[Window]:
        start_s, self._start_s = self._start_s, None
        if start_s is not None:
            yield self._window(start_s)

    def decided_upto_s(self, earliest_s: float) -> float:
        return earliest_s if self._start_s is None else self._start_s

    def _window(self, start_s: float) -> Window:
        self._count += 1
        return Window(self._count - 1, start_s, self._end_s)


class WhisperxWindows:
    """The `whisperx` window policy."""

    def __init__(self, scorer: FrameScorer, onset: float, offset: float, max_window_s: float) -> None:
        self._scorer = scorer
        self._sliding = SlidingScores(scorer)
        self._frames = OverlapAdd(scorer)
        self._regions = Regions(onset, offset, max_window_s)
        self._joiner = Joiner(max_window_s)
        self._frame = 0

    def feed(self, samples: NDArray[np.int16]) -> Decided:
        windows: list[Window] = []
        for scores in self._sliding.feed(samples):
            windows.extend(self._hear(self._frames.add(scores)))
        return self._decided(windows)

    def finish(self) -> Decided:
        if not self._sliding.samples:
            return Decided((), 0)
        parts = [self._frames.add(scores) for scores in self._sliding.finish()]
        last = np.concatenate([*parts, self._frames.finish()])
        if self._sliding.has_padded_window:
            last = last[: max(self._frames_in_recording() - self._frame, 0)]
        windows = list(self._hear(last))
        for region in self._regions.finish():
            windows.extend(self._joiner.add(*region))
        windows.extend(self._joiner.finish())
        return Decided(tuple(windows), self._sliding.samples)

    def _frames_in_recording(self) -> int:
        """Frames that begin in the recording: those of the padding are dropped, if there was padding."""
        return int(np.floor(self._sliding.samples / SAMPLE_RATE_HZ / self._scorer.frame_step_s)) + 1

    def _hear(self, scores: Scores) -> Iterator[Window]:
        for score in scores.tolist():
            for region in self._regions.feed(self._middle_s(self._frame), score):
                yield from self._joiner.add(*region)
            self._frame += 1

    def _middle_s(self, frame: int) -> float:
        start_s = frame * self._scorer.frame_step_s
        return 0.5 * (start_s + (start_s + self._scorer.frame_s))

    def _decided(self, windows: list[Window]) -> Decided:
        earliest_s = self._regions.earliest_s
        windows.extend(self._joiner.reach(earliest_s))
        return Decided(tuple(windows), to_samples(self._joiner.decided_upto_s(earliest_s)))


def whisperx_windows(vad: VadOptions, max_window_s: float, scorer: FrameScorer) -> WhisperxWindows:
    onset = ONSET if vad.onset is None else vad.onset
    offset = OFFSET if vad.offset is None else vad.offset
    return WhisperxWindows(scorer, onset, offset, max_window_s)
