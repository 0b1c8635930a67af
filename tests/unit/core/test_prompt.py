"""Hotwords and the initial prompt leave room for the text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.prompt import MAX_PROMPT_TOKENS, fit_prompt


def one_token_per_letter(text: str) -> int:
    return len(text.replace(" ", ""))


words = st.text(alphabet="abc", min_size=1, max_size=30)

TOKENIZER = Path(__file__).parents[3] / "demo" / "models" / "tiny" / "asr" / "tokenizer.json"
POSITIONS = 448
"""Of Whisper's decoder, for everything that it reads and writes in one window."""

CONTROLS = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|translate|>", "<|de|>", "<|0.00|>", "<|")
any_text = st.text(st.characters(codec="utf-8"), max_size=60)
hostile_text = st.lists(st.one_of(st.sampled_from([*CONTROLS, " ", "\n", "\u2003"]), any_text), max_size=12).map(
    "".join
)


@cache
def whisper_tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(TOKENIZER))


def tokens(text: str) -> list[int]:
    """As faster-whisper encodes hotwords and prompts."""
    return list(whisper_tokenizer().encode(f" {text.strip()}", add_special_tokens=False).ids)


def count_tokens(text: str) -> int:
    """As `Recogniser.count_tokens` does."""
    return len(whisper_tokenizer().encode(text, add_special_tokens=False).ids)


def test_what_fits_is_kept_as_it_was_given() -> None:
    prompt = fit_prompt(["Ada", " Grace "], " a letter  to them ", one_token_per_letter)
    assert (prompt.hotwords, prompt.initial_prompt) == ("Ada, Grace", "a letter  to them")
    assert prompt.warning() is None


def test_nothing_asked_is_nothing_given() -> None:
    prompt = fit_prompt([], None, one_token_per_letter)
    assert (prompt.hotwords, prompt.initial_prompt, prompt.warning()) == (None, None, None)


def test_hotwords_go_before_the_initial_prompt_which_keeps_its_end() -> None:
    prompt = fit_prompt(["x" * 90], "first second last", one_token_per_letter)
    assert prompt.hotwords == "x" * 90
    assert prompt.initial_prompt == "second last"
    warning = prompt.warning()
    assert warning is not None
    assert (warning.code, "first" in warning.message) == ("PROMPT_TRUNCATED", True)


def test_a_word_that_alone_is_too_long_is_left_out() -> None:
    prompt = fit_prompt(["x" * 101], None, one_token_per_letter)
    assert (prompt.hotwords, prompt.dropped) == (None, ("x" * 101,))


@given(st.lists(words, max_size=12), st.lists(words, max_size=12))
def test_a_prompt_is_never_too_long_and_every_word_is_kept_or_named(hot: list[str], prompt: list[str]) -> None:
    fitted = fit_prompt(hot, " ".join(prompt), one_token_per_letter)
    used = [text for text in (fitted.hotwords, fitted.initial_prompt) if text]
    assert sum(one_token_per_letter(f" {text}") for text in used) <= MAX_PROMPT_TOKENS
    kept = (fitted.hotwords.split(", ") if fitted.hotwords else []) + (fitted.initial_prompt or "").split()
    assert sorted([*kept, *fitted.dropped]) == sorted([*hot, *prompt])


@given(st.lists(hostile_text, max_size=100), st.one_of(st.none(), hostile_text.map(lambda text: text[:1000])))
def test_to_the_real_tokenizer_no_prompt_is_too_long_and_none_is_a_command(hot: list[str], prompt: str | None) -> None:
    """Whatever is asked for, 340 of the 448 positions stay free, and the decoder is only ever given text."""
    fitted = fit_prompt(hot, prompt, count_tokens)
    given_tokens = [token for text in (fitted.hotwords, fitted.initial_prompt) if text for token in tokens(text)]
    start_of_prev_and_transcript = 5
    assert len(given_tokens) <= MAX_PROMPT_TOKENS
    assert len(given_tokens) + start_of_prev_and_transcript <= POSITIONS - 340
    first_command = whisper_tokenizer().token_to_id("<|endoftext|>")
    assert all(token < first_command for token in given_tokens)


def test_a_prompt_of_white_space_between_two_words_costs_what_its_white_space_costs() -> None:
    spaced = "style" + "\u2003" * 900 + "guide"
    assert count_tokens(spaced) > 1_000
    assert fit_prompt([], spaced, count_tokens).initial_prompt == "style guide"
