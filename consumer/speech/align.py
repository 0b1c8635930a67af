"""Word times: the aligner's network over a window's samples, then the search for the known text in its scores."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from consumer.core.speech import Samples, Segment
from consumer.core.values import SAMPLE_RATE_HZ, Span
from consumer.errors import MissingModel
from consumer.settings import ModelSettings
from consumer.speech.environment import quiet
from consumer.speech.forced_alignment import (
    LANGUAGES_WITHOUT_SPACES,
    Frames,
    Scores,
    Symbol,
    find_characters,
    symbols_of,
)
from consumer.speech.models import local_files, snapshot
from consumer.speech.sentences import TimedCharacter, sentences_of, splitter_for

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

LEAST_SAMPLES = 400
"""What the first layer of wav2vec2 needs; shorter sound is padded."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was recognised in one window; times in seconds from the start of the recording, in milliseconds."""

    window_index: int
    start_s: float
    end_s: float
    text: str
    avg_logprob: float | None = None
    channel: int = 0

    @property
    def span(self) -> Span:
        """The samples that whisperx would align: cut from the rounded times."""
        return Span(int(self.start_s * SAMPLE_RATE_HZ), int(self.end_s * SAMPLE_RATE_HZ))

    def segment(self) -> Segment:
        """The text with the window's own times, for when there are no better ones."""
        return Segment(
            start_s=self.start_s,
            end_s=self.end_s,
            text=self.text.strip(),
            channel=self.channel,
            window_index=self.window_index,
            avg_logprob=self.avg_logprob,
        )


class Aligner:
    """One language's wav2vec2 model with its symbols."""

    def __init__(self, language: str, model: Any, metadata: dict[str, Any], device: str) -> None:
        self._language = language
        self._spaced = language not in LANGUAGES_WITHOUT_SPACES
        self._model = model
        self._kind: str = metadata["type"]
        self._dictionary: dict[str, int] = metadata["dictionary"]
        self._device = device
        blanks = [code for symbol, code in self._dictionary.items() if symbol in ("[pad]", "<pad>")]
        self._blank = blanks[-1] if blanks else 0

    def align(self, heard: Heard, samples: Samples) -> list[Segment]:
        """The window's sentences with their words; the window itself when its text is not found in its sound.

        `samples` are those of `heard.span`, whatever chunk they came from: so the answer is the same in any chunk.
        """
        symbols = symbols_of(heard.text, self._dictionary, spaced=self._spaced)
        found = None
        if symbols and len(samples):
            scores = self._scores(samples)
            found = find_characters(scores, symbols, self._blank)
        if found is None:
            log.info("A window could not be aligned", extra={"window": heard.window_index})
            return [heard.segment()]
        return self._segments(heard, _timed(heard, symbols, found, len(scores)))

    def _scores(self, samples: Samples) -> Scores:
        """(n_frames, n_symbols)"""
        import torch

        sound = torch.from_numpy(np.array(samples))[None]
        lengths = None
        if sound.shape[1] < LEAST_SAMPLES:
            lengths = torch.as_tensor([sound.shape[1]], device=self._device)
            sound = torch.nn.functional.pad(sound, (0, LEAST_SAMPLES - sound.shape[1]))
        with torch.inference_mode():
            scores: torch.Tensor = torch.log_softmax(self._forward(sound.to(self._device), lengths), dim=-1)
        return scores[0].cpu().numpy()

    def _forward(self, sound: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        if self._kind == "torchaudio":
            emissions: torch.Tensor = self._model(sound, lengths=lengths)[0]
        else:
            emissions = self._model(sound).logits
        return emissions

    def _segments(self, heard: Heard, characters: list[TimedCharacter]) -> list[Segment]:
        sentences = sentences_of(heard.text, characters, splitter_for(self._language), spaced=self._spaced)
        if not sentences:
            return [heard.segment()]
        return [
            Segment(
                start_s=sentence.start_s,
                end_s=sentence.end_s,
                text=sentence.text.strip(),
                words=sentence.words,
                channel=heard.channel,
                window_index=heard.window_index,
                timing="aligned",
                avg_logprob=heard.avg_logprob,
            )
            for sentence in sentences
        ]


def _timed(heard: Heard, symbols: list[Symbol], found: list[Frames], n_frames: int) -> list[TimedCharacter]:
    """One entry per character of the text, in seconds from the start of the recording."""
    frame_s = (heard.end_s - heard.start_s) / n_frames
    characters = [TimedCharacter()] * len(heard.text)
    for symbol, frames in zip(symbols, found, strict=True):
        characters[symbol.at] = TimedCharacter(
            start_s=round(frames.start * frame_s + heard.start_s, 3),
            end_s=round(frames.end * frame_s + heard.start_s, 3),
            score=round(frames.score, 3),
        )
    return characters


class Aligners:
    """Aligners by the place of their files; beyond `most`, the one unused for longest is dropped."""

    def __init__(self, most: int, load: Callable[[str, Path | str], Aligner]) -> None:
        self._most = most
        self._load = load
        self._held: OrderedDict[tuple[str, str], Aligner] = OrderedDict()

    def get(self, language: str, place: Path | str) -> Aligner:
        key = (language, str(place))
        if key not in self._held:
            while len(self._held) >= self._most:
                dropped, _ = self._held.popitem(last=False)
                log.info("Aligner dropped", extra={"language": dropped[0]})
            self._held[key] = self._load(language, place)
        self._held.move_to_end(key)
        return self._held[key]

    def clear(self) -> bool:
        """Drop all; whether there were any."""
        held = bool(self._held)
        self._held.clear()
        return held


def load_aligner(language: str, place: Path | str, device: str) -> Aligner:
    """From a folder, or a torchaudio bundle by its name."""
    from whisperx.alignment import load_align_model

    with quiet():
        model, metadata = load_align_model(language, device, model_name=str(place), model_cache_only=True)
    model.eval()
    if device == "cpu":
        from consumer.speech.features_in_blocks import save_memory

        save_memory(model)
    return Aligner(language, model, metadata, device)


def default_place(language: str) -> str | None:
    """whisperx's own choice of an aligner for the language."""
    from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF, DEFAULT_ALIGN_MODELS_TORCH

    place: str | None = DEFAULT_ALIGN_MODELS_TORCH.get(language) or DEFAULT_ALIGN_MODELS_HF.get(language)
    return place


def aligner_files(place: str, settings: ModelSettings) -> tuple[Path | str, Path]:
    """What to load, and the files that it consists of. Raises MissingModel.

    A torchaudio bundle is loaded by name; torchaudio would download it without asking, so its file is looked for.
    """
    import torch
    import torchaudio

    if place in torchaudio.pipelines.__all__:
        file = Path(torch.hub.get_dir(), "checkpoints", Path(getattr(torchaudio.pipelines, place)._path).name)
        if not file.is_file() and not settings.download:
            raise MissingModel(f"the aligner {place} is not on this machine: {file} is missing", model=place)
        return place, file
    folder = local_files(place, lambda name: snapshot(name, settings), "align", settings)
    return folder, folder
