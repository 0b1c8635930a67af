"""Recordings in memory, as the decoder reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consumer.audio.decode import Decoding, decode
from consumer.events import Problem
from consumer.settings import LimitSettings


@dataclass
class BytesSource:
    data: bytes
    name: str = "recordings/talk"
    before_read: Callable[[int], None] = lambda offset: None
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        self.before_read(offset)
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Decoded:
    samples: NDArray[np.int16]
    codec: str
    channels: int
    sample_rate_hz: int
    duration_hint_s: float | None
    warnings: tuple[Problem, ...]


def decode_all(data: bytes | BytesSource, limits: LimitSettings | None = None) -> Decoded:
    source = data if isinstance(data, BytesSource) else BytesSource(data)
    with decode(source, limits or LimitSettings()) as decoding:
        return read_out(decoding)


def read_out(decoding: Decoding) -> Decoded:
    samples = np.concatenate([np.empty(0, dtype=np.int16), *decoding.blocks()])
    facts = decoding.facts
    return Decoded(samples, facts.codec, facts.channels, facts.sample_rate_hz, facts.duration_hint_s, decoding.warnings)
