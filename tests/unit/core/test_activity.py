from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from consumer.core.activity import without_gaps
from consumer.core.speech import Activity


def _activity(first: int, windows: int) -> Activity:
    return Activity(
        first=first,
        scores=np.ones((windows, 5, 3), dtype=np.float32),
        embeddings=np.ones((windows, 3, 8), dtype=np.float32),
    )


def test_a_whole_row_stays_as_it_is() -> None:
    first, second = _activity(0, 4), _activity(4, 2)
    assert list(without_gaps([first, second])) == [first, second]


def test_an_activity_is_asked_for_when_the_one_before_it_is_done_with() -> None:
    asked = []

    def activities() -> Iterator[Activity]:
        for first in (0, 4, 8):
            asked.append(first)
            yield _activity(first, 4)

    row = without_gaps(activities())
    assert asked == []
    assert [next(row).first, next(row).first] == [0, 4]
    assert asked == [0, 4]


def test_missing_windows_are_silence_without_voices() -> None:
    whole = list(without_gaps([_activity(3, 2), _activity(9, 1)]))
    assert [(part.first, len(part.scores)) for part in whole] == [(0, 3), (3, 2), (5, 4), (9, 1)]
    silence = whole[2]
    assert silence.scores.shape == (4, 5, 3)
    assert not silence.scores.any()
    assert silence.embeddings.shape == (4, 3, 8)
    assert np.isnan(silence.embeddings).all()
    assert silence.scores.dtype == silence.embeddings.dtype == np.float32


def test_nothing_stays_nothing() -> None:
    assert list(without_gaps([])) == []


def test_a_window_that_is_there_twice_is_a_bug() -> None:
    with pytest.raises(ValueError, match="window 3 is there twice"):
        list(without_gaps([_activity(0, 4), _activity(3, 2)]))


def test_activities_out_of_order_are_a_bug() -> None:
    with pytest.raises(ValueError, match="window 0 is there twice"):
        list(without_gaps([_activity(4, 2), _activity(0, 4)]))
