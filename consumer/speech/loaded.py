"""The models in memory: loaded on first use, dropped when there is no room, moved to the CPU as a last resort."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Literal

from consumer.errors import MissingModel
from consumer.events import JobOptions, ModelUsed
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.align import Aligner, Aligners, aligner_files, default_place, load_aligner
from consumer.speech.asr import Recogniser
from consumer.speech.device import Device, choose_device, cpu_for_good, cpu_instead
from consumer.speech.diarize import Diarizer
from consumer.speech.environment import add_nltk_data, prepare
from consumer.speech.gpu_errors import Meaning, first_line, meaning
from consumer.speech.ladder import Rung
from consumer.speech.models import Models, SpeechModel, local_files, snapshot

log = logging.getLogger(__name__)

Stage = Literal["transcribe", "align", "diarize"]


class LoadedModels:
    """Not thread-safe: the engine's lock guards it."""

    def __init__(self, models: ModelSettings, device: DeviceSettings) -> None:
        self._settings = models
        self._device_settings = device
        self._models = Models(models)
        self._device: Device | None = None
        self._left: Device | None = None
        self._recogniser: tuple[Path, Recogniser] | None = None
        self._diarizer: tuple[Path, Diarizer] | None = None
        self._aligners = Aligners(models.max_align_models, self._load_aligner)

    @property
    def device(self) -> Device:
        if self._device is None:
            prepare(self._settings)
            self._device = choose_device(self._device_settings)
            _set_threads(self._device.threads)
        return self._device

    def find(self, name: str | None) -> SpeechModel:
        return self._models.find(name)

    # ── one of each kind ────────────────────────────────────────────────────────────────────────────────────────────

    def recogniser(self, model: SpeechModel) -> Recogniser:
        files = self._asr_files(model)
        if self._recogniser is None or self._recogniser[0] != files:
            self._recogniser = None  # its memory first: two large models may not fit
            self._recogniser = files, Recogniser(files, self.device)
            log.info("Recogniser loaded", extra={"model": model.name, "device": str(self.device)})
        return self._recogniser[1]

    def tried_recogniser(self, model: SpeechModel) -> Recogniser:
        """The recogniser, after a first window on a GPU: only then CTranslate2 opens cuBLAS, which may be missing.

        Raises Misconfigured where the settings name CUDA; with `auto` the CPU takes over for good.
        """
        recogniser = self.recogniser(model)
        if self.device.kind == "cuda":
            try:
                recogniser.encode_silence()
            except RuntimeError as exc:
                if meaning(exc) is not Meaning.OTHER:
                    raise
                fault = f"the recogniser cannot compute on it ({first_line(exc)})"
                self._device = cpu_for_good(self._device_settings, fault)
                self._drop_all()
                recogniser = self.recogniser(model)
        return recogniser

    def diarizer(self, model: SpeechModel) -> Diarizer:
        files = self._diarization_files(model)
        if self._diarizer is None or self._diarizer[0] != files:
            self._diarizer = None
            self._diarizer = files, Diarizer(files, self.device.kind, model.diarization_window_s)
            log.info("Diarizer loaded", extra={"model": model.name, "device": self.device.kind})
        return self._diarizer[1]

    def aligner(self, model: SpeechModel, language: str) -> Aligner | None:
        """None when there is no alignment model for the language, here or at all."""
        found = self._aligner_files(model, language)
        if found is None:
            return None
        if model.nltk_data is not None:
            add_nltk_data(model.nltk_data)
        return self._aligners.get(language, found[0])

    def has_aligner(self, model: SpeechModel, language: str) -> bool:
        """Whether there is one to load."""
        return self._aligner_files(model, language) is not None

    def _load_aligner(self, language: str, place: Path | str) -> Aligner:
        aligner = load_aligner(language, place, self.device.kind)
        log.info("Aligner loaded", extra={"language": language, "device": self.device.kind})
        return aligner

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def used(self, options: JobOptions, language: str | None) -> tuple[ModelUsed, ...]:
        """The models that such a job needs, with the digests of their files. Loads none of them."""
        model = self.find(options.model)
        compute_type = self.device.compute_type
        used = [self._used("transcribe", self._asr_files(model), model.name, compute_type)]
        aligns = options.align.enabled and options.task == "transcribe" and language is not None
        found = self._aligner_files(model, language) if aligns and language else None
        if found is not None:
            used.append(self._used("align", found[1], _name(found[0], model)))
        if options.tells_voices_apart:
            files = self._diarization_files(model)
            used.append(self._used("diarize", files, _name(model.diarization, model)))
        return tuple(used)

    def _used(self, role: Stage, files: Path, name: str, compute_type: str = "float32") -> ModelUsed:
        return ModelUsed(role=role, name=name, digest=self._models.digest(files), compute_type=compute_type)

    def _asr_files(self, model: SpeechModel) -> Path:
        def fetch(name: str) -> str:
            from faster_whisper.utils import download_model

            token = self._settings.hub_token.get_secret_value() or None
            return str(download_model(name, local_files_only=not self._settings.download, use_auth_token=token))

        prepare(self._settings)
        return local_files(model.asr, fetch, "transcribe", self._settings)

    def _diarization_files(self, model: SpeechModel) -> Path:
        prepare(self._settings)
        return local_files(model.diarization, lambda name: snapshot(name, self._settings), "diarize", self._settings)

    def _aligner_files(self, model: SpeechModel, language: str) -> tuple[Path | str, Path] | None:
        prepare(self._settings)
        place = model.align.get(language) or default_place(language)
        if place is None:
            return None
        try:
            return aligner_files(place, self._settings)
        except MissingModel as exc:
            log.debug("No aligner on this machine", extra={"language": language, "reason": exc.message})
            return None

    # ── when there is no room ───────────────────────────────────────────────────────────────────────────────────────

    def rungs(self, stage: Stage) -> list[Rung]:
        """What can be done for a stage beyond smaller batches. On the CPU nothing: its memory is the process's."""
        if self.device.kind == "cpu":
            return []
        rungs = [Rung("unloading idle models", lambda: self._drop_but(stage))]
        if stage == "transcribe":
            rungs.append(Rung("building the recogniser anew", self._rebuild))
        if self._device_settings.cpu_fallback:
            rungs.append(Rung("going on on the CPU", self._fall_back, leaves_device=True))
        return rungs

    def leave_fallback(self) -> None:
        """Try the GPU again: it may have been another process that took its memory."""
        if self._left is not None:
            self._drop_all()
            self._device, self._left = self._left, None

    def _drop_but(self, stage: Stage) -> bool:
        dropped = False
        if stage != "transcribe" and self._recogniser is not None:
            self._recogniser, dropped = None, True
        if stage != "diarize" and self._diarizer is not None:
            self._diarizer, dropped = None, True
        if stage != "align":
            dropped = self._aligners.clear() or dropped
        _free_cached_memory()
        return dropped

    def _rebuild(self) -> bool:
        held, self._recogniser = self._recogniser, None  # it stays away when there is no room to build it
        if held is None:
            return False
        held[1].rebuild()
        self._recogniser = held
        return True

    def _fall_back(self) -> bool:
        self._left = self.device
        self._drop_all()
        self._device = cpu_instead(self._device_settings)
        return True

    def _drop_all(self) -> None:
        self._recogniser = self._diarizer = None
        self._aligners.clear()
        _free_cached_memory()


def _name(place: Path | str, model: SpeechModel) -> str:
    """A hub model's own name; a part of a model directory goes by the directory's."""
    return model.name if isinstance(place, Path) or Path(place).is_absolute() else place


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _free_cached_memory() -> None:
    """PyTorch keeps what it once had; CTranslate2, which shares the device, cannot use that."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
