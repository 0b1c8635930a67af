"""What an error of CUDA means. PyTorch and CTranslate2 have exceptions of their own; only the words agree.

CTranslate2 raises a plain RuntimeError for everything, so the message has to be read. Pure: no library is imported.
"""

from __future__ import annotations

from enum import StrEnum


class Meaning(StrEnum):
    NO_ROOM = "no room"
    BROKEN = "broken"
    UNCLEAR = "unclear"
    """A library says that it failed, and not why: for want of memory, or because the context is lost."""
    OTHER = "other"


NO_ROOM = (
    "out of memory",
    "memory allocation",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED, CUFFT_ALLOC_FAILED
    "cudaerrormemoryallocation",
    "is probably too large",  # pyannote hides the error of the allocator behind this sentence
)

BROKEN = (
    "illegal memory access",
    "illegal address",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "devices are busy or unavailable",  # another process holds the device alone, or it is being reset
    "hardware stack error",
    "context is destroyed",
    "invalid device context",
    "driver shutting down",
    "no cuda-capable device is detected",
    "fallen off the bus",
    "cuda error: unknown error",
    "cuda failed with error unknown error",
)

UNCLEAR = (
    "execution_failed",  # CUBLAS_STATUS_EXECUTION_FAILED, CUDNN_STATUS_EXECUTION_FAILED
    "cublas_status_internal_error",
    "cublas_status_not_initialized",
    "cudnn_status_internal_error",
    "cufft_internal_error",
    "invalid device ordinal",  # CTranslate2's kernels in the call after one that found no room
    "unable to find an engine",  # cuDNN, when none of its ways to compute a convolution has room
)
"""What a full GPU makes the libraries say, and a lost context too."""


def meaning(error: BaseException) -> Meaning:
    """A broken context may also say that it has no memory, so it is looked for first.

    Only the first line counts: below it PyTorch gives advice, in which every error is a "device-side assertion".
    """
    if not isinstance(error, (RuntimeError, MemoryError)):
        return Meaning.OTHER
    text = first_line(error).lower()
    if any(words in text for words in BROKEN):
        return Meaning.BROKEN
    if any(words in text for words in UNCLEAR):
        return Meaning.UNCLEAR
    if any(words in text for words in NO_ROOM) or type(error).__name__ == "OutOfMemoryError":
        return Meaning.NO_ROOM
    return Meaning.OTHER


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
