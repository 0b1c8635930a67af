"""What CUDA's messages mean; the texts are those that PyTorch, CTranslate2 and cuBLAS print."""

from __future__ import annotations

import pytest

from consumer.speech.gpu_errors import Meaning, meaning


class OutOfMemoryError(RuntimeError):
    """Named like PyTorch's."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError("batch_size ( 32) is probably too large. Try with a smaller value until memory error disappears."),
        OutOfMemoryError("Allocation on device"),
    ],
)
def test_no_room_is_recognised_whoever_says_it(error: Exception) -> None:
    assert meaning(error) is Meaning.NO_ROOM


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA failed with error an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: unknown error"),
    ],
)
def test_a_lost_context_is_recognised(error: Exception) -> None:
    assert meaning(error) is Meaning.BROKEN


def test_a_lost_context_that_also_complains_about_memory_is_lost() -> None:
    assert meaning(RuntimeError("out of memory after an illegal memory access was encountered")) is Meaning.BROKEN


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("stack expects each tensor to be equal size"),
        RuntimeError("No position encodings are defined for positions >= 448"),
        MemoryError(),
    ],
)
def test_anything_else_is_a_bug(error: Exception) -> None:
    assert meaning(error) is Meaning.OTHER
