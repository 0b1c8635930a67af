"""The memory-saving steps of diarization's reduce give what pyannote's own steps give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consumer.speech.replay import rebuild

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


def recording(seed: int, windows: int, speakers: int) -> tuple[Any, Any, Any]:
    """Scores of 5 s windows every second, clusters of their local speakers, and speakers at once per frame."""
    from pyannote.audio.pipelines.utils.diarization import SpeakerDiarizationMixin
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    r = np.random.default_rng(seed)
    scores = r.random((windows, 293, 3), dtype=np.float32)
    scores[r.random(scores.shape) < 0.3] = 0  # ties, whose order must agree too
    grid = SlidingWindow(start=0.0, duration=5.0, step=1.0)
    frames = SlidingWindow(start=0.0, duration=0.0619375, step=0.016875)
    clusters = r.integers(0, speakers, (windows, 3))
    clusters[r.random(clusters.shape) < 0.3] = -2
    active = SlidingWindowFeature((scores > 0.6).astype(np.float32), grid)
    count = SpeakerDiarizationMixin.speaker_count(active, frames, warm_up=(0.0, 0.0))
    return SlidingWindowFeature(scores, grid), clusters, count


@pytest.mark.parametrize(("seed", "windows", "speakers"), [(1, 1, 1), (2, 2, 2), (3, 40, 3), (4, 40, 7), (5, 120, 2)])
def test_turns_are_rebuilt_frame_by_frame_as_pyannote_does(seed: int, windows: int, speakers: int) -> None:
    from pyannote.audio.pipelines import SpeakerDiarization

    segmentations, clusters, count = recording(seed, windows, speakers)
    clusters[0, 0] = speakers - 1
    ours = rebuild(segmentations, clusters, count)
    pipeline: Any = SimpleNamespace(to_diarization=SpeakerDiarization.to_diarization)
    theirs = SpeakerDiarization.reconstruct(pipeline, segmentations, clusters, count)
    np.testing.assert_array_equal(ours.data, theirs.data)
    for fact in ("start", "duration", "step"):
        assert getattr(ours.sliding_window, fact) == getattr(theirs.sliding_window, fact)
    assert ours.data.sum() > 0


def test_scores_are_binarised_in_blocks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyannote.audio.utils.signal import binarize

    from consumer.speech import replay

    monkeypatch.setattr(replay, "BLOCK", 7)
    whole, _, _ = recording(6, 40, 3)
    whole.data[:, :9] = 0.6  # exactly at the threshold: the state before it holds
    stored = replay.stored_scores(whole.data, 5.0, 1.0)
    expected = binarize(whole, onset=0.6, initial_state=False)
    found = binarize(stored, onset=0.6, initial_state=False)
    np.testing.assert_array_equal(found.data, expected.data)
    assert 0 < found.data.mean() < 1
