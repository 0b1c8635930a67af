"""Cut a text at its words, so that spacing and punctuation stay as they were heard.

Word lists come from the aligner, texts from the recogniser. Everything that needs both (speaker changes, subtitle
lines) works on slices of the text, so no character can get lost on the way, in any script.
"""

from __future__ import annotations

from collections.abc import Iterable


def cut_at_words(text: str, words: Iterable[str]) -> tuple[str, ...] | None:
    """One slice of the text per word, each with the white space before it; joined they are the text.

    cut_at_words(" Hello, you. ", ["Hello,", "you."]) -> (" Hello,", " you. ")
    cut_at_words("東京です", ["東京", "です"]) -> ("東京", "です")

    None when the words do not spell the text: then it cannot be cut without a loss.
    """
    pieces: list[str] = []
    at = 0
    for word in words:
        end = _end_of_word(text, at, word.strip())
        if end is None:
            return None
        pieces.append(text[at:end])
        at = end
    if not pieces or text[at:].strip():
        return None
    pieces[-1] += text[at:]
    return tuple(pieces)


def one_line(text: str) -> str:
    """The text with every run of white space (line breaks and tabs too) as one space, and none at its ends."""
    return " ".join(text.split())


def _end_of_word(text: str, at: int, word: str) -> int | None:
    while at < len(text) and text[at].isspace():
        at += 1
    return at + len(word) if word and text.startswith(word, at) else None
