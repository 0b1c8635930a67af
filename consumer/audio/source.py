"""Where the bytes of a recording come from: ranges on request, with a little read-ahead."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from consumer.errors import StoreUnavailable

BLOCK_BYTES = 1 << 20
"""Bytes that are fetched at once. Demuxers read 32 KiB at a time, and a request to a store costs milliseconds."""

CACHED_BLOCKS = 8
"""Blocks kept: a demuxer that goes to and fro between an index and the sound needs a few."""


class RangeSource(Protocol):
    """An object of known size that can be read in parts."""

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
    """Serves small reads from blocks of 1 MiB and keeps the last few; memory is bounded by 8 MiB.

    `fetched_bytes` counts what was asked of the source. Raises StoreUnavailable when the source gives less than it
    has, and whatever the source raises.
    """

    def __init__(self, source: RangeSource, block_bytes: int = BLOCK_BYTES, blocks: int = CACHED_BLOCKS) -> None:
        self._source = source
        self._block_bytes = block_bytes
        self._room = blocks
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self.fetched_bytes = 0

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

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        block = self._fetch(number)
        self._blocks[number] = block
        if len(self._blocks) > self._room:
            self._blocks.popitem(last=False)
        return block

    def _fetch(self, number: int) -> bytes:
        start = number * self._block_bytes
        length = min(self._block_bytes, self.size_bytes - start)
        block = self._source.read(start, length)
        self.fetched_bytes += length
        if len(block) != length:
            raise StoreUnavailable(
                f"{self.name}: asked for {length} bytes at {start} and got {len(block)}; try again",
                key=self.name,
            )
        return block
