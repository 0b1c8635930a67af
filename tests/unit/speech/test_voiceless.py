"""Who a local speaker is taken for whose embedding is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.speech.voiceless import placed, silenced, without_voice

FRAMES, STEP = 8, 2
"""Of a window, and between two of them."""


def windows(said: dict[int, str], count: int) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """What `count` windows hear of voices that are given as a string of frames, `x` where they speak; of each window's
    local speakers one is each voice. The clusters are the voices."""
    active = np.zeros((count, FRAMES, len(said)), dtype=np.uint8)
    for voice, frames in said.items():
        heard = np.array([frame == "x" for frame in frames.ljust(FRAMES + STEP * count)])
        for window in range(count):
            active[window, :, voice] = heard[window * STEP : window * STEP + FRAMES]
    return active, np.tile(np.arange(len(said), dtype=np.int8), (count, 1))


def mask(clusters: NDArray[np.int8], *places: tuple[int, int]) -> NDArray[np.bool_]:
    chosen = np.zeros(clusters.shape, dtype=np.bool_)
    for place in places:
        chosen[place] = True
    return chosen


@pytest.mark.parametrize("none", [np.nan, np.inf, -np.inf, 0.0, 1e-30, 3e38])
def test_an_embedding_without_a_direction_is_none(none: float) -> None:
    embeddings = np.ones((2, 3, 4), dtype=np.float32)
    embeddings[1, 2] = none
    assert without_voice(embeddings).tolist() == [[False] * 3, [False, False, True]]
    embeddings[1, 2, 1:] = 1.0
    assert without_voice(embeddings)[1, 2] == (not np.isfinite(none) or none > 1e30)


def test_it_is_who_the_windows_beside_hear_at_the_same_time() -> None:
    """Both voices are near; the one that speaks in the same frames is it, and the numbers in a window say nothing."""
    active, clusters = windows({0: "xxxxxx", 1: "      xxxxxxxx"}, 5)
    wrong = clusters.copy()
    wrong[2] = [1, 0]
    voiceless = mask(clusters, (2, 0), (2, 1))
    np.testing.assert_array_equal(placed(wrong, active, voiceless, STEP), clusters)


def test_it_is_nobody_who_speaks_beside_it_in_its_own_window() -> None:
    active, clusters = windows({0: "xxxxxxxxxxxxxxxx", 1: "    xxxxxxxx"}, 5)
    wrong = clusters.copy()
    wrong[2, 1] = 0
    np.testing.assert_array_equal(placed(wrong, active, mask(clusters, (2, 1)), STEP), clusters)


def test_where_nobody_heard_it_it_is_whoever_is_nearest_in_time() -> None:
    """A turn of which no window has an embedding."""
    active, clusters = windows({0: "xx", 1: " " * 36 + "xx", 2: " " * 20 + "xx"}, 24)
    speaks = np.argwhere(active[:, :, 2].any(axis=1)).ravel()
    voiceless = mask(clusters, *((int(window), 2) for window in speaks))
    found = placed(clusters, active, voiceless, STEP)
    before, after = np.flatnonzero(active[:, :, 0].any(axis=1)).max(), np.flatnonzero(active[:, :, 1].any(axis=1)).min()
    for window in speaks:
        assert found[window, 2] == int(abs(window - before) > abs(after - window))
    assert set(found[speaks, 2].tolist()) == {0, 1}


def test_two_in_one_window_are_two_while_there_is_a_choice() -> None:
    active, clusters = windows({0: "xxxxxxxxxxxx", 1: "xxxxxxxxxxxx"}, 3)
    wrong = np.zeros_like(clusters)
    wrong[[0, 2]] = [0, 1]
    found = placed(wrong, active, mask(clusters, (1, 0), (1, 1)), STEP)
    assert sorted(found[1].tolist()) == [0, 1]
    alone = placed(np.zeros_like(clusters), active, mask(clusters, (1, 0), (1, 1)), STEP)
    assert alone[1].tolist() == [0, 0]


@pytest.mark.parametrize("speakers", [1, 2])
def test_who_got_no_speaker_in_the_clustering_has_no_say(speakers: int) -> None:
    """VBx gives two of a window the same speaker under no circumstances, so one of them is left over."""
    active, clusters = windows({0: "xxxxxxxxxxxxxx", 1: "xxxxxxxxxxxxxx"}, 4)
    clusters[:, 1] = -2
    clusters[0] = [-2, speakers - 1]
    found = placed(clusters, active, mask(clusters, (2, 0)), STEP)
    expected = clusters.copy()
    expected[2, 0] = 0
    np.testing.assert_array_equal(found, expected)


def test_where_nobody_has_a_voice_all_stays_as_it_is() -> None:
    active, clusters = windows({0: "xxxxxx", 1: "  xxxx"}, 3)
    np.testing.assert_array_equal(placed(clusters, active, np.ones_like(clusters, dtype=bool), STEP), clusters)


def test_the_silent_are_never_placed() -> None:
    active, clusters = windows({0: "xxxxxx", 1: ""}, 3)
    np.testing.assert_array_equal(placed(clusters, active, mask(clusters, (1, 1)), STEP), clusters)


def test_what_was_silenced_is_heard_again_even_after_a_failure() -> None:
    active, clusters = windows({0: "xxxxxx", 1: "  xxxx"}, 3)
    before, voiceless = active.copy(), mask(clusters, (1, 0))
    with silenced(active, voiceless):
        assert active[1, :, 0].sum() == 0
        assert active.sum() == before.sum() - before[1, :, 0].sum()
    np.testing.assert_array_equal(active, before)
    with pytest.raises(ZeroDivisionError), silenced(active, voiceless):
        _ = 1 / 0
    np.testing.assert_array_equal(active, before)
