"""Where the bytes of a recording come from: ranges on request, the next ones fetched while these are worked on."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

from consumer.errors import StoreUnavailable

BLOCK_BYTES = 1 << 20
"""Bytes that are fetched at once. Demuxers read 32 KiB at a time, and a request to a store costs milliseconds."""

CACHED_BLOCKS = 8
"""Blocks kept: a demuxer that goes to and fro between an index and the sound needs a few."""

AHEAD_BLOCKS = 2
"""Blocks on their way at most while others are worked on."""


class RangeSource(Protocol):
    """An object of known size that can be read in parts, by several threads at once."""

    @property
    def name(self) -> str:
        """For messages: bucket and key."""
        ...

    @property
    def size_bytes(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, fewer than `length` only at the end of the object."""
        ...


class ReadAhead:
    """Serves small reads from blocks of 1 MiB: the last eight are kept, the next two fetched in the background.

    Only a reader that goes from block to block is read ahead for; one that jumps costs what it asks for, and at
    most the blocks that were on their way. Memory is bounded by 8 + 2 blocks.

    `fetched_bytes` counts what was asked of the source, ahead or not. Raises StoreUnavailable when the source gives
    less than it has, and whatever the source raises, when the reader comes to the block that it is about.
    """

    def __init__(
        self,
        source: RangeSource,
        block_bytes: int = BLOCK_BYTES,
        blocks: int = CACHED_BLOCKS,
        ahead: int = AHEAD_BLOCKS,
    ) -> None:
        self._source = source
        self._block_bytes = block_bytes
        self._room = blocks
        self._ahead = ahead
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._coming: dict[int, Future[bytes]] = {}
        self._fetchers: ThreadPoolExecutor | None = None
        self._newest: int | None = None
        self.fetched_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def size_bytes(self) -> int:
        return self._source.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size_bytes)
        parts = []
        while offset < end:
            number, start = divmod(offset, self._block_bytes)
            part = self._block(number)[start : start + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Fetch no more. A request that is on its way ends by itself, within the store's own limits."""
        self._drop_coming()
        if self._fetchers is not None:
            self._fetchers.shutdown(wait=False, cancel_futures=True)
            self._fetchers = None

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        block = self._taken(number)
        self._keep(number, block)
        self._look_ahead(number)
        return block

    def _taken(self, number: int) -> bytes:
        """A block that is not kept: from where it is on its way, or from the source."""
        coming = self._coming.pop(number, None)
        if coming is not None:
            return coming.result()
        self.fetched_bytes += self._length(number)
        return self._fetch(number)

    def _keep(self, number: int, block: bytes) -> None:
        self._blocks[number] = block
        if len(self._blocks) > self._room:
            self._blocks.popitem(last=False)

    def _look_ahead(self, number: int) -> None:
        """Ask for what follows if the reader came from the block before, and for nothing if it has jumped."""
        came_from, self._newest = self._newest, number
        if came_from is None or came_from != number - 1:
            self._drop_coming()
            return
        last = (self.size_bytes - 1) // self._block_bytes
        for wanted in range(number + 1, min(number + self._ahead, last) + 1):
            if wanted not in self._blocks and wanted not in self._coming:
                self.fetched_bytes += self._length(wanted)
                self._coming[wanted] = self._background().submit(self._fetch, wanted)

    def _drop_coming(self) -> None:
        """What has not been asked for yet is not; what is there has been paid for, and readers come back."""
        for number, coming in self._coming.items():
            if coming.cancel():
                self.fetched_bytes -= self._length(number)
            elif coming.done() and coming.exception() is None:
                self._keep(number, coming.result())
        self._coming.clear()

    def _background(self) -> ThreadPoolExecutor:
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(self._ahead, thread_name_prefix="read-ahead")
        return self._fetchers

    def _length(self, number: int) -> int:
        return min(self._block_bytes, self.size_bytes - number * self._block_bytes)

    def _fetch(self, number: int) -> bytes:
        start, length = number * self._block_bytes, self._length(number)
        block = self._source.read(start, length)
        if len(block) != length:
            raise StoreUnavailable(
                f"{self.name}: asked for {length} bytes at {start} and got {len(block)}; try again",
                key=self.name,
            )
        return block
