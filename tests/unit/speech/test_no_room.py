"""A GPU without room, or without what it computes with: what is dropped or done again, and what the result says.

Recogniser and device stand in here, so that it is tested on any machine; tests/gpu has the same on a real GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from consumer.core.speech import ChunkTask, Language, Samples
from consumer.core.values import SAMPLE_RATE_HZ, Chunk, Span, Window
from consumer.errors import BrokenGpuContext, GpuOutOfMemory, Misconfigured
from consumer.events import AlignOptions, DiarizeOptions, JobOptions
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech import loaded
from consumer.speech.asr import Decoding, Text
from consumer.speech.device import Device
from consumer.speech.engine import SpeechEngine

TEXT_ONLY = JobOptions(align=AlignOptions(enabled=False), diarize=DiarizeOptions(enabled=False))


@dataclass
class Card:
    """A GPU with room for so many windows at once, and what was asked of it."""

    room: int
    full: bool = False
    """Whether there is not even room for the model."""
    error: str = "CUDA failed with error out of memory"
    first_error: str = ""
    """What the first window on it raises."""
    tried: list[tuple[str, int]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    heard: list[tuple[int, float]] = field(default_factory=list)
    """Length and first sample of each window."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card(room=100)

    class FakeRecogniser:
        def __init__(self, files: Path, device: Device) -> None:
            card.loaded.append(device.kind)
            if card.full and device.kind == "cuda":
                raise RuntimeError(card.error)
            self.device = device

        def count_tokens(self, text: str) -> int:
            return len(text)

        def detect_language(self, samples: Samples) -> Language:
            return Language("en", 0.9)

        def recognise(self, batch: Sequence[Samples], decoding: Decoding) -> list[Text]:
            card.tried.append((self.device.kind, len(batch)))
            if self.device.kind == "cuda" and len(batch) > card.room:
                raise RuntimeError(card.error)
            card.heard += [(len(one), float(one[0])) for one in batch]
            return [Text(f" {self.device.kind}", -0.1) for _ in batch]

        def encode_silence(self) -> None:
            if card.first_error:
                raise RuntimeError(card.first_error)

        def rebuild(self) -> None:
            card.tried.append(("rebuild", 0))
            if card.full:
                raise RuntimeError(card.error)

    chosen = iter([Device("cuda", "float16", 4, 1)])

    monkeypatch.setattr(loaded, "Recogniser", FakeRecogniser)
    monkeypatch.setattr(loaded, "prepare", lambda _: None)
    monkeypatch.setattr(loaded, "choose_device", lambda _: next(chosen))
    monkeypatch.setattr(loaded, "cpu_instead", lambda _: Device("cpu", "int8", 2, 1))
    monkeypatch.setattr(loaded, "_set_threads", lambda _: None)
    monkeypatch.setattr(loaded, "_free_cached_memory", lambda: None)
    return card


def engine(tmp_path: Path, *, device: Literal["auto", "cuda"] = "auto", cpu_fallback: bool = True) -> SpeechEngine:
    (tmp_path / "small" / "asr").mkdir(parents=True)
    (tmp_path / "small" / "model.json").write_text(json.dumps({"name": "small", "asr": "asr"}))
    models = ModelSettings(directory=tmp_path, allowed=("small",))
    return SpeechEngine(models, DeviceSettings(device=device, cpu_fallback=cpu_fallback))


def task(windows: int = 6) -> ChunkTask:
    span = Span(0, windows * SAMPLE_RATE_HZ)
    chunk = Chunk(0, span, span, tuple(Window(i, float(i), i + 1.0) for i in range(windows)), is_last=True)
    return ChunkTask(chunk, np.zeros(span.length, np.float32), TEXT_ONLY, "en", span.end)


def test_a_gpu_with_room_is_used_in_whole_batches(tmp_path: Path, card: Card) -> None:
    speech = engine(tmp_path).transcribe(task(), lambda _: None)
    assert card.tried == [("cuda", 4), ("cuda", 2)]
    assert (speech.device, speech.warnings) == ("cuda/float16", ())


def test_what_was_recognised_before_memory_ran_out_is_kept(tmp_path: Path, card: Card) -> None:
    def less_room(fraction: float) -> None:
        card.room = 1 if fraction > 0.3 else 100

    speech = engine(tmp_path).transcribe(task(), less_room)
    assert card.tried == [("cuda", 4), ("cuda", 2), ("cuda", 2), ("cuda", 1), ("cuda", 1)]
    assert len(card.heard) == 6, "no window was recognised twice"
    assert [one.code for one in speech.warnings] == ["GPU_MEMORY_SHORT"]
    assert speech.device == "cuda/float16"


def test_the_batch_that_had_room_is_where_the_next_chunk_starts(tmp_path: Path, card: Card) -> None:
    card.room = 2
    speaker = engine(tmp_path)
    speaker.transcribe(task(), lambda _: None)
    card.tried.clear()
    again = speaker.transcribe(task(), lambda _: None)
    assert card.tried == [("cuda", 2)] * 3
    assert again.warnings == ()


def test_without_any_room_the_whole_chunk_is_done_on_the_cpu(tmp_path: Path, card: Card) -> None:
    card.room = 0
    speech = engine(tmp_path).transcribe(task(), lambda _: None)
    assert {one.text for one in speech.segments} == {"cpu"}
    assert ("rebuild", 0) in card.tried
    assert speech.device == "cpu/int8"
    (warning,) = speech.warnings
    assert "going on on the CPU" in warning.message


def test_the_next_chunk_tries_the_gpu_again(tmp_path: Path, card: Card) -> None:
    """Another process may have had the memory, and a chunk on the CPU takes very long."""
    card.room = 0
    speaker = engine(tmp_path)
    on_cpu = speaker.transcribe(task(), lambda _: None)
    card.room = 100
    card.tried.clear()
    again = speaker.transcribe(task(), lambda _: None)
    assert {one.text for one in again.segments} == {"cuda"}
    assert card.tried == [("cuda", 4), ("cuda", 2)], "in whole batches: none had no room, another process had it"
    assert again.fingerprint != on_cpu.fingerprint


def test_a_gpu_too_full_for_the_model_leads_to_the_cpu_too(tmp_path: Path, card: Card) -> None:
    card.full = True
    speech = engine(tmp_path).transcribe(task(), lambda _: None)
    assert speech.device == "cpu/int8"
    assert [one.code for one in speech.warnings] == ["GPU_MEMORY_SHORT"]


def test_a_gpu_that_stays_full_is_tried_by_every_chunk_and_left_again(tmp_path: Path, card: Card) -> None:
    """The device is chosen once: judged by a full GPU it would be the CPU for good, or an error of the settings."""
    card.full = True
    speaker = engine(tmp_path)
    devices = [speaker.transcribe(task(), lambda _: None).device for _ in range(2)]
    card.full = False
    devices.append(speaker.transcribe(task(), lambda _: None).device)
    assert devices == ["cpu/int8", "cpu/int8", "cuda/float16"]


def test_a_recogniser_that_could_not_be_built_anew_is_loaded_by_the_next_attempt(tmp_path: Path, card: Card) -> None:
    speaker = engine(tmp_path, cpu_fallback=False)
    speaker.transcribe(task(), lambda _: None)
    card.room, card.full = 0, True
    with pytest.raises(GpuOutOfMemory):
        speaker.transcribe(task(), lambda _: None)
    card.room, card.full = 100, False
    assert speaker.transcribe(task(), lambda _: None).device == "cuda/float16"
    assert card.loaded == ["cuda", "cuda"]


@pytest.fixture
def recogniser_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warming up loads no more than what stands in here."""
    monkeypatch.setattr(loaded.LoadedModels, "diarizer", lambda *_: None)
    monkeypatch.setattr(loaded.LoadedModels, "aligner", lambda *_: None)
    monkeypatch.setattr(loaded.LoadedModels, "used", lambda *_: ())


@pytest.mark.usefixtures("recogniser_only")
def test_a_worker_starts_beside_a_full_gpu_and_uses_it_later(tmp_path: Path, card: Card) -> None:
    card.full = True
    speaker = engine(tmp_path)
    speaker.warm_up()
    assert speaker.device == "cpu/int8"
    card.full = False
    assert speaker.transcribe(task(), lambda _: None).device == "cuda/float16"


@pytest.mark.usefixtures("recogniser_only")
def test_a_gpu_on_which_the_recogniser_cannot_compute_is_left_for_good(tmp_path: Path, card: Card) -> None:
    """PyTorch may have another CUDA than CTranslate2, whose cuBLAS is looked for with the first window."""
    card.first_error = "Library libcublas.so.12 is not found or cannot be loaded"
    speaker = engine(tmp_path)
    speaker.warm_up()
    assert [speaker.transcribe(task(), lambda _: None).device for _ in range(2)] == ["cpu/int8"] * 2
    assert card.loaded == ["cuda", "cpu"]


@pytest.mark.usefixtures("recogniser_only")
def test_such_a_gpu_that_was_asked_for_is_a_wrong_setting(tmp_path: Path, card: Card) -> None:
    card.first_error = "Library libcublas.so.12 is not found or cannot be loaded"
    with pytest.raises(Misconfigured, match=r"libcublas.so.12"):
        engine(tmp_path, device="cuda").warm_up()


def test_where_the_cpu_is_not_allowed_the_attempt_fails_and_may_be_tried_again(tmp_path: Path, card: Card) -> None:
    card.room = 0
    with pytest.raises(GpuOutOfMemory) as caught:
        engine(tmp_path, cpu_fallback=False).transcribe(task(), lambda _: None)
    assert caught.value.retryable


def test_a_lost_context_ends_the_process_and_not_the_chunk(tmp_path: Path, card: Card) -> None:
    card.room, card.error = 0, "CUDA failed with error an illegal memory access was encountered"
    with pytest.raises(BrokenGpuContext):
        engine(tmp_path).transcribe(task(), lambda _: None)
    assert card.tried == [("cuda", 4)]


def test_only_the_samples_of_a_window_are_recognised(tmp_path: Path, card: Card) -> None:
    """A chunk's samples start at its audio span, not at the start of the recording."""
    start = 1000 * SAMPLE_RATE_HZ
    span = Span(start, start + 3 * SAMPLE_RATE_HZ)
    chunk = Chunk(7, span, span, (Window(40, 1001.0, 1002.5),), is_last=False)
    samples = np.arange(span.length, dtype=np.float32)
    speech = engine(tmp_path).transcribe(ChunkTask(chunk, samples, TEXT_ONLY, "en"), lambda _: None)
    assert card.heard == [(24_000, 16_000.0)]
    assert (speech.segments[0].start_s, speech.segments[0].window_index) == (1001.0, 40)
