"""The chunks of several channels are numbered in one order, whatever the sizes of the blocks that came in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.chunks import ChunkOrder, ChunkPlanner, ChunkShape
from consumer.core.values import SAMPLE_RATE_HZ, Chunk, Window, to_seconds
from consumer.core.windows import Decided
from tests.unit.core.test_chunks import BLOCKS, OVERLAPS, WindowList
from tests.unit.core.test_chunks import plan as plan_alone

Channels = tuple[int, list[WindowList]]
LENGTHS = st.integers(5_000, 100_000)


@st.composite
def recordings(draw: st.DrawFn) -> Channels:
    """A length in samples, and the windows of one to four channels; a unit is 100 samples."""
    total = draw(st.integers(1, 4_000))
    return total * 100, [draw(windows(total, channel)) for channel in range(draw(st.integers(1, 4)))]


@st.composite
def windows(draw: st.DrawFn, total: int, channel: int) -> WindowList:
    edges = sorted(draw(st.lists(st.integers(0, total), max_size=16)))
    pairs = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b]
    return tuple(Window(i, to_seconds(a * 100), to_seconds(b * 100), channel) for i, (a, b) in enumerate(pairs))


class Deciding:
    """The windows of a channel, each known as soon as its end is decoded."""

    def __init__(self, windows: WindowList) -> None:
        self._windows = windows
        self._known = 0

    def at(self, decoded: int) -> Decided:
        fresh = tuple(w for w in self._windows[self._known :] if w.span.end <= decoded)
        self._known += len(fresh)
        following = self._windows[self._known :]
        return Decided(fresh, min(following[0].span.start if following else decoded, decoded))

    def rest(self, total: int) -> Decided:
        return Decided(self._windows[self._known :], total)


def plan(recording: Channels, length: int, overlap: int, blocks: list[int]) -> list[Chunk]:
    total, channels = recording
    order = ChunkOrder([ChunkPlanner(length, overlap) for _ in channels])
    deciding = [Deciding(windows) for windows in channels]
    chunks: list[Chunk] = []
    decoded = 0
    for block in blocks:
        decoded = min(decoded + block, total)
        chunks += order.advance([one.at(decoded) for one in deciding], decoded)
    return [*chunks, *order.finish([one.rest(total) for one in deciding], total)]


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS, BLOCKS)
def test_the_sizes_of_the_blocks_change_neither_chunks_nor_numbers(
    recording: Channels, length: int, overlap: int, some: list[int], others: list[int]
) -> None:
    assert plan(recording, length, overlap, some) == plan(recording, length, overlap, others)


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS)
def test_each_channel_is_cut_as_if_it_were_alone(
    recording: Channels, length: int, overlap: int, blocks: list[int]
) -> None:
    total, channels = recording
    chunks = plan(recording, length, overlap, blocks)
    for channel, windows in enumerate(channels):
        own = [replace(chunk, channel=0) for chunk in chunks if chunk.channel == channel]
        numbered = [replace(chunk, index=index) for index, chunk in enumerate(own)]
        assert numbered == plan_alone(total, windows, length, overlap, [])


@given(recordings(), LENGTHS, OVERLAPS, BLOCKS)
def test_chunks_come_by_their_ends_then_by_channel_and_are_numbered_without_a_hole(
    recording: Channels, length: int, overlap: int, blocks: list[int]
) -> None:
    chunks = plan(recording, length, overlap, blocks)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    places = [(chunk.span.end, chunk.channel) for chunk in chunks]
    assert places == sorted(places)


def test_a_chunk_waits_for_a_channel_that_may_still_end_one_before_it() -> None:
    order = ChunkOrder([ChunkPlanner(100, 10), ChunkPlanner(100, 10)])
    assert list(order.advance([Decided((), 150), Decided((), 90)], 150)) == []
    assert [(c.index, c.channel) for c in order.advance([Decided((), 150), Decided((), 100)], 150)] == [(0, 0), (1, 1)]


def test_a_channel_alone_waits_for_nobody() -> None:
    window = Window(0, to_seconds(90), to_seconds(140))
    order = ChunkOrder([ChunkPlanner(100, 10)])
    (chunk,) = order.advance([Decided((window,), 120)], 151)  # its mark lies before the end of the window it has told
    assert chunk.span.end == 140


class TestTheLengthOfChunksOfSeveralChannels:
    SHAPE = ChunkShape(length_s=300, overlap_s=30, max_bytes=500_000_000)

    @pytest.mark.parametrize(("channels", "length_s"), [(1, 300), (2, 150), (8, 37.5), (20, 30)])
    def test_is_shared_but_not_shorter_than_the_overlap(self, channels: int, length_s: float) -> None:
        shape = self.SHAPE.fit(30.0, 10.0, channels)
        assert (shape.length, shape.overlap) == (length_s * SAMPLE_RATE_HZ, 30 * SAMPLE_RATE_HZ)

    def test_is_never_longer_than_asked(self) -> None:
        assert ChunkShape(10, 30, 10**9).fit(30.0, 10.0, 4).length == 10 * SAMPLE_RATE_HZ
