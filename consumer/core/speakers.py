"""Who said which word: speakers from turns, segments cut where the speaker changes, two voices at once.

Words are looked up in the *exclusive* turns, of which no two overlap, so a lookup is two binary searches and ten hours
take a second. The full turns tell where voices overlap. Labels stay as the diarization gave them (SPEAKER_00, ...).

Where each channel has a transcript of its own, the channels are the speakers (CHANNEL_00, ...); nothing is looked up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from consumer.core.pieces import cut_at_words
from consumer.core.speech import Diarization, Segment, Turn, Word

NEAREST_TURN_S = 0.5
"""A word that no turn covers belongs to the nearest turn at most this far away: the borders of turns and of aligned
words each have an error of a few tenths of a second."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """A stretch of overlapped speech: two or more voices at once. `speakers` are sorted."""

    start_s: float
    end_s: float
    speakers: tuple[str, ...]


class ExclusiveTurns:
    """Turns of which no two overlap, for lookups by time."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: (turn.start_s, turn.end_s))
        self._starts = [turn.start_s for turn in self._turns]
        self._ends = [turn.end_s for turn in self._turns]

    def speaker_of(self, start_s: float, end_s: float) -> str | None:
        """Who has most of the span; the nearest turn's speaker when nobody has any; None when that is too far."""
        return self._largest_share(start_s, end_s) or self._nearest(start_s, end_s)

    def _largest_share(self, start_s: float, end_s: float) -> str | None:
        shares: dict[str, float] = {}
        for turn in self._turns[bisect_right(self._ends, start_s) : bisect_left(self._starts, end_s)]:
            share = min(turn.end_s, end_s) - max(turn.start_s, start_s)
            shares[turn.speaker] = shares.get(turn.speaker, 0.0) + share
        # max() takes the first of equals, and the dict is in order of time: the earlier speaker wins a draw.
        return max(shares, key=lambda speaker: shares[speaker], default=None)

    def _nearest(self, start_s: float, end_s: float) -> str | None:
        after = bisect_left(self._ends, start_s)
        neighbours = self._turns[max(after - 1, 0) : after + 1]
        distances = [(max(turn.start_s - end_s, start_s - turn.end_s, 0.0), turn.speaker) for turn in neighbours]
        distance, speaker = min(distances, key=lambda pair: pair[0], default=(NEAREST_TURN_S + 1, None))
        return speaker if distance <= NEAREST_TURN_S else None


def assign_speakers(segments: Iterable[Segment], diarization: Diarization) -> tuple[Segment, ...]:
    """The segments with a speaker on every word, each cut where the speaker changes.

    The texts of a segment's parts together are its text. A segment without words, or whose words do not spell its
    text, stays whole and gets the speaker with the largest share of it.
    """
    turns = ExclusiveTurns(diarization.exclusive)
    return tuple(part for segment in segments for part in _split(_with_speakers(segment, turns)))


def channel_speaker(channel: int) -> str:
    """The label of whoever speaks on that channel: CHANNEL_00 is the first."""
    return f"CHANNEL_{channel:02d}"


def speakers_by_channel(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The segments with their channels as speakers, of the words too."""
    return tuple(
        replace(segment, speaker=speaker, words=tuple(replace(word, speaker=speaker) for word in segment.words))
        for segment in segments
        for speaker in [channel_speaker(segment.channel)]
    )


def turns_by_channel(segments: Iterable[Segment]) -> tuple[Turn, ...]:
    """A turn for each segment: on a channel of one's own, one speaks when there is text."""
    return tuple(Turn(one.start_s, one.end_s, channel_speaker(one.channel)) for one in segments)


def speakers_in_order(turns: Iterable[Turn]) -> tuple[str, ...]:
    """Labels in order of their first turn."""
    return tuple(dict.fromkeys(turn.speaker for turn in _in_order(turns)))


def speech_by_speaker(turns: Iterable[Turn]) -> dict[str, float]:
    """Seconds of speech of each speaker, in order of first turn."""
    seconds: dict[str, float] = {}
    for turn in _in_order(turns):
        seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + turn.end_s - turn.start_s
    return seconds


def overlapped_speech(turns: Iterable[Turn]) -> tuple[Overlap, ...]:
    """Where two or more speakers are heard at once, in order of time.

    One sweep over the borders of the turns: A 0-5 and B 3-8 -> 3-5 (A, B).
    """
    active: dict[str, int] = {}
    regions: list[Overlap] = []
    since_s = 0.0
    for at_s, borders in groupby(_borders(turns), key=lambda border: border[0]):
        speakers = tuple(sorted(active))
        if len(speakers) > 1 and at_s > since_s:
            _append(regions, Overlap(since_s, at_s, speakers))
        for _, change, speaker in borders:
            active[speaker] = active.get(speaker, 0) + change
            if not active[speaker]:
                del active[speaker]
        since_s = at_s
    return tuple(regions)


def _in_order(turns: Iterable[Turn]) -> list[Turn]:
    return sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker))


def _borders(turns: Iterable[Turn]) -> list[tuple[float, int, str]]:
    """(time, +1 or -1, speaker), sorted."""
    real = [turn for turn in turns if turn.end_s > turn.start_s]
    starts = [(turn.start_s, 1, turn.speaker) for turn in real]
    ends = [(turn.end_s, -1, turn.speaker) for turn in real]
    return sorted(starts + ends)


def _append(regions: list[Overlap], region: Overlap) -> None:
    """Add a region, or make the last one longer where the same speakers simply go on."""
    last = regions[-1] if regions else None
    if last is not None and last.end_s == region.start_s and last.speakers == region.speakers:
        regions[-1] = replace(last, end_s=region.end_s)
    else:
        regions.append(region)


def _with_speakers(segment: Segment, turns: ExclusiveTurns) -> Segment:
    main = turns.speaker_of(segment.start_s, segment.end_s)
    speakers = _from_neighbours([_speaker_of_word(word, turns) for word in segment.words], main)
    words = tuple(replace(word, speaker=speaker) for word, speaker in zip(segment.words, speakers, strict=True))
    return replace(segment, words=words, speaker=main)


def _speaker_of_word(word: Word, turns: ExclusiveTurns) -> str | None:
    start_s = word.start_s if word.start_s is not None else word.end_s
    end_s = word.end_s if word.end_s is not None else word.start_s
    return None if start_s is None or end_s is None else turns.speaker_of(start_s, end_s)


def _from_neighbours(speakers: Sequence[str | None], otherwise: str | None) -> list[str | None]:
    """Words without a speaker take that of the word before them, and at the start that of the first known one."""
    current = next((speaker for speaker in speakers if speaker is not None), otherwise)
    filled: list[str | None] = []
    for speaker in speakers:
        current = speaker if speaker is not None else current
        filled.append(current)
    return filled


def _split(segment: Segment) -> list[Segment]:
    pieces = cut_at_words(segment.text, (word.text for word in segment.words))
    if pieces is None:
        return [segment]
    groups = groupby(zip(pieces, segment.words, strict=True), key=lambda pair: pair[1].speaker)
    parts = [(speaker, list(pairs)) for speaker, pairs in groups]
    if len(parts) == 1:
        # The words know better than the span, which may reach into a neighbour's turn.
        return [replace(segment, speaker=parts[0][0])]
    borders = _part_borders(segment, [[word for _, word in pairs] for _, pairs in parts])
    return [
        replace(
            segment,
            start_s=start_s,
            end_s=end_s,
            text="".join(piece for piece, _ in pairs),
            words=tuple(word for _, word in pairs),
            speaker=speaker,
        )
        for (speaker, pairs), (start_s, end_s) in zip(parts, borders, strict=True)
    ]


def _part_borders(segment: Segment, parts: Sequence[Sequence[Word]]) -> list[tuple[float, float]]:
    """Start and end of each part: by its words, inside the segment, which keeps its own outer borders."""
    borders: list[tuple[float, float]] = []
    start_s = segment.start_s
    for number, words in enumerate(parts):
        if number:
            known = [word.start_s for word in words if word.start_s is not None]
            start_s = min(max(known[0] if known else borders[-1][1], start_s), segment.end_s)
        known = [word.end_s for word in words if word.end_s is not None]
        end_s = min(max(known[-1] if known else start_s, start_s), segment.end_s)
        borders.append((start_s, end_s))
    borders[-1] = (start_s, segment.end_s)
    return borders
