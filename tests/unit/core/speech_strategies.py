"""Segments, words and turns as an engine might give them, for property tests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from consumer.core.speech import Segment, Turn, Word

SPEAKERS = ("SPEAKER_00", "SPEAKER_01", "SPEAKER_02")

# Letters, digits, what the formats use themselves, and letters of more than one byte; no white space.
word_texts = st.text(alphabet="abcXYZ019,.?!<>&-:[]'\"é东ก", min_size=1, max_size=12)


@st.composite
def segments(draw: st.DrawFn, start_s: float = 0.0, channel: int = 0) -> Segment:
    """A segment whose words spell its text; some words have no times, and some segments no words at all."""
    texts = draw(st.lists(word_texts, min_size=1, max_size=25))
    at_s = start_s
    words = []
    for text in texts:
        at_s += draw(st.sampled_from([0.0, 0.02, 0.3, 4.0]))
        end_s = at_s + draw(st.sampled_from([0.0, 0.1, 0.4, 9.0]))
        timed = draw(st.integers(0, 4)) > 0
        words.append(Word(text, at_s, end_s, 0.5) if timed else Word(text))
        at_s = end_s
    segment = Segment(
        start_s=start_s, end_s=at_s + 0.1, text=" " + " ".join(texts), words=tuple(words), channel=channel
    )
    return segment if draw(st.booleans()) else replace(segment, words=())


@st.composite
def recordings(draw: st.DrawFn) -> tuple[Segment, ...]:
    """Segments one after another, on one channel or on two that talk at the same time."""
    made: list[Segment] = []
    for channel in range(draw(st.integers(1, 2))):
        start_s = 0.0
        for _ in range(draw(st.integers(0, 4))):
            made.append(draw(segments(start_s=start_s, channel=channel)))
            start_s = made[-1].end_s + draw(st.sampled_from([0.0, 1.5]))
    return tuple(sorted(made, key=lambda segment: (segment.start_s, segment.channel)))


@st.composite
def exclusive_turns(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Turns of which no two overlap, in order."""
    turns: list[Turn] = []
    at_s = 0.0
    for _ in range(draw(st.integers(0, 12))):
        at_s += draw(st.sampled_from([0.0, 0.3, 2.0]))
        end_s = at_s + draw(st.sampled_from([0.05, 0.7, 5.0]))
        turns.append(Turn(at_s, end_s, draw(st.sampled_from(SPEAKERS))))
        at_s = end_s
    return tuple(turns)


@st.composite
def overlapping_turns(draw: st.DrawFn) -> tuple[Turn, ...]:
    """Turns in any order, also of one speaker over himself, on a grid of half seconds."""
    turn = st.builds(
        lambda start, length, speaker: Turn(start / 2, (start + length) / 2, speaker),
        st.integers(0, 40),
        st.integers(0, 12),
        st.sampled_from(SPEAKERS),
    )
    return tuple(draw(st.lists(turn, max_size=12)))
