"""Local speakers without a voice: they were heard, but their embedding is none (NaN, infinite, or of no length).

In the clustering one of them would spoil the distances of all, so they take no part in it. Then each is taken for the
speaker that the overlapping windows heard at the same time, and where these heard nobody for the one nearest in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Active = NDArray[Any]
"""Who speaks in each frame of each window, 0 or 1: (windows, frames, local speakers)."""
Clusters = NDArray[np.integer[Any]]
"""The speaker that each local speaker is, (windows, local speakers); negative where it is none."""
Mask = NDArray[np.bool_]


def without_voice(embeddings: Floats) -> Mask:
    """Which embeddings point nowhere, by the precision that they are clustered in; (..., dimension) comes in."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(embeddings, axis=-1)
    return np.asarray(~((lengths > 0) & (lengths < np.inf)))


@contextmanager
def silenced(active: Active, voiceless: Mask) -> Iterator[None]:
    """As long as it is open, these local speakers say nothing; no copy of the rest is made."""
    by_speaker = active.transpose(0, 2, 1)
    said = by_speaker[voiceless]
    by_speaker[voiceless] = 0
    try:
        yield
    finally:
        by_speaker[voiceless] = said


def placed(clusters: Clusters, active: Active, voiceless: Mask, step_frames: float) -> Clusters:
    """The clusters with those of the voiceless; a window begins `step_frames` frames after the one before it.

    No local speaker is taken for another one of its window while there is a choice. Where nobody has a voice the
    clusters stay as they are.
    """
    found = clusters.copy()
    speaks = active.any(axis=1)
    known = speaks & ~voiceless & (clusters >= 0)
    windows = np.flatnonzero(known.any(axis=1))
    if len(windows):
        for window, speaker in np.argwhere(speaks & voiceless):
            others = known[window].copy()
            others |= (speaks & voiceless)[window] & (np.arange(len(others)) < speaker)  # these are placed already
            votes = _heard_beside(clusters, active, known, step_frames, window, speaker)
            votes[found[window, others]] = 0
            if votes.any():
                found[window, speaker] = votes.argmax()
            else:
                found[window, speaker] = _nearest(clusters, known, windows, window, found[window, others])
    return found


def _heard_beside(
    clusters: Clusters, active: Active, known: Mask, step_frames: float, window: int, speaker: int
) -> NDArray[np.float64]:
    """Frames in which other windows hear each cluster while this local speaker speaks, (clusters,)."""
    votes = np.zeros(int(clusters.max()) + 1)
    frames = active.shape[1]
    reach = int((frames - 1) / step_frames)
    for other in range(max(window - reach, 0), min(window + reach + 1, len(clusters))):
        shift = round((other - window) * step_frames)
        if other == window or abs(shift) >= frames:
            continue
        here = active[window, max(shift, 0) : frames + min(shift, 0), speaker]
        there = active[other, max(-shift, 0) : frames - max(shift, 0), :][:, known[other]]
        np.add.at(votes, clusters[other, known[other]], here.astype(np.float32) @ there.astype(np.float32))
    return votes


def _nearest(clusters: Clusters, known: Mask, windows: NDArray[np.intp], window: int, taken: Clusters) -> int:
    """Who has a voice in the nearest window where anybody has, the earlier one of two; rather one who is not taken."""
    after = int(np.searchsorted(windows, window))
    nearest = min(windows[max(after - 1, 0) : after + 1], key=lambda other: abs(int(other) - window))
    heard = clusters[nearest, known[nearest]]
    free = heard[~np.isin(heard, taken)]
    return int(free[0] if len(free) else heard[0])
