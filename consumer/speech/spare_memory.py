"""Give back to the kernel what the C library keeps of freed memory, and to the GPU what PyTorch keeps.

CTranslate2 and torch allocate and free hundreds of megabytes in each stage of a chunk, from several threads. glibc
keeps the pieces for the thread that freed them, so each stage's would stand beside those of the others: measured with
models of base size on the CPU, 0.4 GB at rest and 0.3 GB at the peak. Taking it back costs milliseconds.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Does nothing where the C library is not glibc."""
    if trim := _trim():
        trim(0)


def give_back_gpu() -> None:
    """What PyTorch keeps of the GPU's memory. CTranslate2, which shares the GPU, cannot use it."""
    import torch

    torch.cuda.empty_cache()


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim
