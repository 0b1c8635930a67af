"""How many threads, and which numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.errors import Misconfigured
from consumer.settings import DeviceSettings
from consumer.speech import device
from consumer.speech.asr import ask_for_room
from consumer.speech.gpu_errors import Meaning, meaning


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("200000 100000\n", 2), ("250000 100000\n", 3), ("50000 100000\n", 1), ("max 100000\n", None), ("", None)],
)
def test_the_control_group_s_limit_is_rounded_up(tmp_path: Path, limit: str, cores: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    assert device.control_group_cores(file) == cores


def test_without_a_control_group_there_is_no_limit(tmp_path: Path) -> None:
    assert device.control_group_cores(tmp_path / "no-such-file") is None


def test_threads_that_are_set_are_taken() -> None:
    assert device.threads_of(DeviceSettings(cpu_threads=7)) == 7
    assert device.threads_of(DeviceSettings()) >= 1


def test_the_cpu_counts_in_whole_numbers() -> None:
    chosen = device.choose_device(DeviceSettings(device="cpu", cpu_threads=2, cpu_batch_size=5))
    assert (str(chosen), chosen.batch_size, chosen.threads) == ("cpu/int8", 5, 2)


def test_a_compute_type_that_the_device_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(Misconfigured, match=r"float16 does not work on cpu.*float32"):
        device.choose_device(DeviceSettings(device="cpu", compute_type="float16"))


def test_a_gpu_that_is_asked_for_and_missing_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_fault", lambda: "PyTorch finds no CUDA device")
    with pytest.raises(Misconfigured, match=r"finds no CUDA device.*auto"):
        device.choose_device(DeviceSettings(device="cuda"))


def test_auto_goes_to_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(device, "cuda_fault", lambda: "PyTorch finds no CUDA device")
    assert device.choose_device(DeviceSettings()).kind == "cpu"
    assert [record.__dict__["reason"] for record in caplog.records if record.levelname == "WARNING"] == [
        "PyTorch finds no CUDA device"
    ]


def first_sum_fails(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    import ctranslate2
    import torch

    def no_sum(*_: object, **__: object) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", no_sum)


def test_a_gpu_that_cannot_add_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    first_sum_fails(monkeypatch, "CUDA error: no kernel image is available for execution on the device\nand advice")
    fault = "a first sum on it failed (CUDA error: no kernel image is available for execution on the device)"
    assert device.cuda_fault() == fault


def test_a_gpu_that_others_fill_is_not_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    first_sum_fails(monkeypatch, "CUDA out of memory. Tried to allocate 2.00 MiB.")
    assert device.cuda_fault() is None


@pytest.mark.parametrize(("free_mib", "has_room"), [(1300, True), (1200, False)])
def test_a_recogniser_is_only_loaded_where_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, has_room: bool
) -> None:
    import torch

    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(1000 << 20)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free_mib << 20, 8000 << 20))
    if has_room:
        ask_for_room(tmp_path)
        return
    with pytest.raises(MemoryError) as caught:
        ask_for_room(tmp_path)
    assert meaning(caught.value) is Meaning.NO_ROOM


def test_a_compute_type_for_the_gpu_does_not_bind_the_fallback() -> None:
    assert str(device.cpu_instead(DeviceSettings(device="cuda", compute_type="float16"))) == "cpu/int8"
