"""The manifest: the list of everything about one run, written after all other result files.

Whoever sees a manifest sees a finished result. Two writers of the same checkpoints make the same bytes, so it holds
sums of what the checkpoints say and no instants or wall times of the assembly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from consumer.core.documents import parse
from consumer.core.speech import ChunkSpeech
from consumer.events import Artifact, ChunkTimings, JobOptions, JobStatus, ModelUsed, Problem, RecordingFacts

MAX_WARNINGS = 100
"""Most warnings of a run that are listed; the result event, which carries them too, must stay under 256 KiB."""


class ResultManifest(BaseModel):
    """What results/<job>/<run>/manifest.json says. Fields of later versions are skipped when reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True)

    version: Literal[1] = 1
    """Version of this document; it changes when a field changes its meaning."""
    job_id: str
    """The job."""
    run: int
    """The run, counted from 1."""
    status: Literal[JobStatus.COMPLETED, JobStatus.PARTIAL]
    """partial when chunks are missing. A run that failed or was cancelled has no manifest."""
    request_digest: str
    """Hash of recording and options of the request: tells a late duplicate from a conflict."""
    recording: RecordingFacts
    """What was found out about the recording."""
    options: JobOptions
    """The options after defaults and clamps."""
    language: str | None
    """Language of the text as an ISO 639 code; null when nothing was said."""
    language_probability: float | None
    """Confidence of the detection, 0 to 1; null when the language was given."""
    speakers: tuple[str, ...]
    """Speaker labels in order of their first turn."""
    models: tuple[ModelUsed, ...]
    """The models that took part."""
    fingerprint: str
    """Model digests, device type and compute type in one hash."""
    chunks_total: int
    """Chunks of the recording."""
    chunks_failed: tuple[int, ...]
    """Chunks that are missing."""
    artifacts: tuple[Artifact, ...]
    """The result files."""
    timings: ChunkTimings
    """Seconds of work by stage, summed over chunks."""
    warnings: tuple[Problem, ...]
    """What a reader should know."""
    metadata: dict[str, str] = Field(default_factory=dict)
    """What the request carried."""

    def to_bytes(self) -> bytes:
        """JSON for programs and people: keys sorted, indented, UTF-8. Raises ValueError for NaN."""
        document = self.model_dump(mode="json")
        return (json.dumps(document, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, place: str = "the manifest") -> ResultManifest:
        """Raises UnreadableDocument."""
        return parse(cls, data, place)

    def artifact(self, format_name: str) -> Artifact | None:
        return next((artifact for artifact in self.artifacts if artifact.format == format_name), None)


def total_timings(chunks: Iterable[ChunkSpeech]) -> ChunkTimings:
    """Stage by stage, rounded to milliseconds."""
    every = [chunk.timings.model_dump() for chunk in chunks]
    return ChunkTimings(**{name: round(sum(one[name] for one in every), 3) for name in ChunkTimings.model_fields})


def models_of(chunks: Iterable[ChunkSpeech]) -> tuple[ModelUsed, ...]:
    """Each model once, in order of first use. A model on two devices has two compute types and is named twice."""
    used = {model.model_dump_json(): model for chunk in chunks for model in chunk.models}
    return tuple(used.values())


def fingerprint_of(chunks: Iterable[ChunkSpeech]) -> str:
    """The chunks' fingerprint; where they differ a hash of all in order, since equal ones promise equal results."""
    found = [chunk.fingerprint for chunk in chunks if chunk.fingerprint]
    if len(set(found)) <= 1:
        return found[0] if found else ""
    return sha256("\n".join(found).encode()).hexdigest()


def warnings_of(before: Sequence[Problem], chunks: Sequence[ChunkSpeech], failed: Sequence[int]) -> tuple[Problem, ...]:
    """Those about the whole run first, then those of the chunks: each once, and no more than can travel."""
    of_chunks = (warning for chunk in chunks for warning in chunk.warnings)
    said = [*before, *_missing(failed), *_mixed(chunks), *of_chunks]
    once = list(dict.fromkeys(said))
    if len(once) <= MAX_WARNINGS:
        return tuple(once)
    kept = once[: MAX_WARNINGS - 1]
    omitted = f"{len(once) - len(kept)} more warnings are not listed; look for the causes of those that are"
    return (*kept, Problem(code="WARNINGS_OMITTED", message=omitted, stage="assemble"))


def _missing(failed: Sequence[int]) -> list[Problem]:
    if not failed:
        return []
    shown = ", ".join(map(str, failed[:20])) + (", ..." if len(failed) > 20 else "")
    message = f"{len(failed)} chunks could not be transcribed ({shown}): their text is missing, see the gaps"
    return [Problem(code="CHUNKS_MISSING", message=message, stage="assemble")]


def _mixed(chunks: Sequence[ChunkSpeech]) -> list[Problem]:
    different = {chunk.fingerprint for chunk in chunks if chunk.fingerprint}
    if len(different) <= 1:
        return []
    devices = ", ".join(sorted({chunk.device for chunk in chunks if chunk.device}))
    message = (
        f"the chunks were computed in {len(different)} ways ({devices}), so a run on one device and with one version "
        "of the models may differ in words; give all workers the same models and devices, or force a new run"
    )
    return [Problem(code="MIXED_FINGERPRINTS", message=message, stage="assemble")]
