"""From the aligner's scores and a known text to the frames of each character. Pure, in numpy.

The search is whisperx's, step by step, so that word times are the same; only its scalars are not tensors, which
makes it several times faster. A character takes one frame of its own symbol and then frames of the blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
"""Log-probabilities, shape (n_frames, n_symbols)."""

LANGUAGES_WITHOUT_SPACES = frozenset({"ja", "zh"})
WORD_BORDER = "|"
"""wav2vec2's symbol for a space."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A character of the text to be found in the sound: its place in the text and its column, None for a wildcard."""

    at: int
    column: int | None


@dataclass(frozen=True, slots=True)
class Frames:
    """Where a character was found, in frames, and how surely (mean probability)."""

    start: int
    end: int
    score: float


def symbols_of(text: str, dictionary: Mapping[str, int], *, spaced: bool) -> list[Symbol]:
    """What is to be aligned: characters that the aligner does not know become wildcards, outer spaces are left out."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    symbols = []
    for at in range(first, last):
        character = text[at].lower()
        if spaced:
            character = character.replace(" ", WORD_BORDER)
        if character in dictionary or character not in (" ", WORD_BORDER):
            symbols.append(Symbol(at, dictionary.get(character)))
    return symbols


def find_characters(scores: Scores, symbols: Sequence[Symbol], blank: int) -> list[Frames] | None:
    """The frames of each symbol in order; None when there is no way through (less sound than text)."""
    columns = [symbol.column for symbol in symbols]
    if None in columns:
        scores = _with_wildcard(scores, blank)
    tokens = np.array([scores.shape[1] - 1 if column is None else column for column in columns])
    return _backtrack(_trellis(scores, tokens, blank), scores, tokens, blank)


def _with_wildcard(scores: Scores, blank: int) -> Scores:
    """A last column that fits any sound: the best of all symbols but the blank."""
    others = np.delete(scores, blank, axis=1)
    return np.concatenate([scores, others.max(axis=1, keepdims=True)], axis=1)


def _trellis(scores: Scores, tokens: NDArray[np.int_], blank: int) -> Scores:
    """Best log-probability of having said n symbols by frame t, shape (n_frames + 1, n_symbols + 1).

    The first column sums blanks, and is infinite where too few frames are left for all symbols: a path that waits
    longer than that cannot come from there. Summed in float64 and stored in float32, as torch does.
    """
    n_frames, n_tokens = len(scores), len(tokens)
    trellis = np.empty((n_frames + 1, n_tokens + 1), dtype=np.float32)
    trellis[0, 0] = 0
    trellis[1:, 0] = np.cumsum(scores[:, blank], dtype=np.float64)
    trellis[0, -n_tokens:] = -np.inf
    trellis[-n_tokens:, 0] = np.inf
    of_tokens, of_blank = scores[:, tokens], scores[:, blank]
    for t in range(n_frames):
        np.maximum(trellis[t, 1:] + of_blank[t], trellis[t, :-1] + of_tokens[t], out=trellis[t + 1, 1:])
    return trellis


def _backtrack(trellis: Scores, scores: Scores, tokens: NDArray[np.int_], blank: int) -> list[Frames] | None:
    """The best path from its end to its beginning, and from it the frames of each symbol."""
    left = len(tokens)
    probabilities: list[list[float]] = [[] for _ in tokens]
    ends = [0] * left
    starts = [0] * left
    for t in range(int(np.argmax(trellis[:, left])), 0, -1):
        token = tokens[left - 1]
        stayed = trellis[t - 1, left] + scores[t - 1, blank]
        changed = trellis[t - 1, left - 1] + scores[t - 1, token]
        found = bool(changed > stayed)
        heard = probabilities[left - 1]
        if not heard:
            ends[left - 1] = t
        heard.append(float(np.exp(scores[t - 1, token if found else blank])))
        starts[left - 1] = t - 1
        if found:
            left -= 1
            if left == 0:
                means = (sum(reversed(heard)) / len(heard) for heard in probabilities)
                return [Frames(*one) for one in zip(starts, ends, means, strict=True)]
    return None
