"""A GPU whose memory another one takes, for real: plain memory that is taken until there is none left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

MIB = 1 << 20
PIECES = (4096 * MIB, 256 * MIB, 16 * MIB, 10 * MIB, MIB // 2)
"""In falling order. PyTorch takes 10 MiB and more from the driver as they are, and smaller ones in pieces of 2 MiB."""


class Ballast:
    """What is held of the card."""

    def __init__(self) -> None:
        self._held: list[Any] = []
        self._greedy = True

    def take_all(self) -> None:
        """Nothing once it was let go."""
        import torch

        for size in PIECES if self._greedy else ():
            with suppress(torch.OutOfMemoryError):
                while True:
                    self._held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))

    def let_go(self) -> None:
        import torch

        self._greedy = False
        self._held.clear()
        torch.cuda.empty_cache()


@contextmanager
def full_card() -> Iterator[Ballast]:
    """Whatever the service frees meanwhile is taken too."""
    from consumer.speech import loaded

    ballast, free = Ballast(), loaded._free_cached_memory

    def free_and_lose() -> None:
        free()
        ballast.take_all()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loaded, "_free_cached_memory", free_and_lose)
        ballast.take_all()
        try:
            yield ballast
        finally:
            ballast.let_go()
