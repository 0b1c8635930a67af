"""A language that Whisper does not know would end the worker that meets it, so it is refused before."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from consumer.core.languages import LANGUAGES
from consumer.events import JobOptions


def test_the_languages_are_those_of_faster_whisper() -> None:
    tokenizer = pytest.importorskip("faster_whisper.tokenizer")
    assert set(tokenizer._LANGUAGE_CODES) == LANGUAGES


@pytest.mark.parametrize("code", ["eng", "xx", "nb", "English", ""])
def test_a_code_that_whisper_does_not_know_is_refused(code: str) -> None:
    with pytest.raises(ValidationError):
        JobOptions(language=code)


@pytest.mark.parametrize("code", ["en", "de", "yue", "auto"])
def test_a_code_that_whisper_knows_is_taken(code: str) -> None:
    assert JobOptions(language=code).language == code
