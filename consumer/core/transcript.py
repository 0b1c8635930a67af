"""One transcript out of many chunks, and its JSON document with whisperX's field names.

The document holds nothing that changes between two writers of the same checkpoints: no instants, no host, a fixed
order of keys, and every number rounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from consumer.core.speakers import Overlap, overlapped_speech, speakers_in_order, speech_by_speaker
from consumer.core.speech import Segment, Turn, Word

TIME_DECIMALS = 3
"""Milliseconds: what every subtitle format can say."""

EMBEDDING_DECIMALS = 6
"""About what a float32 holds."""

WITHOUT_SPACES = frozenset({"ja", "zh", "yue", "th", "lo", "my", "km"})
"""Languages whose sentences follow each other without a space."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch that is missing because its chunk failed for good."""

    start_s: float
    end_s: float
    chunk_index: int
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything that the result files are made of. `segments` are in order; `turns` may overlap.

    `recording_name` names the recording where a format asks for one (RTTM). `diarized` tells "nobody was heard" from
    "nobody was asked to listen". `by_channel` says that each channel was transcribed by itself.
    """

    segments: tuple[Segment, ...]
    language: str | None
    duration_s: float
    recording_name: str = "recording"
    language_probability: float | None = None
    diarized: bool = False
    by_channel: bool = False
    turns: tuple[Turn, ...] = ()
    embeddings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()

    @property
    def text(self) -> str:
        """The whole text in one string."""
        return join_texts((segment.text for segment in self.segments), self.language)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Labels in order of their first turn."""
        return speakers_in_order(self.turns)

    def to_bytes(self) -> bytes:
        """transcript.json, UTF-8. Raises ValueError rather than write NaN, which is no JSON."""
        document = transcript_document(self)
        return (json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def in_order(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Segments by start, then channel; those that start together stay as the recogniser gave them."""
    return tuple(sorted(segments, key=lambda segment: (segment.start_s, segment.channel)))


def join_texts(texts: Iterable[str], language: str | None) -> str:
    """Texts after one another, with a space between unless the text brings one or the language has none."""
    space = "" if language in WITHOUT_SPACES else " "
    joined = "".join(text if text[:1].isspace() else space + text for text in texts if text)
    return joined.strip()


def transcript_document(transcript: Transcript) -> JsonObject:
    """The document as plain values. What is not known is absent, as in whisperX, and never null or NaN."""
    by_channel = transcript.by_channel
    segments = [_segment(number, segment, by_channel) for number, segment in enumerate(transcript.segments)]
    return _known(
        language=transcript.language,
        language_probability=_number(transcript.language_probability),
        duration_s=_number(transcript.duration_s),
        text=transcript.text,
        segments=segments,
        word_segments=[word for segment in segments for word in segment["words"]],
        speakers=_speakers(transcript),
        overlaps=[_overlap(overlap) for overlap in overlapped_speech(transcript.turns)],
        gaps=[_gap(gap, by_channel) for gap in transcript.gaps],
    )


def _segment(number: int, segment: Segment, by_channel: bool) -> JsonObject:
    return _known(
        id=number,
        start=_rounded(segment.start_s),
        end=_rounded(segment.end_s),
        text=segment.text,
        speaker=segment.speaker,
        channel=segment.channel,
        avg_logprob=_number(segment.avg_logprob),
        timing=segment.timing,
        flags=list(segment.flags) or None,
        words=[_word(word, segment.channel if by_channel else None) for word in segment.words],
    )


def _word(word: Word, channel: int | None) -> JsonObject:
    return _known(
        word=word.text.strip(),
        start=_number(word.start_s),
        end=_number(word.end_s),
        score=_number(word.score),
        speaker=word.speaker,
        channel=channel,
    )


def _speakers(transcript: Transcript) -> list[JsonObject]:
    return [
        _known(label=label, speech_s=_number(seconds), embedding=_embedding(transcript.embeddings.get(label)))
        for label, seconds in speech_by_speaker(transcript.turns).items()
    ]


def _embedding(values: tuple[float, ...] | None) -> list[float] | None:
    """None where a voice was too short for an embedding: pyannote then has NaN."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return [round(float(value), EMBEDDING_DECIMALS) + 0.0 for value in values]


def _overlap(overlap: Overlap) -> JsonObject:
    return {"start": _number(overlap.start_s), "end": _number(overlap.end_s), "speakers": list(overlap.speakers)}


def _gap(gap: Gap, by_channel: bool) -> JsonObject:
    return _known(
        start=_number(gap.start_s),
        end=_number(gap.end_s),
        chunk=gap.chunk_index,
        channel=gap.channel if by_channel else None,
    )


def _number(value: float | None) -> float | None:
    """Rounded; None where there is no number to tell."""
    return None if value is None or not math.isfinite(value) else _rounded(value)


def _rounded(value: float) -> float:
    """A plain float (numpy's float32 is no JSON); + 0.0 turns -0.0 into 0.0. NaN stays NaN and is found later."""
    return round(float(value), TIME_DECIMALS) + 0.0


def _known(**fields: Any) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None}
