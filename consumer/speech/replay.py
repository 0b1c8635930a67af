"""pyannote's pipeline over scores and embeddings that were computed before, with memory bounded for long recordings.

`SpeakerDiarization.apply` asks itself for both; here they come with the recording. Three of its steps are replaced by
others that take less memory: scores are binarised block by block, turns are rebuilt without an array of (windows,
frames, speakers) in float64, which both give the same; and at most MOST_CLUSTERED embeddings are clustered, because
the distances of n embeddings take 4 n² bytes, twice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1_000
"""Windows binarised together; the work arrays are about twenty times as large as the scores."""
MOST_CLUSTERED = 6_000
"""About 150 MB of distances, twice, and about an hour and a half of conversation. Beyond it every second, third, …
window is clustered, evenly over the recording; neighbouring windows share 80 to 90 % of their sound. All embeddings
are then assigned to the clusters that were found, as always."""


def become_replay(pipeline: Any) -> None:
    """Change a loaded `SpeakerDiarization` in place. Its `apply` then takes {"uri", "scores", "embeddings"}."""
    from pyannote.audio.pipelines import SpeakerDiarization

    class Replay(SpeakerDiarization):
        def get_segmentations(self, file: Any, hook: Any = None) -> Any:  # noqa: ARG002  (pyannote's signature)
            return file["scores"]

        def get_embeddings(self, file: Any, *_: Any, **__: Any) -> Any:
            return file["embeddings"]

        def reconstruct(self, segmentations: Any, hard_clusters: NDArray[np.int_], count: Any) -> Any:
            return rebuild(segmentations, hard_clusters, count)

    class Thinned(type(pipeline.clustering)):  # type: ignore[misc]  # a class that is known only now
        def filter_embeddings(self, embeddings: Any, *args: Any, **options: Any) -> Any:
            chosen, windows, speakers = super().filter_embeddings(embeddings, *args, **options)
            return thin(chosen, windows, speakers, MOST_CLUSTERED)

    pipeline.__class__ = Replay
    pipeline.clustering.__class__ = Thinned


def stored_scores(scores: NDArray[np.float32], duration_s: float, step_s: float) -> Any:
    """Scores of sliding windows, (windows, frames, local speakers), as pyannote wants them."""
    from pyannote.core import SlidingWindow

    return _stored_scores_class()(scores, SlidingWindow(start=0.0, duration=duration_s, step=step_s))


@cache
def _stored_scores_class() -> Any:
    """A feature that pyannote's `binarize` takes in blocks: it chooses what to do by the class."""
    from pyannote.audio.utils.signal import binarize
    from pyannote.core import SlidingWindowFeature

    class StoredScores(SlidingWindowFeature):  # type: ignore[misc]  # pyannote.core has no types
        pass

    @binarize.register(StoredScores)
    def in_blocks(scores: Any, **options: Any) -> Any:
        binary = np.empty_like(scores.data)
        for start in range(0, len(binary), BLOCK):
            block = SlidingWindowFeature(scores.data[start : start + BLOCK], scores.sliding_window)
            binary[start : start + BLOCK] = binarize(block, **options).data
        return SlidingWindowFeature(binary, scores.sliding_window)

    return StoredScores


def thin(
    embeddings: NDArray[np.floating[Any]], windows: NDArray[np.int_], speakers: NDArray[np.int_], most: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int_], NDArray[np.int_]]:
    """Those of every n-th window, so that about `most` are left; all of them while they are no more.

    `windows` and `speakers` say where each embedding, (n_embeddings, dimension), comes from.
    """
    step = -(-len(embeddings) // most)
    if step <= 1:
        return embeddings, windows, speakers
    kept = windows % step == 0
    return embeddings[kept], windows[kept], speakers[kept]


def rebuild(segmentations: Any, clusters: NDArray[np.int_], count: Any) -> Any:
    """Who speaks in each frame of the recording, 0 or 1: as many as `count` says, those with the highest sums.

    What `reconstruct` and `to_diarization` give, window by window. `segmentations` has the scores of the local
    speakers, (windows, frames, local speakers), `clusters` their speaker (-2: silent), (windows, local speakers).
    """
    from pyannote.core import SlidingWindowFeature

    sums = _sums(segmentations, clusters, count.sliding_window)
    most_at_once = int(np.max(count.data))
    if sums.data.shape[1] < most_at_once:
        sums.data = np.pad(sums.data, ((0, 0), (0, most_at_once - sums.data.shape[1])))
    extent = sums.extent & count.extent
    sums, count = sums.crop(extent, return_data=False), count.crop(extent, return_data=False)
    frames = min(len(sums.data), len(count.data))
    loudest_first = np.argsort(-sums.data, axis=-1)
    chosen = np.arange(sums.data.shape[1])[None] < count.data[:frames]
    speaking = np.zeros_like(sums.data)
    np.put_along_axis(speaking[:frames], loudest_first[:frames], chosen.astype(speaking.dtype), axis=1)
    return SlidingWindowFeature(speaking, sums.sliding_window)


def _sums(segmentations: Any, clusters: NDArray[np.int_], frames: Any) -> Any:
    """Scores of each speaker summed over the windows that cover a frame, (frames of the recording, speakers).

    A speaker with several local speakers in a window counts once, with the loudest of them.
    """
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    windows = segmentations.sliding_window
    n_windows, n_frames, _ = segmentations.data.shape
    grid = SlidingWindow(start=windows.start, duration=frames.duration, step=frames.step)
    end_s = windows.start + windows.duration + (n_windows - 1) * windows.step
    total = grid.closest_frame(end_s + 0.5 * frames.duration) + 1
    sums = np.zeros((total, int(clusters.max()) + 1), dtype=np.float32)
    for of_window, (window, scores) in zip(clusters, segmentations, strict=True):
        first = grid.closest_frame(window.start + 0.5 * frames.duration)
        for speaker in np.unique(of_window[of_window != -2]):
            sums[first : first + n_frames, speaker] += np.max(scores[:, of_window == speaker], axis=1)
    return SlidingWindowFeature(sums, grid)
