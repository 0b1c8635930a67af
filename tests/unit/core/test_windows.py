"""Windows from probabilities: never too long, never without the voice, the same however they come in."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.values import Window
from consumer.core.windows import Decided, VoiceShape, Windows

FRAME = 512
FRAME_S = FRAME / 16_000


@st.composite
def voices(draw: st.DrawFn) -> list[float]:
    """Probabilities of speech in runs of loud, quiet and in between, a few minutes at most."""
    runs = draw(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.6, 0.9]), st.integers(1, 120)), max_size=40))
    jitter = random.Random(draw(st.integers(0, 1000)))
    return [min(max(level + jitter.uniform(-0.05, 0.05), 0), 1) for level, count in runs for _ in range(count)]


SHAPES = st.builds(
    VoiceShape,
    max_window_s=st.floats(1, 30),
    min_speech_s=st.sampled_from([0.0, 0.1, 0.5]),
    min_silence_s=st.sampled_from([0.032, 0.1, 0.3]),
    pad_s=st.sampled_from([0.0, 0.1, 0.2]),
    max_gap_s=st.sampled_from([0.5, 2.0, 30.0]),
    cut_after=st.floats(0, 1),
)


def run(probabilities: list[float], shape: VoiceShape, blocks: list[int]) -> list[Decided]:
    windows, at, decided = Windows(shape, FRAME), 0, []
    for block in [*blocks, len(probabilities)]:
        decided.append(windows.feed(probabilities[at : at + block]))
        at += block
    return [*decided, windows.finish(len(probabilities) * FRAME)]


def windows_of(decided: list[Decided]) -> list[Window]:
    return [window for part in decided for window in part.windows]


BLOCKS = st.lists(st.integers(0, 200), max_size=30)


@given(voices(), SHAPES)
def test_no_window_is_longer_than_the_model_takes(probabilities: list[float], shape: VoiceShape) -> None:
    for window in windows_of(run(probabilities, shape, [])):
        assert 0 < window.end_s - window.start_s <= shape.max_window_s


@given(voices(), SHAPES)
def test_windows_are_in_order_and_do_not_overlap(probabilities: list[float], shape: VoiceShape) -> None:
    windows = windows_of(run(probabilities, shape, []))
    assert [w.index for w in windows] == list(range(len(windows)))
    assert all(a.end_s <= b.start_s for a, b in pairwise(windows))
    assert all(w.start_s >= 0 and w.span.end <= len(probabilities) * FRAME for w in windows)


@given(voices(), SHAPES, BLOCKS, BLOCKS)
def test_the_sizes_of_the_blocks_change_nothing(
    probabilities: list[float], shape: VoiceShape, some: list[int], others: list[int]
) -> None:
    assert windows_of(run(probabilities, shape, some)) == windows_of(run(probabilities, shape, others))


@given(voices(), SHAPES, BLOCKS)
def test_no_window_starts_before_what_was_decided(
    probabilities: list[float], shape: VoiceShape, blocks: list[int]
) -> None:
    decided = run(probabilities, shape, blocks)
    assert all(a.upto <= b.upto for a, b in pairwise(decided))
    for earlier, later in pairwise(decided):
        assert all(w.span.start >= earlier.upto for w in later.windows)
        assert all(w.span.end <= earlier.upto for w in earlier.windows)


@given(voices(), SHAPES)
def test_no_certain_voice_is_left_out(probabilities: list[float], shape: VoiceShape) -> None:
    """Every frame of a run above the onset that is long enough to count is in a window."""
    windows = windows_of(run(probabilities, shape, []))
    least = round(shape.min_speech_s / FRAME_S)
    start = 0
    for at, probability in enumerate([*probabilities, 0.0]):
        if probability < shape.onset:
            if at - start >= max(least, 1):
                assert all(any(w.start_s <= f * FRAME_S < w.end_s for w in windows) for f in range(start, at))
            start = at + 1


def shape(**values: float) -> VoiceShape:
    return VoiceShape(**{"max_window_s": 12.0, "pad_s": 0.2, **values})


def seconds(*runs: tuple[float, float]) -> list[float]:
    """(probability, seconds) to frames."""
    return [p for p, length_s in runs for _ in range(round(length_s / FRAME_S))]


def spans(probabilities: list[float], **values: float) -> list[tuple[float, float]]:
    return [(round(w.start_s, 1), round(w.end_s, 1)) for w in windows_of(run(probabilities, shape(**values), [7] * 9))]


def test_neighbours_are_joined_until_a_window_is_full() -> None:
    voice = seconds((0, 1), (0.9, 3), (0, 0.6), (0.9, 3), (0, 0.5), (0.9, 3), (0, 0.5), (0.9, 3), (0, 1))
    assert spans(voice) == [(0.8, 11.3), (11.4, 14.9)]


def test_a_full_window_is_cut_at_its_longest_late_pause() -> None:
    """At 9.1 s speech pauses for 0.4 s, at 11.5 s only for 0.1 s, where joining had to end."""
    voice = seconds((0.9, 9.1), (0, 0.4), (0.9, 2), (0, 0.13), (0.9, 3), (0, 1))
    assert spans(voice) == [(0.0, 9.3), (9.3, 14.8)]


def test_a_long_silence_ends_a_window() -> None:
    voice = seconds((0.9, 2), (0, 2.5), (0.9, 2), (0, 1.5), (0.9, 2))
    assert spans(voice) == [(0.0, 2.2), (4.3, 10.0)]
    assert spans(voice, max_gap_s=3.0) == [(0.0, 10.0)]


def test_unbroken_voice_is_cut_where_it_is_least_likely() -> None:
    voice = seconds((0.9, 8), (0.6, 0.1), (0.9, 9))
    assert spans(voice) == [(0.0, 8.0), (8.0, 17.1)]


def test_a_click_is_no_voice() -> None:
    assert spans(seconds((0, 1), (0.9, 0.04), (0, 1))) == []


def test_a_silent_recording_has_no_window_and_is_decided_as_it_comes() -> None:
    decided = run(seconds((0, 60)), shape(), [500, 500])
    assert windows_of(decided) == []
    assert decided[1].upto >= 1000 * FRAME - 16_000
