"""Diarization's map steps of all chunks as one unbroken row of windows, also where a chunk is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from consumer.core.speech import Activity


def without_gaps(activities: Iterable[Activity]) -> Iterator[Activity]:
    """The activities one by one, windows of failed chunks before and between them filled with silence.

    What is missing behind the last one is left to the engine, which knows how many windows the recording has.
    They come in the order of their chunks. Raises ValueError when two of them hold the same window: then one of them is
    of another plan.
    """
    next_window = 0
    for activity in activities:
        if activity.first < next_window:
            raise ValueError(f"window {activity.first} is there twice: the chunks are not of one plan")
        if activity.first > next_window:
            yield _silence(next_window, activity.first - next_window, activity)
        yield activity
        next_window = activity.first + len(activity.scores)


def _silence(first: int, windows: int, like: Activity) -> Activity:
    """Windows in which nobody speaks; an embedding of nobody is NaN, as pyannote has it."""
    return Activity(
        first=first,
        scores=np.zeros((windows, *like.scores.shape[1:]), dtype=np.float32),
        embeddings=np.full((windows, *like.embeddings.shape[1:]), np.nan, dtype=np.float32),
    )
