"""Hotwords and the initial prompt leave room for the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.prompt import MAX_PROMPT_TOKENS, fit_prompt


def one_token_per_letter(text: str) -> int:
    return len(text.replace(" ", ""))


words = st.text(alphabet="abc", min_size=1, max_size=30)


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
