"""A set of small numbers as one integer: 600 finished chunks fit into 75 bytes of state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bitmap:
    """An immutable set of numbers from 0.

    Bitmap().add(0).add(2).to_hex() -> '5'
    """

    bits: int = 0

    def add(self, index: int) -> Bitmap:
        return Bitmap(self.bits | (1 << index))

    def __contains__(self, index: int) -> bool:
        return bool(self.bits >> index & 1)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(self.bits.bit_length()) if index in self)

    def to_hex(self) -> str:
        return f"{self.bits:x}"

    @classmethod
    def from_hex(cls, text: str) -> Bitmap:
        return cls(int(text or "0", 16))
