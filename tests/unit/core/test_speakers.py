from __future__ import annotations

from itertools import pairwise
from time import process_time

from hypothesis import given

from consumer.core.speakers import (
    NEAREST_TURN_S,
    ExclusiveTurns,
    Overlap,
    assign_speakers,
    overlapped_speech,
    speakers_in_order,
    speech_by_speaker,
)
from consumer.core.speech import Diarization, Segment, Turn, Word
from tests.unit.core.speech_strategies import exclusive_turns, overlapping_turns, recordings

A, B = "SPEAKER_00", "SPEAKER_01"


def _diarization(*turns: Turn) -> Diarization:
    return Diarization(turns=turns, exclusive=turns)


def test_a_word_belongs_to_the_speaker_with_the_largest_share_of_it() -> None:
    turns = ExclusiveTurns([Turn(0, 1.0, A), Turn(1.0, 3.0, B)])
    assert turns.speaker_of(0.5, 1.2) == A
    assert turns.speaker_of(0.9, 1.2) == B


def test_shares_of_several_turns_of_one_speaker_are_added() -> None:
    turns = ExclusiveTurns([Turn(0, 1, A), Turn(1, 2.5, B), Turn(2.5, 3.5, A)])
    assert turns.speaker_of(0, 3.5) == A


def test_a_word_between_two_turns_belongs_to_the_nearer_one() -> None:
    turns = ExclusiveTurns([Turn(0, 1.0, A), Turn(1.8, 3.0, B)])
    assert turns.speaker_of(1.2, 1.3) == A
    assert turns.speaker_of(1.4, 1.6) == B
    assert turns.speaker_of(1.35, 1.35) == A


def test_a_word_far_from_every_turn_has_no_speaker() -> None:
    turns = ExclusiveTurns([Turn(10, 11, A)])
    assert turns.speaker_of(11 + NEAREST_TURN_S, 12) == A
    assert turns.speaker_of(11.1 + NEAREST_TURN_S, 12) is None
    assert turns.speaker_of(0, 10 - 2 * NEAREST_TURN_S) is None
    assert ExclusiveTurns([]).speaker_of(0, 1) is None


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    words = (Word("Are", 0.0, 0.3), Word("you", 0.4, 0.8), Word("there?", 0.9, 1.4), Word("Yes.", 2.1, 2.5))
    segment = Segment(0.0, 2.6, " Are you there? Yes.", words, avg_logprob=-0.2, window_index=7)
    first, second = assign_speakers([segment], _diarization(Turn(0, 1.5, A), Turn(2.0, 3.0, B)))
    assert (first.text, first.speaker, first.start_s, first.end_s) == (" Are you there?", A, 0.0, 1.4)
    assert (second.text, second.speaker, second.start_s, second.end_s) == (" Yes.", B, 2.1, 2.6)
    assert [word.speaker for word in first.words + second.words] == [A, A, A, B]
    assert first.avg_logprob == second.avg_logprob == -0.2


def test_a_language_without_spaces_is_cut_too() -> None:
    words = (Word("东", 0.0, 0.4), Word("京", 0.4, 0.9), Word("好", 2.0, 2.4), Word("。"))
    parts = assign_speakers([Segment(0, 2.5, "东京好。", words)], _diarization(Turn(0, 1, A), Turn(2, 3, B)))
    assert [(part.text, part.speaker) for part in parts] == [("东京", A), ("好。", B)]


def test_words_without_times_take_the_speaker_of_their_neighbour() -> None:
    words = (Word("In"), Word("2024", None, None), Word("it", 0.8, 0.9), Word("rained", 2.1, 2.4), Word("£5"))
    parts = assign_speakers(
        [Segment(0, 2.5, " In 2024 it rained £5", words)], _diarization(Turn(0, 1, A), Turn(2, 3, B))
    )
    assert [[word.speaker for word in part.words] for part in parts] == [[A, A, A], [B, B]]


def test_words_of_which_none_has_a_time_take_the_speaker_of_the_segment() -> None:
    (segment,) = assign_speakers([Segment(0, 1, " 1 2", (Word("1"), Word("2")))], _diarization(Turn(0, 3, A)))
    assert [word.speaker for word in segment.words] == [A, A]


def test_a_segment_whose_words_do_not_spell_its_text_stays_whole() -> None:
    words = (Word("one", 0.0, 0.5), Word("two", 2.0, 2.1))
    segment = Segment(0.0, 2.5, " one, two!", words)
    (whole,) = assign_speakers([segment], _diarization(Turn(0, 1.9, A), Turn(1.9, 3, B)))
    assert (whole.text, whole.speaker) == (" one, two!", A)
    assert [word.speaker for word in whole.words] == [A, B]


def test_a_segment_without_words_gets_the_dominant_speaker() -> None:
    (segment,) = assign_speakers([Segment(0.0, 10.0, " hm")], _diarization(Turn(0, 4, A), Turn(4, 10, B)))
    assert segment.speaker == B


def test_without_turns_nobody_speaks() -> None:
    segment = Segment(0, 1, " so", (Word("so", 0, 1),))
    assert assign_speakers([segment], _diarization()) == (segment,)


@given(recordings(), exclusive_turns())
def test_cutting_at_speakers_loses_no_text_no_word_and_no_order(
    segments: tuple[Segment, ...], turns: tuple[Turn, ...]
) -> None:
    for segment in segments:
        parts = assign_speakers([segment], _diarization(*turns))
        assert "".join(part.text for part in parts) == segment.text
        assert [word.text for part in parts for word in part.words] == [word.text for word in segment.words]
        assert (parts[0].start_s, parts[-1].end_s) == (segment.start_s, segment.end_s)
        assert all(part.start_s <= part.end_s for part in parts)
        starts = [part.start_s for part in parts]
        assert starts == sorted(starts)


@given(recordings(), exclusive_turns())
def test_a_part_has_one_speaker(segments: tuple[Segment, ...], turns: tuple[Turn, ...]) -> None:
    for part in assign_speakers(segments, _diarization(*turns)):
        assert {word.speaker for word in part.words} <= {part.speaker}


@given(recordings(), exclusive_turns())
def test_the_speaker_of_a_word_is_the_one_that_a_full_scan_finds(
    segments: tuple[Segment, ...], turns: tuple[Turn, ...]
) -> None:
    index = ExclusiveTurns(turns)
    for word in (word for segment in segments for word in segment.words):
        if word.start_s is None or word.end_s is None or word.start_s == word.end_s:
            continue
        shares: dict[str, float] = {}
        for turn in turns:
            share = min(turn.end_s, word.end_s) - max(turn.start_s, word.start_s)
            shares[turn.speaker] = shares.get(turn.speaker, 0.0) + max(share, 0.0)
        found = index.speaker_of(word.start_s, word.end_s)
        if any(shares.values()):
            assert found is not None
            assert shares[found] >= max(shares.values()) - 1e-9
        else:
            near = [t for t in turns if max(t.start_s - word.end_s, word.start_s - t.end_s) <= NEAREST_TURN_S]
            assert (found is None) == (not near)


def test_overlapped_speech_is_listed_with_its_speakers() -> None:
    turns = [Turn(0, 5, A), Turn(3, 8, B), Turn(8, 9, A), Turn(20, 21, A), Turn(20, 20.5, B)]
    assert overlapped_speech(turns) == (Overlap(3, 5, (A, B)), Overlap(20, 20.5, (A, B)))


def test_a_speaker_does_not_overlap_with_himself() -> None:
    assert overlapped_speech([Turn(0, 5, A), Turn(3, 8, A)]) == ()


@given(overlapping_turns())
def test_overlaps_are_where_two_speakers_are_active(turns: tuple[Turn, ...]) -> None:
    """On a grid of half seconds the middle of every step decides."""
    regions = overlapped_speech(turns)
    for step in range(110):
        at_s = step / 2 + 0.25
        active = {turn.speaker for turn in turns if turn.start_s < at_s < turn.end_s}
        inside = [region.speakers for region in regions if region.start_s < at_s < region.end_s]
        assert inside == ([tuple(sorted(active))] if len(active) > 1 else [])
    assert all(a.end_s <= b.start_s for a, b in pairwise(regions))


def test_speakers_come_in_order_of_their_first_turn_with_their_seconds() -> None:
    turns = [Turn(4, 5, A), Turn(0, 2, B), Turn(1.5, 2, A)]
    assert speakers_in_order(turns) == (B, A)
    assert speech_by_speaker(turns) == {B: 2.0, A: 1.5}


def test_ten_hours_are_assigned_in_seconds() -> None:
    """100,000 words and 20,000 turns; a scan of all turns per word would take minutes."""
    turns = [Turn(t * 1.8, t * 1.8 + 1.7, A if t % 2 else B) for t in range(20_000)]
    segments = [
        Segment(
            s * 7.2,
            s * 7.2 + 7.0,
            " word" * 20,
            tuple(Word("word", s * 7.2 + w * 0.35, s * 7.2 + w * 0.35 + 0.3) for w in range(20)),
        )
        for s in range(5_000)
    ]
    before_s = process_time()
    parts = assign_speakers(segments, _diarization(*turns))
    assert len(parts) > 15_000
    assert process_time() - before_s < 20
