"""What CUDA's messages mean; the texts are those that PyTorch, CTranslate2 and cuBLAS print."""

from __future__ import annotations

import pytest

from consumer.speech.gpu_errors import Meaning, meaning


class OutOfMemoryError(RuntimeError):
    """Named like PyTorch's."""


ADVICE = """
Search for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/cuda-runtime-api/ for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
"""What PyTorch adds to every error of CUDA."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA failed with error out of memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB"),
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError("batch_size ( 32) is probably too large. Try with a smaller value until memory error disappears."),
        OutOfMemoryError("Allocation on device"),
        RuntimeError(f"CUDA error: out of memory{ADVICE}"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDNN_STATUS_NOT_SUPPORTED: cudaErrorMemoryAllocation while planning"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: out of memory"),
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
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: unknown error"),
        RuntimeError(f"CUDA error: an illegal memory access was encountered{ADVICE}"),
        RuntimeError("CUDA failed with error device-side assert triggered"),
        RuntimeError("CUDA error: the launch timed out and was terminated"),
        RuntimeError("CUDA error: uncorrectable NVLink error detected during the execution"),
        RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
        RuntimeError("CUDA failed with error the launch timed out and was terminated"),
    ],
)
def test_a_lost_context_is_recognised(error: Exception) -> None:
    assert meaning(error) is Meaning.BROKEN


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"),
        RuntimeError("parallel_for failed: cudaErrorInvalidDevice: invalid device ordinal"),
        RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle, opa, opb)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasSgemm(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_what_a_full_gpu_and_a_lost_context_have_in_common_is_unclear(error: Exception) -> None:
    """The first three were said on a full H200, whose context was not lost."""
    assert meaning(error) is Meaning.UNCLEAR


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
