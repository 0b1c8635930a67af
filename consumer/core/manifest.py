"""What the functions leave for each other in the object store, as typed JSON documents."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consumer.core.values import Chunk, Span, Window

Seconds = Annotated[float, Field(ge=0, le=1e9)]


class ChunkPlan(BaseModel):
    """The planner's note on one chunk, stored beside its audio: what the transcriber reads first."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    version: Literal[1] = 1
    """It changes when a field changes its meaning; a field that is new does not change it."""
    index: int
    span: tuple[int, int]
    """Samples from the start of the recording; the end is not included."""
    audio: tuple[int, int]
    """Samples that the audio object holds."""
    windows: tuple[tuple[int, Seconds, Seconds, int], ...]
    """(index, start_s, end_s, channel) of every window that starts in the span."""
    audio_sha256: str
    is_last: bool
    """Whether the recording ends with this chunk's audio: only then is the last diarization window padded."""
    recording_samples: int | None = None
    """Length of the recording in samples where it was known when this was written (always for the last chunk)."""
    channel: int = 0
    """The channel that it is of; 0 where all are mixed."""

    @model_validator(mode="after")
    def _spans_are_spans(self) -> Self:
        for window in self.chunk().windows:
            _ = window.span
        return self

    def chunk(self) -> Chunk:
        return Chunk(
            index=self.index,
            span=Span(*self.span),
            audio=Span(*self.audio),
            windows=tuple(Window(index=i, start_s=s, end_s=e, channel=c) for i, s, e, c in self.windows),
            is_last=self.is_last,
            channel=self.channel,
        )

    @classmethod
    def of(cls, chunk: Chunk, audio_sha256: str, recording_samples: int | None = None) -> ChunkPlan:
        return cls(
            index=chunk.index,
            span=(chunk.span.start, chunk.span.end),
            audio=(chunk.audio.start, chunk.audio.end),
            windows=tuple((w.index, w.start_s, w.end_s, w.channel) for w in chunk.windows),
            audio_sha256=audio_sha256,
            is_last=chunk.is_last,
            recording_samples=recording_samples,
            channel=chunk.channel,
        )
