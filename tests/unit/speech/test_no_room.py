"""A GPU without room, from the engine's side: what is dropped, what is done again, and what the result says.

Recogniser and device stand in here: a GPU whose memory is short can be had on no machine at will.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from consumer.core.speech import ChunkTask, Language, Samples
from consumer.core.values import SAMPLE_RATE_HZ, Chunk, Span, Window
from consumer.errors import BrokenGpuContext, GpuOutOfMemory
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
    error: str = "CUDA failed with error out of memory"
    tried: list[tuple[str, int]] = field(default_factory=list)
    heard: list[tuple[int, float]] = field(default_factory=list)
    """Length and first sample of each window."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card(room=100)

    class FakeRecogniser:
        def __init__(self, files: Path, device: Device) -> None:
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

        def rebuild(self) -> bool:
            card.tried.append(("rebuild", 0))
            return True

    monkeypatch.setattr(loaded, "Recogniser", FakeRecogniser)
    monkeypatch.setattr(loaded, "prepare", lambda _: None)
    monkeypatch.setattr(loaded, "choose_device", lambda _: Device("cuda", "float16", 4, 1))
    monkeypatch.setattr(loaded, "cpu_instead", lambda _: Device("cpu", "int8", 2, 1))
    monkeypatch.setattr(loaded, "_set_threads", lambda _: None)
    monkeypatch.setattr(loaded, "_free_cached_memory", lambda: None)
    return card


def engine(tmp_path: Path, *, cpu_fallback: bool = True) -> SpeechEngine:
    (tmp_path / "small" / "asr").mkdir(parents=True)
    (tmp_path / "small" / "model.json").write_text(json.dumps({"name": "small", "asr": "asr"}))
    models = ModelSettings(directory=tmp_path, allowed=("small",))
    return SpeechEngine(models, DeviceSettings(cpu_fallback=cpu_fallback))


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
    again = speaker.transcribe(task(), lambda _: None)
    assert {one.text for one in again.segments} == {"cuda"}
    assert again.fingerprint != on_cpu.fingerprint


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
