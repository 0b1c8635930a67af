"""The recogniser: whisperx's own Whisper over windows that were planned before, in batches.

Not through `FasterWhisperPipeline.transcribe`: that would run its own voice-activity detection, keeps the language of
one call for the next one, and leaves its state changed when a call is ended from outside. Its feature extraction and
its decoding are used as they are, with tokenizer and options as arguments, so there is no state to put back.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from consumer.core.prompt import Prompt
from consumer.core.speech import Language, Samples
from consumer.core.values import SAMPLE_RATE_HZ
from consumer.speech.device import Device
from consumer.speech.environment import quiet

log = logging.getLogger(__name__)

WINDOW_SAMPLES = 480_000  # 30 s, what the encoder takes
LEAST_WORK_BYTES = 256 << 20
"""What a GPU has to have beside the model: less is not enough for CUDA's libraries and one window."""
Task = Literal["transcribe", "translate"]
NO_PROMPT = Prompt()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a job wants its windows decoded."""

    language: str
    task: Task = "transcribe"
    beam_size: int = 5
    prompt: Prompt = NO_PROMPT


@dataclass(frozen=True, slots=True)
class Text:
    """What was recognised in one window; `avg_logprob` is the mean log-probability of its tokens."""

    text: str
    avg_logprob: float


class Recogniser:
    """One loaded Whisper. Serves one call at a time."""

    def __init__(self, files: Path, device: Device) -> None:
        self._files = files
        self.device = device
        self._pipeline = _load(files, device)

    @property
    def _whisper(self) -> Any:
        return self._pipeline.model

    @property
    def is_multilingual(self) -> bool:
        return bool(self._whisper.model.is_multilingual)

    def count_tokens(self, text: str) -> int:
        return len(self._whisper.hf_tokenizer.encode(text, add_special_tokens=False).ids)

    def detect_language(self, samples: Samples) -> Language:
        """By the first 30 s of the sample. A model for English only knows one answer."""
        if not self.is_multilingual:
            return Language("en", 1.0)
        encoded = self._whisper.encode(self._features([samples[:WINDOW_SAMPLES]]))
        token, probability = self._whisper.model.detect_language(encoded)[0][0]
        return Language(token.removeprefix("<|").removesuffix("|>"), float(probability))

    def recognise(self, batch: Sequence[Samples], decoding: Decoding) -> list[Text]:
        """The text of each window, none longer than 30 s. The text of a window does not depend on its neighbours."""
        options = dataclasses.replace(
            self._pipeline.options,
            beam_size=decoding.beam_size,
            hotwords=decoding.prompt.hotwords,
            initial_prompt=decoding.prompt.initial_prompt,
        )
        answer = self._whisper.generate_segment_batched(self._features(batch), self._tokenizer(decoding), options)
        return [Text(text, float(logprob)) for text, logprob in zip(answer["text"], answer["avg_logprob"], strict=True)]

    def encode_silence(self) -> None:
        """A first window: raises what computing raises."""
        self._whisper.encode(self._features([np.zeros(SAMPLE_RATE_HZ, dtype=np.float32)]))

    def rebuild(self) -> None:
        """Load the model anew: CTranslate2 gives its memory back only then."""
        self._whisper.model.unload_model()
        ask_for_room(self._files)
        self._whisper.model.load_model()

    def _features(self, batch: Sequence[Samples]) -> Any:
        """(n_windows, n_mels, 3000), each padded to 30 s."""
        import torch

        return torch.stack([self._pipeline.preprocess({"inputs": np.array(samples)})["inputs"] for samples in batch])

    def _tokenizer(self, decoding: Decoding) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(
            self._whisper.hf_tokenizer, self.is_multilingual, task=decoding.task, language=decoding.language
        )


class PlannedWindows:
    """Stands where whisperx expects a voice-activity model, so that it loads none. It is never asked."""


def ask_for_room(files: Path) -> None:
    """Raises MemoryError where the GPU has none for this model.

    It is asked before, because CTranslate2 that loads a model in vain may abort the process instead of raising.
    """
    import torch

    torch.cuda.empty_cache()
    free, needed = torch.cuda.mem_get_info()[0], (files / "model.bin").stat().st_size + LEAST_WORK_BYTES
    if free < needed:
        raise MemoryError(f"out of memory: the recogniser needs {needed >> 20} MiB of the GPU, {free >> 20} are free")


def _load(files: Path, device: Device) -> Any:
    from whisperx.asr import load_model

    if device.kind == "cuda":
        ask_for_room(files)
    with quiet():
        return load_model(
            str(files),
            device.kind,
            model=_for_the_cpu(files, device) if device.kind == "cpu" else None,
            compute_type=device.compute_type,
            language=None,
            vad_model=PlannedWindows(),
            threads=device.threads,
            local_files_only=True,
        )


def _for_the_cpu(files: Path, device: Device) -> Any:
    from consumer.speech.window_by_window import WindowByWindow

    return WindowByWindow(
        str(files), device="cpu", compute_type=device.compute_type, cpu_threads=device.threads, local_files_only=True
    )


def in_batches(
    windows: Sequence[Samples],
    batch_size: int,
    recognise: Callable[[Sequence[Samples]], list[Text]],
    done: dict[int, Text],
) -> Iterator[float]:
    """Recognise what is not in `done` yet, batch by batch; yields the share that is done after each.

    `done` is the caller's, so that what was recognised before a batch found no room is not recognised again.
    """
    while left := [at for at in range(len(windows)) if at not in done][:batch_size]:
        done |= zip(left, recognise([windows[at] for at in left]), strict=True)
        yield len(done) / len(windows)
