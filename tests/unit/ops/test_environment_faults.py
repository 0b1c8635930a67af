"""What is wrong in the environment is said with the name of its variable, and without its value."""

from __future__ import annotations

import pytest

from consumer import cli
from consumer.exit_codes import ExitCode
from consumer.settings import Settings
from producer_tools import cli as tools
from producer_tools.exit_codes import Exit

SECRET = "hunter-2"
FAULTS = [
    ("WHISPERX_LIMITS__ALLOWED_BUCKETS", SECRET, 'a list is written as JSON, such as ["one", "two"]'),
    ("WHISPERX_MODELS__ALLOWED", f"[{SECRET}", "a list is written as JSON"),
    ("WHISPERX_KAFKA__EXTRA", SECRET, 'a map is written as JSON, such as {"name": "value"}'),
    ("WHISPERX_KAFKA", SECRET, "a map is written as JSON"),
    ("WHISPERX_STORE__ENDPIONT", SECRET, "there is no such setting; WHISPERX_STORE__ENDPOINT is one"),
    ("WHISPERX_STOER__SECRET_KEY", SECRET, "there is no such setting; WHISPERX_STORE__SECRET_KEY is one"),
    ("WHISPERX_NOTHING__LIKE_IT", SECRET, "there is no such setting"),
    ("WHISPERX_STORE__ENDPOINT", f"http://{SECRET}:9000", "write host:port"),
    ("WHISPERX_STORE__ENDPOINT", f"{SECRET}:9000/bucket", "write host:port"),
    ("WHISPERX_STORE__SECURE", SECRET, "Input should be a valid boolean"),
]


@pytest.mark.parametrize(("variable", "value", "words"), FAULTS)
def test_both_programs_name_the_variable_and_not_its_value(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert cli.main(["config"]) == ExitCode.MISCONFIGURED
    assert tools.main(["cancel", "job-1"]) == Exit.MISCONFIGURED
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count(f"{variable}: {words}") == 2
    assert SECRET not in told.err


def test_what_only_looks_like_ours_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Settings()
    monkeypatch.setenv("WHISPERX_CONSUMER_SERVICE_HOST", "10.0.0.1")  # of Kubernetes, for a Service of this name
    monkeypatch.setenv("WHISPERX_TEST_KAFKA", "127.0.0.1:9092")
    assert Settings() == expected


def test_lists_and_maps_that_are_json_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPERX_LIMITS__ALLOWED_BUCKETS", '["calls", "radio/archive/"]')
    monkeypatch.setenv("WHISPERX_KAFKA", '{"topic_prefix": "a."}')
    monkeypatch.setenv("WHISPERX_KAFKA__EXTRA", '{"client.id": "me"}')
    settings = Settings()
    assert settings.limits.allowed_buckets == ("calls", "radio/archive/")
    assert (settings.kafka.topic_prefix, settings.kafka.extra) == ("a.", {"client.id": "me"})
