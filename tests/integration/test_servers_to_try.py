"""`python -m tests.servers`: what it prints leads to servers that work, and nothing is left of them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer import cli
from tests.servers.control import unavailable
from tests.servers.process import port_answers

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]
BOUND_S = 60
LAST = "export WHISPERX_MODELS__ALLOWED="


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    yield process
    process.kill()
    process.communicate()


def test_the_settings_that_are_printed_are_all_that_a_first_try_needs(
    servers: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert servers.stdout is not None
    lines = list(_until_last(servers.stdout))
    if not lines:
        unavailable(servers.communicate(timeout=BOUND_S)[1])
    given = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["topics", "create"]) == 0
    assert cli.main(["buckets", "create", "--recordings", "transcription-recordings"]) == 0
    capsys.readouterr()
    cli.main(["doctor", "--roles", "intake"])
    assert "FAIL" not in capsys.readouterr().out
    servers.send_signal(signal.SIGINT)
    said = servers.communicate(timeout=BOUND_S)[1]
    assert servers.returncode == 0, said
    assert "Ctrl-C here ends both servers" in said
    ports = [
        int(given[f"WHISPERX_{name}"].rpartition(":")[2]) for name in ("KAFKA__BOOTSTRAP_SERVERS", "STORE__ENDPOINT")
    ]
    assert not any(map(port_answers, ports))
    assert list(tmp_path.iterdir()) == []


def _until_last(stdout: Iterator[str]) -> Iterator[str]:
    for line in stdout:
        yield line
        if line.startswith(LAST):
            return
