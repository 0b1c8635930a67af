from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from consumer import chart_schema, errors_reference, settings_reference
from consumer.reference_pages import PAGES
from consumer.settings import Settings

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings_reference.effective(Settings()):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    """If not: python -m consumer.reference_pages docs."""
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]()


def test_the_chart_knows_the_settings_that_there_are() -> None:
    """If not: python -m consumer.reference_pages docs."""
    text = (DOCS.parent / chart_schema.FILE).read_text(encoding="utf-8")
    assert text == chart_schema.renewed(text)
    json.loads(text)


def test_a_schema_without_a_place_for_the_settings_is_not_taken_for_one_that_is_up_to_date() -> None:
    with pytest.raises(ValueError, match="settingNames"):
        chart_schema.renewed("{}")


def test_every_setting_says_what_it_means() -> None:
    missing = [s.variable for _, settings in settings_reference.reference() for s in settings if not s.meaning]
    assert not missing


def test_every_error_code_has_a_meaning_and_an_advice() -> None:
    classes = errors_reference.classes()
    assert {error.code for error in classes} == set(errors_reference.ADVICE)
    for error in classes:
        meaning, todo = errors_reference.ADVICE[error.code]
        assert meaning or error.__doc__, error
        assert todo, error


def test_every_code_belongs_to_one_class() -> None:
    codes = [error.code for error in errors_reference.classes()]
    assert len(codes) == len(set(codes))


def test_what_is_shown_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPERX_MODELS__ALLOWED", '["tiny", "it\'s"]')
    monkeypatch.setenv("WHISPERX_MODELS__HUB_CACHE", "/cache")
    monkeypatch.setenv("WHISPERX_KAFKA__EXTRA", '{"client.rack": "a b"}')
    shown = Settings()
    for line in settings_reference.effective_text(shown).splitlines():
        if not line.startswith("#"):
            (assignment,) = shlex.split(line)
            monkeypatch.setenv(*assignment.split("=", 1))
    assert Settings() == shown
    assert "# WHISPERX_MODELS__DIRECTORY is not set" in settings_reference.effective_text(shown)


def test_no_secret_is_shown_and_all_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPERX_KAFKA__SASL_PASSWORD", "hidden-1")
    monkeypatch.setenv("WHISPERX_STORE__SECRET_KEY", "hidden-2")
    monkeypatch.setenv("WHISPERX_KAFKA__EXTRA", '{"ssl.key.password": "hidden-3", "client.rack": "a"}')
    monkeypatch.setenv("WHISPERX_REGISTRY__URL", "https://user:hidden-4@registry:8081/")
    settings = Settings()
    shown = settings_reference.effective_text(settings)
    assert "hidden" not in shown
    assert "hidden" not in str(settings_reference.effective(settings))
    assert "https://***@registry:8081/" in shown
    assert "client.rack" in shown
    assert sorted(settings_reference.secrets(settings)) == ["hidden-1", "hidden-2", "hidden-3", "user:hidden-4"]
