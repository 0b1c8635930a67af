"""Cues for .srt and .vtt: lines no wider, cues no longer and no taller than asked, and every word in one of them.

A cue never holds text of two segments, so never of two speakers. Words bring their times; what has none (alignment
failed, or a language without an aligner) gets its share of the time around it, by length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from consumer.core.pieces import cut_at_words
from consumer.core.speech import Segment
from consumer.events import SubtitleOptions

MIN_CUE_MS = 100
"""A cue of no length at all is refused by players; 100 ms is short enough for any single word."""

SCRIPTS_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Chinese, Japanese, Korean: an over-long piece may be cut between two characters."""


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle. `lines` have no line breaks inside and are not escaped; times are milliseconds."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    speaker: str | None = None
    channel: int = 0


@dataclass(frozen=True, slots=True)
class _Atom:
    """Text that is never broken over two lines. `glued`: no space stands before it."""

    text: str
    glued: bool
    start_s: float
    end_s: float


def make_cues(segments: Iterable[Segment], shape: SubtitleOptions, *, written_labels: bool) -> list[Cue]:
    """Cues in order of time. With `written_labels` a cue's text starts with its speaker, as in `[SPEAKER_00]: Yes.`"""
    made = [cue for segment in segments for cue in _cues_of(segment, shape, written_labels)]
    return _without_collisions(sorted(made, key=lambda cue: cue.start_ms))


def _cues_of(segment: Segment, shape: SubtitleOptions, written_labels: bool) -> list[Cue]:
    speaker = segment.speaker if shape.speaker_labels else None
    label = f"[{speaker}]:" if speaker is not None and written_labels else None
    groups: list[list[_Atom]] = []
    for atom in _atoms(segment, shape.max_line_width):
        if groups and _has_room([*groups[-1], atom], shape, label):
            groups[-1].append(atom)
        else:
            groups.append([atom])
    return [_cue(group, shape, label, speaker, segment.channel) for group in groups]


def _has_room(atoms: Sequence[_Atom], shape: SubtitleOptions, label: str | None) -> bool:
    lasts_s = max(atom.end_s for atom in atoms) - atoms[0].start_s
    return lasts_s <= shape.max_cue_s and len(_lines(atoms, shape.max_line_width, label)) <= shape.max_line_count


def _cue(atoms: Sequence[_Atom], shape: SubtitleOptions, label: str | None, speaker: str | None, channel: int) -> Cue:
    start_ms = round(atoms[0].start_s * 1000)
    last_ms = round(max(atom.end_s for atom in atoms) * 1000)
    longest_ms = round(shape.max_cue_s * 1000)
    return Cue(
        start_ms=start_ms,
        end_ms=start_ms + min(max(last_ms - start_ms, MIN_CUE_MS), longest_ms),
        lines=tuple(_lines(atoms, shape.max_line_width, label)),
        speaker=speaker,
        channel=channel,
    )


def _lines(atoms: Sequence[_Atom], width: int, label: str | None) -> list[str]:
    """Fill line by line. An atom wider than a line gets one of its own."""
    lines = [label] if label is not None else []
    for atom in atoms:
        # The label and the first word have a space between them in every script.
        space = "" if atom.glued and not (len(lines) == 1 and lines[0] == label) else " "
        if lines and len(lines[-1]) + len(space) + len(atom.text) <= width:
            lines[-1] += space + atom.text
        else:
            lines.append(atom.text)
    return lines


def _without_collisions(cues: list[Cue]) -> list[Cue]:
    """End a cue where the next one of its channel starts; players show two cues at once in odd places."""
    next_start: dict[int, int] = {}
    trimmed: list[Cue] = []
    for cue in reversed(cues):
        limit_ms = next_start.get(cue.channel, cue.end_ms)
        trimmed.append(replace(cue, end_ms=min(cue.end_ms, limit_ms)) if limit_ms > cue.start_ms else cue)
        next_start[cue.channel] = cue.start_ms
    return trimmed[::-1]


def _atoms(segment: Segment, width: int) -> list[_Atom]:
    pieces = cut_at_words(segment.text, (word.text for word in segment.words))
    if pieces is None:
        pieces = tuple(re.findall(r"\s*\S+", segment.text))
        times: list[tuple[float, float] | None] = [None] * len(pieces)
    else:
        times = [_known_times(word.start_s, word.end_s) for word in segment.words]
    spans = _fill_times([len(piece.strip()) for piece in pieces], times, segment.start_s, segment.end_s)
    return [atom for piece, span in zip(pieces, spans, strict=True) for atom in _to_atoms(piece, span, width)]


def _known_times(start_s: float | None, end_s: float | None) -> tuple[float, float] | None:
    return None if start_s is None or end_s is None else (start_s, end_s)


def _fill_times(
    lengths: Sequence[int], times: Sequence[tuple[float, float] | None], start_s: float, end_s: float
) -> list[tuple[float, float]]:
    """A span for every piece, starts in order; a run without times shares the time between its neighbours."""
    spans: list[tuple[float, float]] = []
    at_s = start_s
    while len(spans) < len(times):
        first = len(spans)
        known = times[first]
        if known is not None:
            latest_s = spans[-1][0] if spans else known[0]
            spans.append((max(known[0], latest_s), max(known[1], known[0], latest_s)))
        else:
            last = next((number for number in range(first, len(times)) if times[number] is not None), len(times))
            following = times[last] if last < len(times) else None
            until_s = max(following[0] if following is not None else end_s, at_s)
            spans += _shares(lengths[first:last], at_s, until_s)
        at_s = max(at_s, spans[-1][1])
    return spans


def _shares(lengths: Sequence[int], start_s: float, end_s: float) -> list[tuple[float, float]]:
    """Cut a span in proportion to the lengths."""
    rate = (end_s - start_s) / max(sum(lengths), 1)
    spans: list[tuple[float, float]] = []
    for length in lengths:
        spans.append((start_s, start_s + rate * length))
        start_s = spans[-1][1]
    return spans


def _to_atoms(piece: str, span: tuple[float, float], width: int) -> list[_Atom]:
    """Mostly one atom. Several when white space is inside, or a script without spaces gives more than a line."""
    parts: list[tuple[str, bool]] = []
    for token in piece.split():
        glued = not parts and not piece[:1].isspace()
        unspaced = len(token) > width and SCRIPTS_WITHOUT_SPACES.search(token)
        first, *rest = _characters(token) if unspaced else [token]
        parts += [(first, glued), *((part, True) for part in rest)]
    spans = _shares([len(part) for part, _ in parts], *span) if len(parts) > 1 else [span] * len(parts)
    return [_Atom(text, glued, *part_span) for (text, glued), part_span in zip(parts, spans, strict=True)]


def _characters(text: str) -> list[str]:
    """Characters with the marks that belong to them; runs of other scripts stay together."""
    parts: list[str] = []
    for character in text:
        follows = parts and (unicodedata.category(character).startswith("M") or _both_spaced(parts[-1], character))
        if follows:
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _both_spaced(part: str, character: str) -> bool:
    return not SCRIPTS_WITHOUT_SPACES.search(part) and not SCRIPTS_WITHOUT_SPACES.match(character)
