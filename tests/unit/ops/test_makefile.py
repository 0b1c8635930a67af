"""What `make` shows to who sits before it."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[3] / "Makefile"
UV = """#!/bin/sh
echo "$@" > asked
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def installing(folder: Path, stderr: int) -> list[str]:
    """What uv is asked by `make install` in a fresh checkout."""
    shutil.copy(MAKEFILE, folder)
    for name in ("pyproject.toml", "uv.lock"):
        (folder / name).touch()
    (folder / ".venv").mkdir()
    uv = folder / "uv"
    uv.write_text(UV)
    uv.chmod(0o755)
    command = ["make", "install", f"UV={uv}"]
    above = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**above, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, check=True)
    return (folder / "asked").read_text().split()


def test_gigabytes_come_with_a_progress_bar_on_a_terminal_and_in_silence_elsewhere(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    for name, stderr in (("terminal", terminal), ("log", subprocess.DEVNULL)):
        (tmp_path / name).mkdir()
        asked = installing(tmp_path / name, stderr)
        assert asked[0] == "sync"
        assert ("--quiet" in asked) is (name == "log")
        assert {"--frozen", "speech", "demo"} <= set(asked)
        assert (tmp_path / name / ".venv" / ".installed").exists()
    os.close(ours)
    os.close(terminal)
