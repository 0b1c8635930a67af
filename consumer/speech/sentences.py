"""From characters with times to segments: sentences with their words, as whisperx makes them of a window's text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from consumer.core.speech import Word

log = logging.getLogger(__name__)

PUNKT_LANGUAGES = {
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "fi": "finnish",
    "fr": "french",
    "it": "italian",
    "ml": "malayalam",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "sl": "slovene",
    "sv": "swedish",
    "tr": "turkish",
}
"""Languages that punkt_tab has tables for; the others are split by the English ones."""


class Splitter(Protocol):
    def span_tokenize(self, text: str) -> Sequence[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class TimedCharacter:
    """A character of the text with its times from the start of the recording; None where it was not aligned."""

    start_s: float | None = None
    end_s: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...]


@cache
def splitter_for(language: str) -> Splitter:
    """NLTK's Punkt with the tables of the language, read once; without tables it knows no abbreviations."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTokenizer

    for name in dict.fromkeys((PUNKT_LANGUAGES.get(language, "english"), "english")):
        try:
            splitter: Splitter = PunktTokenizer(name)
        except LookupError:
            log.warning("No tables to split sentences by", extra={"language": language, "tables": name})
        else:
            return splitter
    untrained: Splitter = PunktSentenceTokenizer()
    return untrained


def sentences_of(
    text: str, characters: Sequence[TimedCharacter], splitter: Splitter, *, spaced: bool
) -> list[Sentence]:
    """One sentence after another; `characters` has one entry per character of `text`.

    A sentence in which nothing has times is joined to the one before it, or to the next one: no text is lost.
    """
    spans = _timed_spans(list(splitter.span_tokenize(text)), characters)
    return [_sentence(text, characters, start, end, spaced=spaced) for start, end in spans]


def _timed_spans(spans: list[tuple[int, int]], characters: Sequence[TimedCharacter]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    pending: int | None = None
    for start, end in spans:
        start = start if pending is None else pending
        if any(one.start_s is not None for one in characters[start:end]):
            joined.append((start, end))
            pending = None
        elif joined:
            joined[-1] = (joined[-1][0], end)
        else:
            pending = start
    return joined


def _sentence(text: str, characters: Sequence[TimedCharacter], start: int, end: int, *, spaced: bool) -> Sentence:
    """The sentence's times are those of its characters; a space at its border does not count for the end."""
    times = characters[start:end]
    return Sentence(
        start_s=min(one.start_s for one in times if one.start_s is not None),
        end_s=max(
            (t.end_s for t, c in zip(times, text[start:end], strict=True) if c != " " and t.end_s is not None),
            default=max(one.end_s for one in times if one.end_s is not None),
        ),
        text=text[start:end],
        words=tuple(_word(text, characters, first, last) for first, last in _word_spans(text, start, end, spaced)),
    )


def _word_spans(text: str, start: int, end: int, spaced: bool) -> list[tuple[int, int]]:
    """Words between spaces; in languages without spaces every character is a word."""
    if not spaced:
        return [(at, at + 1) for at in range(start, end) if not text[at].isspace()]
    spans, at = [], start
    for word in text[start:end].split(" "):
        if word.strip():
            spans.append((at, at + len(word)))
        at += len(word) + 1
    return spans


def _word(text: str, characters: Sequence[TimedCharacter], first: int, last: int) -> Word:
    timed = characters[first:last]
    scores = [one.score for one in timed if one.score is not None]
    return Word(
        text=text[first:last].strip(),
        start_s=min((one.start_s for one in timed if one.start_s is not None), default=None),
        end_s=max((one.end_s for one in timed if one.end_s is not None), default=None),
        score=float(np.round(np.mean(scores), 3)) if scores else None,  # numpy's rounding, as whisperx has it
    )
