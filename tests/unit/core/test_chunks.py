"""However the samples come in, the chunks are the same, tile the recording, and hold each window once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.chunks import LEAD, ChunkPlanner, ChunkShape
from consumer.core.values import SAMPLE_RATE_HZ, Chunk, Span, Window, to_seconds
from consumer.core.windows import Decided
from consumer.errors import Misconfigured

WindowList = tuple[Window, ...]


@st.composite
def recordings(draw: st.DrawFn) -> tuple[int, WindowList]:
    """A length in samples and windows in it that do not overlap but may touch; a unit is 10 samples.

    Short, because a chunk may be a sample long: then there are as many chunks as samples.
    """
    total = draw(st.integers(1, 4_000))
    edges = sorted(draw(st.lists(st.integers(0, total), max_size=24)))
    pairs = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b]
    windows = tuple(Window(i, to_seconds(a * 10), to_seconds(b * 10)) for i, (a, b) in enumerate(pairs))
    return total * 10, windows


def plan(total: int, windows: WindowList, length: int, overlap: int, blocks: list[int]) -> list[Chunk]:
    """Feed a planner in blocks; a window becomes known as soon as the samples reach its end, no sooner."""
    planner = ChunkPlanner(length, overlap)
    chunks: list[Chunk] = []
    decoded, known = 0, 0
    for block in blocks:
        decoded = min(decoded + block, total)
        fresh = tuple(w for w in windows[known:] if w.span.end <= decoded)
        known += len(fresh)
        open_from = windows[known].span.start if known < len(windows) else decoded
        chunks += planner.advance(Decided(fresh, min(open_from, decoded)), decoded)
    chunks += planner.finish(Decided(windows[known:], total), total)
    return chunks


BLOCKS = st.lists(st.integers(1, 5_000), max_size=60)
LENGTHS = st.integers(1, 10_000)
OVERLAPS = st.integers(0, 4_000)


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS)
def test_chunks_tile_the_recording_and_none_is_empty(
    recording: tuple[int, WindowList], length: int, overlap: int, blocks: list[int]
) -> None:
    total, windows = recording
    chunks = plan(total, windows, length, overlap, blocks)
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert (chunks[0].span.start, chunks[-1].span.end) == (0, total)
    assert all(a.span.end == b.span.start for a, b in pairwise(chunks))
    assert all(c.span.length > 0 for c in chunks)
    assert [c.is_last for c in chunks] == [False] * (len(chunks) - 1) + [True]


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS)
def test_every_window_is_in_the_one_chunk_that_it_starts_and_ends_in(
    recording: tuple[int, WindowList], length: int, overlap: int, blocks: list[int]
) -> None:
    total, windows = recording
    chunks = plan(total, windows, length, overlap, blocks)
    assert tuple(w for c in chunks for w in c.windows) == windows
    assert all(c.span.start <= w.span.start and w.span.end <= c.span.end for c in chunks for w in c.windows)


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS, BLOCKS)
def test_the_sizes_of_the_blocks_change_nothing(
    recording: tuple[int, WindowList], length: int, overlap: int, some: list[int], others: list[int]
) -> None:
    total, windows = recording
    assert plan(total, windows, length, overlap, some) == plan(total, windows, length, overlap, others)


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS)
def test_every_chunk_but_the_last_has_its_whole_overlap_and_stops_before_the_end(
    recording: tuple[int, WindowList], length: int, overlap: int, blocks: list[int]
) -> None:
    total, windows = recording
    *others, last = plan(total, windows, length, overlap, blocks)
    assert all(
        c.audio.start == max(0, c.span.start - LEAD) and c.audio.end == c.span.end + overlap < total for c in others
    )
    assert last.audio == Span(max(0, last.span.start - LEAD), last.span.end)
    assert all(c.span.length >= length for c in others)


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS)
def test_a_cut_is_the_first_point_behind_the_length_that_lies_in_no_window(
    recording: tuple[int, WindowList], length: int, overlap: int, blocks: list[int]
) -> None:
    total, windows = recording
    for chunk in plan(total, windows, length, overlap, blocks)[:-1]:
        target = chunk.span.start + length
        across = [w for w in windows if w.span.start < target < w.span.end]
        assert chunk.span.end == (across[0].span.end if across else target)


def test_a_chunk_is_announced_as_soon_as_its_overlap_is_decoded() -> None:
    planner = ChunkPlanner(length=100, overlap=30)
    assert list(planner.advance(Decided((), 120), 130)) == []
    assert [c.index for c in planner.advance(Decided((), 121), 131)] == [0]
    assert planner.start == 100 - LEAD


def test_a_chunk_waits_for_the_decision_about_its_cut() -> None:
    planner = ChunkPlanner(length=100, overlap=30)
    assert list(planner.advance(Decided((), 90), 500)) == []
    assert len(list(planner.advance(Decided((), 100), 500))) == 1


class TestAChunkShape:
    def test_keeps_the_ceiling_with_a_window_across_the_cut(self) -> None:
        ceiling = 2 * SAMPLE_RATE_HZ * 100
        planner = ChunkShape(length_s=300, overlap_s=30, max_bytes=ceiling).fit(12.0, 10.0).planner()
        window = Window(0, 57.9, 69.9)  # the longest, and it begins just before the target at 58 s
        first = next(iter(planner.advance(Decided((window,), 1_600_000), 1_600_001)))
        assert first.span.end_s == 69.9
        assert 2 * first.audio.length <= ceiling

    def test_takes_the_longer_of_the_two_overlaps(self) -> None:
        planner = ChunkShape(60, 5, 10**9).fit(30.0, 10.0).planner()
        assert next(iter(planner.advance(Decided((), 10**7), 10**7))).audio.length == 70 * SAMPLE_RATE_HZ

    def test_is_refused_when_the_ceiling_has_no_room_for_a_chunk(self) -> None:
        with pytest.raises(Misconfigured, match="max_bytes"):
            ChunkShape(300, 30, 1_000_000).fit(30.0, 10.0)
