"""What is set before the libraries are imported. Nothing is imported here."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from consumer.settings import ModelSettings
from consumer.speech import environment


def test_telemetry_is_off_and_the_network_is_left_alone() -> None:
    variables = environment.environment_of(ModelSettings())
    assert variables["PYANNOTE_METRICS_ENABLED"] == "0"
    assert (variables["HF_HUB_OFFLINE"], variables["TRANSFORMERS_OFFLINE"]) == ("1", "1")


def test_downloads_are_possible_where_they_are_asked_for() -> None:
    variables = environment.environment_of(ModelSettings(download=True))
    assert variables["PYANNOTE_METRICS_ENABLED"] == "0"
    assert "HF_HUB_OFFLINE" not in variables


def test_caches_lie_where_the_setting_says(tmp_path: Path) -> None:
    variables = environment.environment_of(ModelSettings(hub_cache=tmp_path))
    assert (variables["HF_HUB_CACHE"], variables["TORCH_HOME"]) == (str(tmp_path), str(tmp_path / "torch"))


def test_a_read_only_home_gets_a_writable_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "no-such-home"))
    assert "TORCH_HOME" in environment.environment_of(ModelSettings())


def test_the_token_is_not_put_into_the_environment() -> None:
    variables = environment.environment_of(ModelSettings(hub_token=SecretStr("hf_secret"), download=True))
    assert "hf_secret" not in "".join(variables.values())


def test_whisperx_writes_to_our_log_and_not_to_stdout() -> None:
    environment.silence_logging()
    logger = logging.getLogger("whisperx")
    assert logger.handlers, "whisperx adds its own handler when there is none"
    assert all(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert logger.propagate


def test_prints_while_loading_do_not_reach_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with environment.quiet():
        print("Use manually assigned vad_model")
    assert capsys.readouterr().out == ""
