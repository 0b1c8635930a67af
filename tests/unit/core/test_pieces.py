from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.pieces import cut_at_words, one_line
from tests.unit.core.speech_strategies import word_texts


@given(st.lists(word_texts, min_size=1), st.sampled_from(["", " ", "  ", "\n"]), st.sampled_from(["", " "]))
def test_the_pieces_together_are_the_text(words: list[str], space: str, end: str) -> None:
    text = space + space.join(words) + end
    pieces = cut_at_words(text, words)
    assert pieces is not None
    assert "".join(pieces) == text
    assert [piece.strip() for piece in pieces] == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" one, two", ["one", "two"]),
        (" one two three", ["one", "two"]),
        (" one", ["one", "two"]),
        (" one", []),
        (" one", ["one", ""]),
    ],
)
def test_words_that_do_not_spell_the_text_cut_nothing(text: str, words: list[str]) -> None:
    assert cut_at_words(text, words) is None


def test_words_may_carry_the_white_space_around_them() -> None:
    assert cut_at_words(" Hello, you. ", [" Hello,", " you. "]) == (" Hello,", " you. ")


def test_one_line_has_no_breaks_or_tabs() -> None:
    assert one_line(" a\t b\u2028c\r\nd ") == "a b c d"
