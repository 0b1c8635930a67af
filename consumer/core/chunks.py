"""Cut a recording into chunks while it is still being decoded. Pure: samples counted, windows known, nothing read.

    ChunkPlanner(length=300 s, overlap=30 s), a recording of 700 s with a window at 298-305 s:

    chunk 0   span   0-305   audio   0-335    announced when 335 s are decoded
    chunk 1   span 305-605   audio 305-635    (and a millisecond before it, see LEAD)
    chunk 2   span 605-700   audio 605-700    the last one

A recording whose channels are kept apart is cut channel by channel, and ChunkOrder numbers the chunks of all of them.

A chunk is only cut off when more than the overlap follows it; what is shorter stays with the chunk before. So every
chunk but the last has its whole overlap, and the last one alone touches the end of the recording.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Chunk, Span, Window
from consumer.core.windows import Decided
from consumer.errors import Misconfigured

LEAST_LENGTH_S = 1.0


@dataclass(frozen=True, slots=True)
class ChunkShape:
    """Target length, overlap behind the span, and the ceiling of one chunk object in bytes."""

    length_s: float
    overlap_s: float
    max_bytes: int

    def fit(self, max_window_s: float, min_overlap_s: float, channels: int = 1) -> PlanShape:
        """Lengths that keep the ceiling, also when a window of greatest length lies across the cut.

        Channels that are kept apart share the target length, so that all of them wait in about the memory of one; but
        for that no span gets shorter than the overlap behind it.

        Raises Misconfigured when the ceiling leaves less than a second.
        """
        overlap = int(max(self.overlap_s, min_overlap_s) * SAMPLE_RATE_HZ)
        room = self.max_bytes // BYTES_PER_SAMPLE - LEAD - overlap - int(max_window_s * SAMPLE_RATE_HZ)
        target = int(self.length_s * SAMPLE_RATE_HZ)
        length = min(max(target // channels, min(target, overlap)), room)
        if length < LEAST_LENGTH_S * SAMPLE_RATE_HZ:
            raise Misconfigured(
                f"chunks.max_bytes of {self.max_bytes} has no room for a chunk beside an overlap of "
                f"{overlap / SAMPLE_RATE_HZ:g} s and a window of {max_window_s:g} s; raise it",
                max_bytes=self.max_bytes,
            )
        return PlanShape(length=length, overlap=overlap, max_window_s=max_window_s)

    def planner(self, max_window_s: float, min_overlap_s: float) -> ChunkPlanner:
        return self.fit(max_window_s, min_overlap_s).planner()


class PlanShape(BaseModel):
    """What the cuts of a run depend on, lengths in samples.

    It is stored with the run: chunks that were cut in two ways (settings that changed between two tries of a plan)
    would lose words, or say them twice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    version: Literal[1] = 1
    length: int = Field(ge=1)
    overlap: int = Field(ge=0)
    max_window_s: float = Field(gt=0)
    etag: str = ""
    """The bytes that the first planner read; chunks of two recordings must not meet either."""

    def planner(self) -> ChunkPlanner:
        return ChunkPlanner(self.length, self.overlap)


LEAD: Final = 16
"""Samples before the span that a chunk's audio begins with: times rounded to milliseconds may lie before their window,
and a millisecond is 16 samples."""


class ChunkPlanner:
    """Chunks that tile the recording, each with the windows that start in it; lengths in samples.

    A cut is the first point at or after the target length that lies in no window. It depends on the windows and on
    the total length only, never on the sizes of the blocks that came in.
    """

    def __init__(self, length: int, overlap: int) -> None:
        if length < 1 or overlap < 0:
            raise ValueError(f"a chunk needs a length and no negative overlap, got {length} and {overlap}")
        self._length = length
        self._overlap = overlap
        self._start = 0
        self._index = 0
        self._windows: deque[Window] = deque()

    @property
    def start(self) -> int:
        """Start of the next chunk's audio: samples before it are not needed any more."""
        return max(0, self._start - LEAD)

    def advance(self, decided: Decided, decoded: int) -> Iterator[Chunk]:
        """Take what is decided by now; the chunks whose span and overlap are decoded."""
        self._windows.extend(decided.windows)
        while (cut := self._cut(decided.upto)) is not None and cut + self._overlap < decoded:
            yield self._take(Span(self._start, cut), Span(self.start, cut + self._overlap), is_last=False)

    def finish(self, decided: Decided, total: int) -> Iterator[Chunk]:
        """The recording has `total` samples, at least one; the rest of the chunks."""
        yield from self.advance(Decided(decided.windows, total), total)
        yield self._take(Span(self._start, total), Span(self.start, total), is_last=True)

    def _cut(self, decided_upto: int) -> int | None:
        """Where the next chunk ends, or None when that is not decided yet."""
        target = self._start + self._length
        for window in self._windows:
            if window.span.start < target < window.span.end:
                return window.span.end
        return target if target <= decided_upto else None

    def _take(self, span: Span, audio: Span, *, is_last: bool) -> Chunk:
        windows = []
        while self._windows and (is_last or self._windows[0].span.start < span.end):
            windows.append(self._windows.popleft())
        chunk = Chunk(self._index, span, audio, tuple(windows), is_last)
        self._index += 1
        self._start = span.end
        return chunk


class ChunkOrder:
    """The chunks of all channels in one order: by their ends, then by channel; numbered in it.

    Each channel is cut by itself, between its own windows. A chunk waits until every other channel is decided up to
    its end, as that one could still give a chunk that ends before it. So the numbers depend on the cuts only, and what
    waits is bounded by how long the decision about a window takes.
    """

    def __init__(self, planners: Sequence[ChunkPlanner]) -> None:
        self._planners = tuple(planners)
        self._waiting: list[tuple[int, int, Chunk]] = []
        self._count = 0

    def advance(self, decided: Sequence[Decided], decoded: int) -> Iterator[Chunk]:
        """Take what is decided by now in each channel; the chunks that come next."""
        for channel, (planner, one) in enumerate(zip(self._planners, decided, strict=True)):
            self._hold(channel, planner.advance(one, decoded))
        yield from self._settled([one.upto for one in decided])

    def finish(self, decided: Sequence[Decided], total: int) -> Iterator[Chunk]:
        """The recording has `total` samples, at least one; the rest of the chunks."""
        for channel, (planner, one) in enumerate(zip(self._planners, decided, strict=True)):
            self._hold(channel, planner.finish(one, total))
        yield from self._settled([total for _ in decided])

    def _hold(self, channel: int, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            heappush(self._waiting, (chunk.span.end, channel, chunk))

    def _settled(self, decided_upto: Sequence[int]) -> Iterator[Chunk]:
        while self._waiting:
            end, channel, chunk = self._waiting[0]
            if any(upto < end for other, upto in enumerate(decided_upto) if other != channel):
                return
            heappop(self._waiting)
            yield replace(chunk, index=self._count, channel=channel)
            self._count += 1
