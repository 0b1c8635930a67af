"""Finding a known text in an aligner's scores: by hand, and against the best of all paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from consumer.speech.forced_alignment import Scores, Symbol, find_characters, symbols_of

BLANK = 0
DICTIONARY = {"<pad>": 0, "|": 1, "a": 2, "b": 3}


def scores_of(path: str, symbols: str = "-|ab") -> Scores:
    """Scores that strongly say this path: one symbol per frame, - for the blank."""
    scores = np.full((len(path), len(symbols)), np.log(0.01), dtype=np.float32)
    scores[np.arange(len(path)), [symbols.index(one) for one in path]] = np.log(0.97)
    return scores


def test_a_clear_path_is_found_frame_by_frame() -> None:
    found = find_characters(scores_of("--a--b-"), symbols_of("ab", DICTIONARY, spaced=True), BLANK)
    assert found is not None
    assert [(one.start, one.end) for one in found] == [(2, 5), (5, 6)]
    assert [one.score for one in found] == pytest.approx([0.97, 0.97])


def test_a_space_is_a_border_of_words_and_has_its_own_frames() -> None:
    symbols = symbols_of(" a b ", DICTIONARY, spaced=True)
    assert symbols == [Symbol(1, 2), Symbol(2, 1), Symbol(3, 3)]


def test_characters_that_the_aligner_does_not_know_fit_any_sound() -> None:
    symbols = symbols_of("a7", DICTIONARY, spaced=True)
    assert symbols == [Symbol(0, 2), Symbol(1, None)]
    found = find_characters(scores_of("-a-b-"), symbols, BLANK)
    assert found is not None
    assert [(one.start, one.end) for one in found] == [(1, 3), (3, 4)]


def test_capitals_are_the_same_sound() -> None:
    assert symbols_of("AB", DICTIONARY, spaced=True) == symbols_of("ab", DICTIONARY, spaced=True)


def test_more_text_than_sound_is_not_aligned() -> None:
    assert find_characters(scores_of("a"), symbols_of("abababab", DICTIONARY, spaced=True), BLANK) is None


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(2, 7), st.just(4)), elements=st.floats(-8, 0, width=16)),
    st.text(alphabet="ab", min_size=1, max_size=3),
)
def test_the_path_is_the_best_of_all_paths(raw: Scores, text: str) -> None:
    """A path says where each symbol stands: one frame each, in order, the first at frame 0 or behind blanks.

    The search may end at any frame, since what follows is no part of it; a path's score up to its last symbol plus
    the blanks up to that end is what is compared.
    """
    scores = raw + np.arange(raw.shape[0], dtype=np.float32)[:, None] * np.float32(1e-3)
    symbols = symbols_of(text, DICTIONARY, spaced=True)
    if len(symbols) > len(scores):
        return
    found = find_characters(scores, symbols, BLANK)
    if found is None:
        return
    columns = [symbol.column for symbol in symbols]
    end = found[-1].end

    def score(places: tuple[int, ...]) -> float:
        heard = sum(scores[place, column] for place, column in zip(places, columns, strict=True))
        return float(heard + sum(scores[t, BLANK] for t in range(end) if t not in places))

    best = max(score(places) for places in itertools.combinations(range(end), len(columns)))
    assert score(tuple(one.start for one in found)) == pytest.approx(best, abs=1e-3)
    assert [one.start for one in found] == sorted({one.start for one in found})
