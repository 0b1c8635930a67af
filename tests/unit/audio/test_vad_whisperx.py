"""The whisperx policy gives whisperx's windows, to the last bit, in a stream."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.audio.vad_whisperx import OverlapAdd, whisperx_windows
from consumer.core.values import Window
from consumer.core.windows import Decided
from consumer.events import VadOptions
from tests.unit.audio.sources import decode_all

RECORDINGS = Path(__file__).parents[3] / "demo" / "recordings"
Times = list[tuple[float, float]]


class FakeScorer:
    """Scores from the samples themselves: a frame is as likely as its samples are loud. Same grids as the real one."""

    window_samples = 80_000
    step_samples = 8_000
    window_s = 5.0
    step_s = 0.5
    frame_s = 0.0619375
    frame_step_s = 0.016875
    batch_windows = 32
    frames = 293

    def score(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """With a little of the window's own level, so that neighbouring windows disagree as real ones do."""
        parts = windows[:, : self.frames * 270].reshape(len(windows), self.frames, 270)
        loudness = np.abs(parts).max(axis=2) + np.abs(windows).mean(axis=1, keepdims=True) / 4
        return np.asarray(np.minimum(loudness, 1), dtype=np.float32)


def stream(samples: NDArray[np.int16], scorer: Any, max_window_s: float, block: int, vad: VadOptions) -> list[Decided]:
    policy = whisperx_windows(vad, max_window_s, scorer)
    parts = [policy.feed(samples[at : at + block]) for at in range(0, len(samples), block)]
    return [*parts, policy.finish()]


def windows_of(decided: Sequence[Decided]) -> list[Window]:
    return [window for part in decided for window in part.windows]


@cache
def bursts(seed: int, seconds: float) -> NDArray[np.int16]:
    """Noise that comes and goes."""
    random = np.random.default_rng(seed)
    n = int(seconds * 16_000)
    level = np.repeat(random.choice([0.0, 0.2, 0.45, 0.6, 0.9], n // 4_000 + 1), 4_000)
    noise: NDArray[np.float64] = random.uniform(-1, 1, n) * level[:n]
    return (noise * 32_767).astype(np.int16)


SECONDS = st.sampled_from([0.01, 3.0, 5.0, 5.5, 20.25, 63.0, 100.03])
MAX_WINDOW_S = st.sampled_from([2.0, 5.0, 12.0, 30.0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), SECONDS, MAX_WINDOW_S, st.integers(1_000, 400_000), st.integers(1_000, 400_000))
def test_the_sizes_of_the_blocks_change_nothing(
    seed: int, seconds: float, max_window_s: float, some: int, others: int
) -> None:
    samples = bursts(seed, seconds)
    assert windows_of(stream(samples, FakeScorer(), max_window_s, some, VadOptions())) == windows_of(
        stream(samples, FakeScorer(), max_window_s, others, VadOptions())
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), SECONDS, MAX_WINDOW_S, st.integers(1_000, 400_000))
def test_no_window_is_too_long_or_starts_before_what_was_decided(
    seed: int, seconds: float, max_window_s: float, block: int
) -> None:
    decided = stream(bursts(seed, seconds), FakeScorer(), max_window_s, block, VadOptions())
    windows = windows_of(decided)
    assert all(w.end_s - w.start_s <= max_window_s for w in windows)
    assert all(a.end_s <= b.start_s for a, b in pairwise(windows))
    assert all(a.upto <= b.upto for a, b in pairwise(decided))
    assert all(w.span.start >= a.upto for a, b in pairwise(decided) for w in b.windows)


def test_a_recording_without_samples_has_no_windows() -> None:
    assert stream(np.empty(0, dtype=np.int16), FakeScorer(), 30, 100, VadOptions())[-1] == Decided((), 0)


@cache
def whisperx_vads() -> Any:
    """The modules of whisperx that make windows; importing them takes a while and warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import whisperx.vads.pyannote as vads
    return vads


def whisperx_merge(scores: Any, max_window_s: float, onset: float, offset: float) -> Times:
    merged = whisperx_vads().Pyannote.merge_chunks(scores, max_window_s, onset=onset, offset=offset)
    return [(window["start"], window["end"]) for window in merged]


def times(decided: Sequence[Decided]) -> Times:
    return [(w.start_s, w.end_s) for w in windows_of(decided)]


@pytest.mark.models
class TestAgainstWhisperx:
    def reference(self, samples: NDArray[np.int16], scorer: FakeScorer) -> Any:
        """pyannote's own aggregation of the same scores, over the whole recording at once."""
        from pyannote.audio import Inference
        from pyannote.core import Segment, SlidingWindow, SlidingWindowFeature

        padded = samples
        past = len(samples) - scorer.window_samples
        is_padded = past < 0 or past % scorer.step_samples > 0
        if is_padded:
            padded = np.pad(samples, (0, -past if past < 0 else scorer.step_samples - past % scorer.step_samples))
        views = np.lib.stride_tricks.sliding_window_view(
            padded.astype(np.float32) / np.float32(32768), scorer.window_samples
        )
        scores = scorer.score(views[:: scorer.step_samples])[..., None]
        sliding = SlidingWindow(start=0.0, duration=scorer.window_s, step=scorer.step_s)
        frames = SlidingWindow(duration=scorer.frame_s, step=scorer.frame_step_s)
        whole = Inference.aggregate(
            SlidingWindowFeature(scores.copy(), sliding), frames, hamming=True, missing=0.0, warm_up=(0.0, 0.0)
        )
        if is_padded:
            whole.data = whole.crop(Segment(0.0, len(samples) / 16_000), mode="loose")
        return whole

    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(0, 200),
        st.sampled_from([0.01, 3.0, 5.0, 5.5, 20.25, 63.0, 100.03]),
        MAX_WINDOW_S,
        st.integers(1_000, 400_000),
        st.sampled_from([(0.5, 0.363), (0.8, 0.3), (0.3, 0.3)]),
    )
    def test_windows_are_its_own_for_any_scores(
        self, seed: int, seconds: float, max_window_s: float, block: int, thresholds: tuple[float, float]
    ) -> None:
        onset, offset = thresholds
        samples = bursts(seed, seconds)
        expected = whisperx_merge(self.reference(samples, FakeScorer()), max_window_s, onset, offset)
        ours = stream(samples, FakeScorer(), max_window_s, block, VadOptions(onset=onset, offset=offset))
        assert times(ours) == expected

    def test_overlap_add_is_pyannotes_to_the_last_bit(self) -> None:
        samples, scorer = bursts(7, 100.03), FakeScorer()
        theirs = self.reference(samples, scorer).data[:, 0]
        views = np.lib.stride_tricks.sliding_window_view(
            samples.astype(np.float32) / np.float32(32768), scorer.window_samples
        )
        frames = OverlapAdd(scorer)
        ours = np.concatenate([frames.add(scorer.score(views[at : at + 1])) for at in range(0, len(views), 8_000)])
        assert len(ours) > 5_000
        assert np.array_equal(ours, theirs[: len(ours)])

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    @pytest.mark.parametrize("name", ["conversation-90s", "conversation-5min"])
    def test_windows_of_a_conversation_are_its_own(self, name: str) -> None:
        """The real model on both sides; for other block sizes its scores are remembered by what was scored."""
        import torch

        samples = decode_all((RECORDINGS / f"{name}.flac").read_bytes()).samples
        reference = whisperx_vads().Pyannote(torch.device("cpu"), vad_onset=0.5, vad_offset=0.363)
        whole = torch.from_numpy(samples.astype(np.float32) / 32768)[None]
        scores = reference({"waveform": whole, "sample_rate": 16_000})
        scorer = RememberingScorer()
        for max_window_s in (12, 30):
            expected = whisperx_merge(scores, max_window_s, 0.5, 0.363)
            assert len(expected) > len(samples) / 16_000 / max_window_s / 2
            for block in (32_768, 7_777, 1_000_000):
                assert times(stream(samples, scorer, max_window_s, block, VadOptions())) == expected
        assert scorer.misses < 25


class RememberingScorer:
    """whisperx's model; asks it once for each batch."""

    def __init__(self) -> None:
        from consumer.speech.vad import whisperx_scorer

        self._inner = whisperx_scorer()
        self._known: dict[int, NDArray[np.float32]] = {}
        self.misses = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def score(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        key = hash(windows.tobytes())
        if key not in self._known:
            self.misses += 1
            self._known[key] = self._inner.score(windows)
        return self._known[key]
