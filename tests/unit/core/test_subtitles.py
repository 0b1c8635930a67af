from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.speech import Segment, Word
from consumer.core.subtitles import Cue, make_cues
from consumer.events import SubtitleOptions
from tests.unit.core.speech_strategies import SPEAKERS, recordings

shapes = st.builds(
    SubtitleOptions,
    max_line_width=st.sampled_from([10, 20, 42]),
    max_line_count=st.integers(1, 3),
    max_cue_s=st.sampled_from([1.0, 3.0, 7.0]),
    speaker_labels=st.booleans(),
)


def _spoken(cue: Cue) -> str:
    text = " ".join(cue.lines)
    return text.removeprefix(f"[{cue.speaker}]:") if cue.speaker else text


def _letters(text: str) -> str:
    return "".join(text.split())


@given(recordings(), shapes, st.sampled_from([None, *SPEAKERS]), st.booleans())
def test_every_word_is_in_exactly_one_cue_in_order(
    segments: tuple[Segment, ...], shape: SubtitleOptions, speaker: str | None, written_labels: bool
) -> None:
    spoken = [replace(segment, speaker=speaker) for segment in segments]
    for channel in (0, 1):
        of_channel = [segment for segment in spoken if segment.channel == channel]
        cues = make_cues(of_channel, shape, written_labels=written_labels)
        heard = "".join(_spoken(cue) if written_labels else " ".join(cue.lines) for cue in cues)
        assert _letters(heard) == _letters("".join(segment.text for segment in of_channel))


@given(recordings(), shapes)
def test_cues_are_in_order_of_time_and_never_longer_than_asked(
    segments: tuple[Segment, ...], shape: SubtitleOptions
) -> None:
    cues = make_cues(segments, shape, written_labels=True)
    starts = [cue.start_ms for cue in cues]
    assert starts == sorted(starts)
    assert all(0 < cue.end_ms - cue.start_ms <= round(shape.max_cue_s * 1000) for cue in cues)


@given(recordings(), shapes)
def test_a_cue_ends_before_the_next_of_its_channel_starts(
    segments: tuple[Segment, ...], shape: SubtitleOptions
) -> None:
    cues = [cue for cue in make_cues(segments, shape, written_labels=True) if cue.channel == 0]
    pairs = pairwise(cues)
    assert all(cue.end_ms <= after.start_ms for cue, after in pairs if cue.start_ms < after.start_ms)


@given(recordings(), shapes, st.sampled_from([None, *SPEAKERS]))
def test_lines_are_kept_unless_a_single_word_is_longer(
    segments: tuple[Segment, ...], shape: SubtitleOptions, speaker: str | None
) -> None:
    cues = make_cues([replace(segment, speaker=speaker) for segment in segments], shape, written_labels=True)
    for cue in cues:
        assert all(len(line) <= shape.max_line_width or " " not in line for line in cue.lines)
        label_alone = bool(cue.speaker) and cue.lines[0] == f"[{cue.speaker}]:" and shape.max_line_count == 1
        assert len(cue.lines) <= shape.max_line_count + label_alone


def test_a_segment_without_words_is_shown_at_its_own_times() -> None:
    (cue,) = make_cues([Segment(2.0, 4.0, " could not align")], SubtitleOptions(), written_labels=True)
    assert cue == Cue(2000, 4000, ("could not align",))


def test_a_long_segment_without_words_is_shared_out_by_length() -> None:
    segment = Segment(0.0, 20.0, " " + " ".join(["word"] * 20))
    cues = make_cues([segment], SubtitleOptions(max_cue_s=5.0), written_labels=True)
    assert [cue.start_ms for cue in cues] == [0, 5000, 10000, 15000]
    assert all(" ".join(cue.lines).split() == ["word"] * 5 for cue in cues)


def test_a_word_without_times_lies_between_its_neighbours() -> None:
    words = (Word("at", 1.0, 1.2), Word("10"), Word("sharp", 9.0, 9.4))
    cues = make_cues([Segment(0.5, 9.5, " at 10 sharp", words)], SubtitleOptions(max_cue_s=2), written_labels=False)
    assert [(cue.start_ms, cue.lines) for cue in cues] == [(1000, ("at",)), (1200, ("10",)), (9000, ("sharp",))]
    assert cues[1].end_ms == 3200


def test_text_without_spaces_is_broken_between_characters_and_marks_stay_with_theirs() -> None:
    text = "ก็" * 30
    cues = make_cues([Segment(0, 6, text)], SubtitleOptions(max_line_width=20), written_labels=False)
    lines = [line for cue in cues for line in cue.lines]
    assert "".join(lines) == text
    assert all(len(line) == 20 and line.startswith("ก") for line in lines)


def test_a_long_word_of_a_script_with_spaces_is_not_broken() -> None:
    word = "Donaudampfschifffahrtsgesellschaft"
    (cue,) = make_cues([Segment(0, 2, f" {word}")], SubtitleOptions(max_line_width=10), written_labels=False)
    assert cue.lines == (word,)


@pytest.mark.parametrize(("labels", "first"), [(True, "[SPEAKER_00]: Yes."), (False, "Yes.")])
def test_labels_are_written_only_if_asked_for(labels: bool, first: str) -> None:
    segment = Segment(0, 1, " Yes.", (Word("Yes.", 0, 1),), speaker="SPEAKER_00")
    (cue,) = make_cues([segment], SubtitleOptions(speaker_labels=labels), written_labels=True)
    assert cue.lines == (first,)


def test_white_space_inside_a_word_breaks_no_cue() -> None:
    (cue,) = make_cues([Segment(0, 1, "a\n\nb", (Word("a\n\nb", 0, 1),))], SubtitleOptions(), written_labels=True)
    assert cue.lines == ("a b",)


def test_a_segment_of_nothing_but_space_makes_no_cue() -> None:
    assert make_cues([Segment(0, 1, "  ")], SubtitleOptions(), written_labels=True) == []


NARROW = SubtitleOptions(max_line_width=10, max_line_count=1)


def test_words_whose_times_run_backwards_stay_in_the_order_of_the_text() -> None:
    words = (Word("monday", 5.0, 5.5), Word("tuesday", 1.0, 1.5), Word("sunday", 14.0, 14.5))
    cues = make_cues([Segment(0, 15, " monday tuesday sunday", words)], NARROW, written_labels=False)
    assert [(cue.start_ms, *cue.lines) for cue in cues] == [(5000, "monday"), (5000, "tuesday"), (14000, "sunday")]


def test_words_without_times_behind_the_end_of_their_segment_stay_last() -> None:
    words = (Word("monday", 1.0, 9.5), Word("tuesday"), Word("sunday"))
    cues = make_cues([Segment(0, 2, " monday tuesday sunday", words)], NARROW, written_labels=False)
    assert [(cue.start_ms, *cue.lines) for cue in cues] == [(1000, "monday"), (9500, "tuesday"), (9500, "sunday")]
