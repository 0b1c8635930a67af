"""The finished work of one chunk as one object: an .npz file with a JSON document inside.

    speech.json       everything but the arrays
    scores.npy        (windows, frames, local speakers), float32
    embeddings.npy    (windows, local speakers, dimension), float32; NaN for a silent local speaker

Equal values give equal bytes: fields in a fixed order, no time stamps, one compression level. Nothing is pickled.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from consumer.core.speech import Activity, ChunkSpeech, Segment
from consumer.errors import LostIntermediate
from consumer.events import ChunkTimings, ModelUsed, Problem

DOCUMENT, SCORES, EMBEDDINGS = "speech.json", "scores.npy", "embeddings.npy"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first instant that a zip entry can name: the same in every checkpoint."""
COMPRESSION_LEVEL = 6
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    KeyError,
    ValueError,
    ValidationError,
    EOFError,
    RuntimeError,
)
"""What comes of other bytes; RuntimeError where they ask for a version, a compression or a password of zip files."""


class UnreadableCheckpoint(LostIntermediate):
    """Not a checkpoint of this version: torn, foreign, or written by another release."""


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always", hide_input_in_errors=True
    )

    version: Literal[1] = 1
    segments: tuple[Segment, ...]
    first_window: int | None
    """Number of the first diarization window; null when speakers were not asked for."""
    language: str | None
    language_probability: float | None
    timings: ChunkTimings
    warnings: tuple[Problem, ...]
    fingerprint: str
    device: str
    models: tuple[ModelUsed, ...]


def encode(speech: ChunkSpeech) -> bytes:
    """Raises ValueError for NaN or infinity anywhere but in the arrays."""
    document = _Document(
        segments=speech.segments,
        first_window=None if speech.activity is None else speech.activity.first,
        language=speech.language,
        language_probability=speech.language_probability,
        timings=speech.timings,
        warnings=speech.warnings,
        fingerprint=speech.fingerprint,
        device=speech.device,
        models=speech.models,
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, DOCUMENT, document.model_dump_json().encode())
        if speech.activity is not None:
            _add(archive, SCORES, _npy(speech.activity.scores))
            _add(archive, EMBEDDINGS, _npy(speech.activity.embeddings))
    return buffer.getvalue()


def decode(data: bytes) -> ChunkSpeech:
    """Raises UnreadableCheckpoint."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            document = _Document.model_validate_json(archive.read(DOCUMENT), extra="ignore")
            activity = None if document.first_window is None else _activity(document.first_window, archive)
    except UNREADABLE as exc:
        raise UnreadableCheckpoint(f"not a checkpoint that this version reads ({exc}); transcribe again") from exc
    return ChunkSpeech(
        segments=document.segments,
        activity=activity,
        language=document.language,
        language_probability=document.language_probability,
        timings=document.timings,
        warnings=document.warnings,
        fingerprint=document.fingerprint,
        device=document.device,
        models=document.models,
    )


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    archive.writestr(entry, data, compresslevel=COMPRESSION_LEVEL)


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype="<f4"), allow_pickle=False)
    return buffer.getvalue()


def _activity(first: int, archive: zipfile.ZipFile) -> Activity:
    scores, embeddings = (np.load(io.BytesIO(archive.read(name)), allow_pickle=False) for name in (SCORES, EMBEDDINGS))
    if scores.ndim != 3 or embeddings.ndim != 3 or scores.dtype != np.float32 or embeddings.dtype != np.float32:
        raise ValueError("arrays of another shape or type")
    return Activity(first=first, scores=scores, embeddings=embeddings)
