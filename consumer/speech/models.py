"""Which models there are, where their files lie, and what identifies them.

A model is a directory with a `model.json`, or a name on the Hugging Face hub. Either way it must be on the
allow-list: checkpoints of pyannote are pickles, and a pickle runs code when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumer.errors import Misconfigured, MissingModel, UnknownModel
from consumer.settings import ModelSettings

log = logging.getLogger(__name__)

WHISPER_WINDOW_S = 30.0
LONGEST_DIARIZATION_WINDOW_S = 10.0
"""The window of pyannote's segmentation models; a model directory may say less."""
BLOCK_BYTES = 1 << 20


class ModelDocument(BaseModel):
    """model.json: what a model directory holds. Paths are relative to it; a name of the hub stands for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name for people and results."""
    max_window_s: float = Field(default=WHISPER_WINDOW_S, gt=0, le=WHISPER_WINDOW_S)
    """Longest window that the recogniser takes, in seconds."""
    asr: str
    """Folder of the recogniser (a CTranslate2 Whisper)."""
    align: dict[str, str] = Field(default_factory=dict)
    """Folder of the aligner (wav2vec2 with CTC) per language."""
    diarization: str | None = None
    """Folder of the pyannote pipeline; null: the one of the settings."""
    diarization_window_s: float = Field(default=LONGEST_DIARIZATION_WINDOW_S, gt=0)
    """Sliding window of the diarization in seconds, or more: chunks overlap by at least this much."""
    nltk_data: str | None = None
    """Folder with punkt_tab, which splits text into sentences."""


@dataclass(frozen=True, slots=True)
class SpeechModel:
    """A model by name: what to load for each of its parts. A part is a folder, or a name that the hub knows."""

    name: str
    asr: str
    max_window_s: float = WHISPER_WINDOW_S
    align: Mapping[str, str] = field(default_factory=dict)
    diarization: str = ""
    diarization_window_s: float = LONGEST_DIARIZATION_WINDOW_S
    nltk_data: Path | None = None


class Models:
    """The models of this installation."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._found: dict[str, SpeechModel] = {}
        self._digests: dict[Path, str] = {}

    def find(self, name: str | None) -> SpeechModel:
        """The model of this name, or the default one. Raises UnknownModel and Misconfigured; loads nothing."""
        name = name or self._settings.allowed[0]
        if name not in self._settings.allowed:
            raise UnknownModel(
                f"the model {name} is not one of this installation; choose {', '.join(self._settings.allowed)}",
                model=name,
            )
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def digest(self, files: Path) -> str:
        """SHA-256 over names and bytes of a folder's files (or of one file), read once per process."""
        if files not in self._digests:
            self._digests[files] = digest_of(files)
        return self._digests[files]

    def _read(self, name: str) -> SpeechModel:
        folder = self._folder(name)
        if folder is None:
            log.info("Model taken from the hub's cache", extra={"model": name})
            return SpeechModel(name, name, align=self._settings.align_models, diarization=self._settings.diarization)
        document = read_document(folder)
        return SpeechModel(
            name=name,
            asr=_part(folder, document.asr),
            max_window_s=document.max_window_s,
            align=dict(self._settings.align_models) | {k: _part(folder, v) for k, v in document.align.items()},
            diarization=_part(folder, document.diarization) if document.diarization else self._settings.diarization,
            diarization_window_s=document.diarization_window_s,
            nltk_data=folder / document.nltk_data if document.nltk_data else None,
        )

    def _folder(self, name: str) -> Path | None:
        """`directory/NAME`, or the directory itself when its model.json has this name."""
        directory = self._settings.directory
        if directory is None:
            return None
        if (directory / name / "model.json").is_file():
            return directory / name
        if (directory / "model.json").is_file() and read_document(directory).name == name:
            return directory
        return None


def read_document(folder: Path) -> ModelDocument:
    """Raises Misconfigured for a model.json that does not say what it must."""
    try:
        return ModelDocument.model_validate(json.loads((folder / "model.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as exc:
        raise Misconfigured(f"{folder}/model.json cannot be read ({exc}); see docs/models.md") from exc


def local_files(place: str, fetch: Callable[[str], str], role: str, settings: ModelSettings) -> Path:
    """The folder of a part: itself, or what `fetch` finds in the hub's cache (or downloads, where that is on).

    Raises MissingModel.
    """
    if Path(place).is_dir():
        return Path(place)
    if Path(place).is_absolute():
        raise MissingModel(f"the {role} model {place} is not there; mount it, or correct model.json", model=place)
    try:
        return Path(fetch(place))
    except (OSError, ValueError) as exc:  # huggingface_hub's errors are OSErrors or ValueErrors
        how = (
            "check name, network and WHISPERX_MODELS__HUB_TOKEN"
            if settings.download
            else "put it into the hub's cache (WHISPERX_MODELS__HUB_CACHE), or set WHISPERX_MODELS__DOWNLOAD=true"
        )
        raise MissingModel(f"the {role} model {place} is not on this machine ({exc}); {how}", model=place) from exc


def snapshot(name: str, settings: ModelSettings) -> str:
    """The folder of a hub model in the cache; files of other frameworks are left where they are."""
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name,
        local_files_only=not settings.download,
        token=settings.hub_token.get_secret_value() or None,
        ignore_patterns=["*.msgpack", "*.h5", "*.onnx", "*.ot", "flax*", "tf_*", "language_model/*"],
    )


def digest_of(files: Path) -> str:
    """Names and bytes, in the order of the names; folders of tools (.git, __pycache__) do not count."""
    whole = hashlib.sha256()
    for file in _files_of(files):
        name = file.relative_to(files).as_posix() if files.is_dir() else file.name
        whole.update(f"{name}\0".encode())
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()


def _files_of(files: Path) -> list[Path]:
    if files.is_file():
        return [files]
    found = (file for file in sorted(files.rglob("*")) if file.is_file())
    return [one for one in found if not any(p.startswith((".", "__")) for p in one.relative_to(files).parts)]


def _part(folder: Path, place: str) -> str:
    """A folder inside the model directory as a path, or the name of a hub model unchanged."""
    inside = (folder / place).resolve()
    return str(inside) if inside.exists() else place
