"""Where to compute and with which numbers: CUDA with float16 when it works, else the CPU with int8, and why."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from consumer.errors import Misconfigured
from consumer.settings import DeviceSettings
from consumer.speech.gpu_errors import Meaning, first_line, meaning

log = logging.getLogger(__name__)

Kind = Literal["cuda", "cpu"]

PREFERRED: dict[Kind, tuple[str, ...]] = {
    "cuda": ("float16", "bfloat16", "int8_float16", "float32"),
    "cpu": ("int8", "int8_float32", "float32"),
}
"""Compute types for `auto`, best first."""
PLENTY_BYTES = 1 << 30
"""With so much free, no library fails for want of memory to load its code or to make a handle."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that works, and how it is used."""

    kind: Kind
    compute_type: str
    batch_size: int
    threads: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.compute_type}"


def choose_device(settings: DeviceSettings) -> Device:
    """Raises Misconfigured when the settings name a device or compute type that does not work here."""
    if settings.device == "cpu":
        device = device_of("cpu", settings)
    elif why_not := cuda_fault():
        device = cpu_for_good(settings, why_not)
    else:
        device = device_of("cuda", settings)
    log.info("Device chosen", extra={"device": str(device), "threads": device.threads, "batch": device.batch_size})
    return device


def cpu_for_good(settings: DeviceSettings, why_not: str) -> Device:
    """The CPU for a worker whose CUDA does not work. Raises Misconfigured where the settings name CUDA."""
    if settings.device == "cuda":
        raise Misconfigured(
            f"WHISPERX_DEVICE__DEVICE is cuda, but {why_not}; give the process a GPU, or set it to auto"
        )
    log.warning("Computing on the CPU", extra={"reason": why_not})
    return device_of("cpu", settings)


def device_of(kind: Kind, settings: DeviceSettings) -> Device:
    batch_size = settings.batch_size if kind == "cuda" else settings.cpu_batch_size
    return Device(kind, compute_type_of(kind, settings.compute_type), batch_size, threads_of(settings))


def cpu_instead(settings: DeviceSettings) -> Device:
    """The CPU for a worker whose GPU has no room: a compute type that was chosen for the GPU does not bind it."""
    return device_of("cpu", settings.model_copy(update={"compute_type": "auto"}))


def compute_type_of(kind: Kind, wanted: str) -> str:
    """Raises Misconfigured for one that CTranslate2 does not support on this device."""
    import ctranslate2

    supported = set(ctranslate2.get_supported_compute_types(kind))
    if wanted == "auto":
        return next((one for one in PREFERRED[kind] if one in supported), "float32")
    if wanted not in supported:
        raise Misconfigured(
            f"WHISPERX_DEVICE__COMPUTE_TYPE={wanted} does not work on {kind}; "
            f"it takes auto or {', '.join(sorted(supported))}"
        )
    return wanted


def cuda_fault() -> str | None:
    """Why CUDA cannot be used, as the end of a sentence; None when it works in both libraries.

    A GPU that others fill works: its room may come back, and every chunk has its ladder until then.
    """
    import ctranslate2
    import torch

    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    if ctranslate2.get_cuda_device_count() < 1:
        return "CTranslate2 finds no CUDA device"
    try:
        torch.zeros(8, device="cuda").sum().item()
    except RuntimeError as exc:
        return None if meaning(exc) is Meaning.NO_ROOM else f"a first sum on it failed ({first_line(exc)})"
    return None


class Card:
    """The state of the GPU, asked of this process's CUDA context."""

    def answers(self) -> bool:
        """Once the context is lost, every call fails."""
        import torch

        try:
            torch.cuda.synchronize()
        except RuntimeError as exc:
            return meaning(exc) is Meaning.NO_ROOM
        return True

    def has_room(self) -> bool:
        import torch

        try:
            return torch.cuda.mem_get_info()[0] >= PLENTY_BYTES
        except RuntimeError:
            return False


CUDA = Card()


def threads_of(settings: DeviceSettings) -> int:
    """As many as this process may use: by its settings, its affinity and its control group."""
    if settings.cpu_threads:
        return settings.cpu_threads
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, control_group_cores() or cores))


def control_group_cores(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """The container's CPU limit, rounded up; None without one. A pod sees all cores of its node otherwise."""
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else -(-int(quota) // int(period))
