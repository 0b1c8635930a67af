"""Clustering fewer embeddings of long recordings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumer.speech.replay import thin


@given(st.integers(0, 400), st.integers(1, 3), st.integers(1, 500))
def test_at_most_about_so_many_are_kept_evenly_over_the_recording(windows: int, speakers: int, most: int) -> None:
    of_windows = np.repeat(np.arange(windows), speakers)
    of_speakers = np.tile(np.arange(speakers), windows)
    embeddings = np.stack([of_windows, of_speakers], axis=1).astype(np.float32)
    kept, at, who = thin(embeddings, of_windows, of_speakers, most)
    np.testing.assert_array_equal(kept, np.stack([at, who], axis=1))
    assert len(kept) <= most + speakers
    if len(embeddings) <= most:
        assert kept is embeddings
    elif windows:
        assert len(set(np.diff(np.unique(at)))) <= 1, "every n-th window, with all its speakers"
