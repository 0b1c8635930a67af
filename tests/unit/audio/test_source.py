"""Reading ahead: what is asked of the store and when, how much of it is kept, and where its errors come out."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from consumer.audio.source import AHEAD_BLOCKS, CACHED_BLOCKS, ReadAhead
from consumer.errors import ChangedRecording, StoreUnavailable
from tests import media
from tests.unit.audio.sources import BytesSource, decode_all

BLOCK = 1000
BOUND_S = 10.0


@dataclass
class WatchedSource(BytesSource):
    """Says of each block when it was asked for."""

    asked: dict[int, threading.Event] = field(default_factory=dict)

    def read(self, offset: int, length: int) -> bytes:
        self.event(offset // BLOCK).set()
        return super().read(offset, length)

    def event(self, block: int) -> threading.Event:
        return self.asked.setdefault(block, threading.Event())


def source(blocks: float = 20) -> WatchedSource:
    return WatchedSource(bytes(at % 251 for at in range(int(blocks * BLOCK))))


def fetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in fetchers():
        thread.join(BOUND_S)
    assert fetchers() == []


class TestAReaderThatGoesOn:
    def test_gets_every_byte_once_and_in_order(self) -> None:
        recording = source(20.5)
        with ReadAhead(recording, BLOCK) as ahead:
            read = b"".join(ahead.read(at, 300) for at in range(0, len(recording.data), 300))
        assert read == recording.data
        assert sorted(recording.reads) == [(at, min(BLOCK, 20_500 - at)) for at in range(0, 20_500, BLOCK)]
        assert ahead.fetched_bytes == 20_500

    def test_finds_the_next_blocks_on_their_way(self) -> None:
        recording = source()
        with ReadAhead(recording, BLOCK) as ahead:
            ahead.read(0, 10)
            assert ahead.fetched_bytes == BLOCK, "nobody knows yet where the reader goes"
            ahead.read(BLOCK, 10)
            assert recording.event(2).wait(BOUND_S)
            assert recording.event(3).wait(BOUND_S)
            assert ahead.fetched_bytes == (2 + AHEAD_BLOCKS) * BLOCK

    def test_is_worked_for_while_it_works(self) -> None:
        """The store gives a block only when the reader has the block before it: in turns, both would wait for ever."""
        recording, has = source(), [threading.Event() for _ in range(20)]

        def wait(offset: int) -> None:
            if offset >= 3 * BLOCK:
                assert has[offset // BLOCK - 1].wait(BOUND_S)

        recording.before_read = wait
        with ReadAhead(recording, BLOCK) as ahead:
            for block in range(20):
                assert recording.event(block).wait(BOUND_S) if block > 1 else True
                assert ahead.read(block * BLOCK, 1) == recording.data[block * BLOCK : block * BLOCK + 1]
                has[block].set()

    def test_holds_no_more_than_its_blocks_however_long_the_recording_is(self) -> None:
        size, block = 40 << 20, 1 << 16

        class Endless:
            name, size_bytes = "recordings/long", size

            def read(self, offset: int, length: int) -> bytes:
                return bytes(length)

        tracemalloc.start()
        try:
            with ReadAhead(Endless(), block) as ahead:
                for at in range(0, size, 1 << 15):
                    ahead.read(at, 1 << 15)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < (CACHED_BLOCKS + 2 * AHEAD_BLOCKS + 2) * block


class TestAReaderThatJumps:
    def test_costs_what_it_asks_for(self) -> None:
        recording = source()
        with ReadAhead(recording, BLOCK) as ahead:
            for block in (0, 19, 3, 6, 9, 12, 2, 0):
                ahead.read(block * BLOCK, 10)
        assert sorted(at // BLOCK for at, _ in recording.reads) == [0, 2, 3, 6, 9, 12, 19]
        assert ahead.fetched_bytes == 7 * BLOCK

    def test_leaves_at_most_the_blocks_that_were_on_their_way(self) -> None:
        recording = source()
        with ReadAhead(recording, BLOCK) as ahead:
            for jump in range(5):
                ahead.read(jump * 4 * BLOCK, 10)
                ahead.read((jump * 4 + 1) * BLOCK, 10)
            assert ahead.fetched_bytes <= 5 * (2 + AHEAD_BLOCKS) * BLOCK

    def test_goes_to_the_index_at_the_end_and_back_without_fetching_anything_twice(self) -> None:
        m4a = media.FORMATS["m4a-index-at-end"](media.tone(30), 16_000)
        recording = BytesSource(m4a)
        decode_all(recording)
        assert len(recording.reads) == len(set(recording.reads))


class TestTroubleWithTheSource:
    @pytest.mark.parametrize("error", [StoreUnavailable("away"), ChangedRecording("another")])
    def test_comes_out_where_the_reader_gets_to_it(self, error: Exception) -> None:
        recording = source()

        def fail(offset: int) -> None:
            if offset == 3 * BLOCK:
                raise error

        recording.before_read = fail
        with ReadAhead(recording, BLOCK) as ahead:
            for block in range(3):
                assert len(ahead.read(block * BLOCK, BLOCK)) == BLOCK
            assert recording.event(3).wait(BOUND_S)
            with pytest.raises(type(error)):
                ahead.read(3 * BLOCK, 1)

    def test_of_which_the_reader_never_hears_is_none(self) -> None:
        recording = source()

        def fail(offset: int) -> None:
            if offset == 3 * BLOCK:
                raise StoreUnavailable("away")

        recording.before_read = fail
        with ReadAhead(recording, BLOCK) as ahead:
            for block in (0, 1, 2, 9):
                assert len(ahead.read(block * BLOCK, BLOCK)) == BLOCK

    def test_that_gives_less_than_it_has_may_pass(self) -> None:
        class Short(BytesSource):
            def read(self, offset: int, length: int) -> bytes:
                return super().read(offset, length)[:-1]

        with ReadAhead(Short(bytes(3 * BLOCK)), BLOCK) as ahead, pytest.raises(StoreUnavailable):
            ahead.read(0, 1)

    def test_in_the_middle_of_decoding_leaves_no_thread(self) -> None:
        def fail(offset: int) -> None:
            if offset >= 3 << 20:
                raise StoreUnavailable("away")

        with pytest.raises(StoreUnavailable):
            decode_all(BytesSource(media.wav(media.tone(150)), before_read=fail))
