"""From characters with times to sentences with words: no text is lost, no time is NaN."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from consumer.speech.sentences import TimedCharacter, sentences_of


class FullStops:
    """Splits behind full stops."""

    def span_tokenize(self, text: str) -> Sequence[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S[^.]*\.?", text)]


def timed(text: str, step_s: float = 0.1) -> list[TimedCharacter]:
    """Every character a tenth of a second, score 0.5; a character 0 has no times."""
    return [
        TimedCharacter() if c == "0" else TimedCharacter(round(i * step_s, 3), round((i + 1) * step_s, 3), 0.5)
        for i, c in enumerate(text)
    ]


def test_each_sentence_has_its_words_and_their_times() -> None:
    text = " ab c. de."
    first, second = sentences_of(text, timed(text), FullStops(), spaced=True)
    assert (first.text, first.start_s, first.end_s) == ("ab c.", 0.1, 0.6)
    assert [(w.text, w.start_s, w.end_s, w.score) for w in first.words] == [
        ("ab", 0.1, 0.3, 0.5),
        ("c.", 0.4, 0.6, 0.5),
    ]
    assert [w.text for w in second.words] == ["de."]


def test_a_word_without_times_has_none() -> None:
    text = "ab 00 c"
    (sentence,) = sentences_of(text, timed(text), FullStops(), spaced=True)
    assert [(w.text, w.start_s, w.score) for w in sentence.words] == [
        ("ab", 0.0, 0.5),
        ("00", None, None),
        ("c", 0.6, 0.5),
    ]


def test_a_sentence_without_times_is_joined_to_its_neighbour() -> None:
    for text in ("00. ab.", "ab. 00."):
        characters = [
            TimedCharacter() if c in "0." or c == " " else one for c, one in zip(text, timed(text), strict=True)
        ]
        (sentence,) = sentences_of(text, characters, FullStops(), spaced=True)
        assert sentence.text == text


def test_without_spaces_every_character_is_a_word() -> None:
    text = "東京。"
    (sentence,) = sentences_of(text, timed(text), FullStops(), spaced=False)
    assert [w.text for w in sentence.words] == ["東", "京", "。"]


@given(st.text(alphabet="abc0. ", max_size=40), st.booleans())
def test_no_text_is_lost_and_no_time_is_made_up(text: str, spaced: bool) -> None:
    characters = timed(text)
    sentences = sentences_of(text, characters, FullStops(), spaced=spaced)
    said = "".join("".join(word.text for word in sentence.words) for sentence in sentences)
    if any(one.start_s is not None for c, one in zip(text, characters, strict=True) if c != " "):
        assert said == "".join(text.split()), "each character once"
    for sentence in sentences:
        times = [sentence.start_s, sentence.end_s, *(t for w in sentence.words for t in (w.start_s, w.end_s) if t)]
        assert not any(math.isnan(t) for t in times)
