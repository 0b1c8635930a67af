"""What is put before every window: hotwords and an initial prompt, cut to a length that leaves room for the text.

They are text and stay text: what a tokenizer would read as one of Whisper's control tokens, such as `<|endoftext|>`, is
taken apart, so that no job can end, translate or re-date what the decoder writes.

Whisper's decoder has 448 positions for prompt and text together, and faster-whisper allows each of the two 223 of
them: both at their limit raise an error, one alone cuts dense speech without a word (faster-whisper#1022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consumer.events import Problem

MAX_PROMPT_TOKENS = 100
"""Leaves 340 of 448 positions: 30 s of fast speech need about 250."""

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the recogniser is given; `dropped` is what did not fit, in words."""

    hotwords: str | None = None
    initial_prompt: str | None = None
    dropped: tuple[str, ...] = ()

    def warning(self) -> Problem | None:
        if not self.dropped:
            return None
        shown = ", ".join(self.dropped[:5]) + (", …" if len(self.dropped) > 5 else "")
        return Problem(
            code="PROMPT_TRUNCATED",
            message=f"hotwords and initial_prompt have room for {MAX_PROMPT_TOKENS} tokens together; "
            f"left out: {shown}; shorten them",
            stage="transcribe",
        )


def fit_prompt(hotwords: Sequence[str], initial_prompt: str | None, count: CountTokens) -> Prompt:
    """Hotwords first, as many as fit; then the end of the initial prompt, which is what the decoder sees last.

    `count` gives the tokens of a text. Words are never cut in two. A prompt that fits keeps its white space.
    """
    asked = [word for word in map(_as_text, hotwords) if word]
    given = _as_text(initial_prompt or "")
    kept = _longest(asked, lambda n: ", ".join(asked[:n]), MAX_PROMPT_TOKENS, count)
    hot = ", ".join(asked[:kept])
    room = MAX_PROMPT_TOKENS - (count(f" {hot}") if hot else 0)
    if count(f" {given}") <= room:  # white space costs tokens, too
        return Prompt(hot or None, given or None, tuple(asked[kept:]))
    prompt = given.split()
    last = _longest(prompt, lambda n: " ".join(prompt[len(prompt) - n :]), room, count)
    tail = prompt[len(prompt) - last :]
    return Prompt(hot or None, " ".join(tail) or None, (*asked[kept:], *prompt[: len(prompt) - last]))


def _as_text(text: str) -> str:
    """`<|endoftext|>` -> `< |endoftext|>`: to a tokenizer the one is a command, and the other eleven letters."""
    return text.strip().replace("<|", "< |")


def _longest(words: Sequence[str], text: Callable[[int], str], room: int, count: CountTokens) -> int:
    """The most words whose text fits."""
    fitting = (n for n in range(len(words), 0, -1) if count(f" {text(n)}") <= room)
    return next(fitting, 0)
