"""Turns from clustered windows, block by block: the same as pyannote's `reconstruct` and `to_annotation` give.

pyannote makes arrays of (windows, frames, speakers) and (frames of the recording, speakers), several of each: 10 GB
for ten hours and 20 speakers. Here a frame is decided as soon as no later window can cover it, and only the frames
where a speaker begins or ends are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 500
"""Windows whose frames are decided together."""

Floats = NDArray[np.float32]
Clusters = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Runs:
    """Who speaks in which frames of the recording, as runs of frames.

    `borders` are where someone begins or ends, in turn, in order of speakers and frames, (n_borders, 2): speaker and
    frame. Whoever speaks to the end ends behind the last frame. `grid` are pyannote's frames.
    """

    borders: NDArray[np.int64]
    frames: int
    speakers: int
    grid: Any


def rebuild(segmentations: Any, clusters: Clusters, count: Any) -> Runs:
    """Who speaks in each frame of the recording: as many as `count` says, those with the highest sums.

    `segmentations` has the scores of the local speakers, (windows, frames, local speakers), `clusters` their speaker
    (-2: silent), (windows, local speakers), and `count` the speakers at once, (frames of the recording, 1).
    """
    from pyannote.core import SlidingWindowFeature

    grid, firsts, total = _grid(segmentations, count.sliding_window)
    numbers = SlidingWindowFeature(np.arange(total)[:, None], grid)
    extent = numbers.extent & count.extent
    numbers, count = numbers.crop(extent, return_data=False), count.crop(extent, return_data=False)
    first, frames = int(numbers.data[0, 0]), len(numbers.data)
    at_once = np.zeros(frames, dtype=np.int64)
    known = min(frames, len(count.data))
    at_once[:known] = count.data[:known, 0]
    speakers = max(int(clusters.max()) + 1, int(at_once.max()))
    borders = _Borders(speakers)
    for start, sums in _sums(segmentations, clusters, firsts, total, speakers):
        kept = slice(max(start, first), min(start + len(sums), first + frames))
        if kept.start < kept.stop:
            here = sums[kept.start - start : kept.stop - start]
            borders.add(kept.start - first, _loudest(here, at_once[kept.start - first : kept.stop - first]))
    return Runs(borders.all(frames), frames, speakers, numbers.sliding_window)


def annotation(runs: Runs, min_duration_off: float) -> Any:
    """pyannote's `Annotation`: one track per speaker, speakers by number, gaps up to `min_duration_off` s filled.

    A turn reaches from the middle of its first frame to the middle of the frame behind it, as `Binarize` has it.
    """
    from pyannote.core import Annotation, Segment
    from pyannote.core.utils.generators import string_generator

    tracks = string_generator()
    names = [next(tracks) for _ in range(runs.speakers)]
    spoken = Annotation()
    for (speaker, first), (_, behind) in runs.borders.reshape(-1, 2, 2).tolist():
        last = min(behind, runs.frames - 1)
        spoken[Segment(runs.grid[first].middle, runs.grid[last].middle), names[speaker]] = speaker
    return spoken.support(collar=min_duration_off) if min_duration_off > 0 else spoken


def _grid(segmentations: Any, frames: Any) -> tuple[Any, list[int], int]:
    """pyannote's frames counted from the first window, the first frame of each window, and the number of frames."""
    from pyannote.core import SlidingWindow

    windows, n_windows = segmentations.sliding_window, len(segmentations.data)
    grid = SlidingWindow(start=windows.start, duration=frames.duration, step=frames.step)
    end_s = windows.start + windows.duration + (n_windows - 1) * windows.step
    firsts = [grid.closest_frame(windows[number].start + 0.5 * frames.duration) for number in range(n_windows)]
    return grid, firsts, grid.closest_frame(end_s + 0.5 * frames.duration) + 1


def _sums(
    segmentations: Any, clusters: Clusters, firsts: list[int], total: int, speakers: int
) -> Iterator[tuple[int, Floats]]:
    """Scores of each speaker summed over the windows that cover a frame: first frame, (frames, speakers), and so on.

    A speaker with several local speakers in a window counts once, with the loudest of them.
    """
    n_windows, n_frames, _ = segmentations.data.shape
    tail = np.zeros((0, speakers), dtype=np.float32)
    for start in range(0, n_windows, BLOCK):
        numbers = range(start, min(start + BLOCK, n_windows))
        first, behind = firsts[start], firsts[numbers.stop] if numbers.stop < n_windows else total
        sums = np.zeros((max(firsts[numbers[-1]] + n_frames, behind) - first, speakers), dtype=np.float32)
        sums[: len(tail)] = tail
        for number in numbers:
            frames = slice(firsts[number] - first, firsts[number] - first + n_frames)
            scores, of_window = segmentations.data[number], clusters[number]
            for speaker in np.unique(of_window[of_window != -2]):
                sums[frames, speaker] += np.max(scores[:, of_window == speaker], axis=1)
        yield first, sums[: behind - first]
        tail = sums[behind - first :]


def _loudest(sums: Floats, at_once: NDArray[np.int64]) -> NDArray[np.bool_]:
    """As many speakers in each frame as speak at once, those with the highest sums; (frames, speakers) both."""
    speaking = np.zeros(sums.shape, dtype=np.bool_)
    voiced = np.flatnonzero(at_once)
    # The sort of pyannote, and not a stable one: so speakers with equal sums come in its order.
    loudest_first = np.argsort(-sums[voiced], axis=-1)
    chosen = np.arange(sums.shape[1])[None] < at_once[voiced, None]
    rows = np.zeros((len(voiced), sums.shape[1]), dtype=np.bool_)
    np.put_along_axis(rows, loudest_first, chosen, axis=1)
    speaking[voiced] = rows
    return speaking


class _Borders:
    """Gathers where speakers begin and end, from one block of frames to the next."""

    def __init__(self, speakers: int) -> None:
        self._speaking = np.zeros((1, speakers), dtype=np.bool_)
        self._found: list[NDArray[np.int64]] = []

    def add(self, first: int, speaking: NDArray[np.bool_]) -> None:
        frames, speakers = np.nonzero(np.diff(np.concatenate([self._speaking, speaking]), axis=0))
        self._found.append(np.stack([speakers, frames + first], axis=1))
        self._speaking = speaking[-1:]

    def all(self, frames: int) -> NDArray[np.int64]:
        self.add(frames, np.zeros_like(self._speaking))
        borders = np.concatenate(self._found)
        return borders[np.lexsort((borders[:, 1], borders[:, 0]))]
