"""Freed memory goes back to the kernel, as it counts it."""

from __future__ import annotations

import ctypes

import psutil
import pytest

from consumer.speech import spare_memory
from consumer.speech.spare_memory import give_back

PIECE_BYTES = 100_000
"""Too small for a mapping of its own."""
PIECES = 2_000


@pytest.mark.skipif(spare_memory._trim() is None, reason="the C library is not glibc")
def test_what_was_freed_below_something_in_use_is_given_back() -> None:
    """200 MB of pieces, all but the last one free: by itself glibc gives back what lies at the top only."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    pieces = [libc.malloc(PIECE_BYTES) for _ in range(PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE_BYTES)
    for piece in pieces[:-1]:
        libc.free(piece)
    before = psutil.Process().memory_info().rss
    give_back()
    after = psutil.Process().memory_info().rss
    libc.free(pieces[-1])
    assert before - after > PIECES * PIECE_BYTES / 2


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_memory, "_trim", lambda: None)
    give_back()
