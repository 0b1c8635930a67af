"""Ctrl-C while a program loads its modules."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROGRAMS = {"whisperx-consumer": "consumer", "whisperx-jobs": "producer_tools"}
BOUND_S = 60
START = """
import signal, sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "PACKAGE.cli":
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as fault:
                raise ImportError("as some libraries say") from fault

sys.meta_path.insert(0, Interrupted())
from PACKAGE.__main__ import main
"""
IGNORING = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
"""
THEN = """
from PACKAGE import cli
cli.main = lambda: print(signal.getsignal(signal.SIGINT) is signal.HANDLER) or 0
sys.exit(main())
"""


def end_of(program: str, package: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program.replace("PACKAGE", package)]
    return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)


@pytest.mark.parametrize("package", PROGRAMS.values())
def test_ctrl_c_while_modules_load_ends_the_program_without_a_trace(package: str) -> None:
    end = end_of(f"{START}\nsys.exit(main())", package)
    assert (end.returncode, end.stdout, end.stderr) == (130, "", "")


@pytest.mark.parametrize("package", PROGRAMS.values())
def test_once_they_are_loaded_ctrl_c_is_the_business_of_the_command(package: str) -> None:
    then = THEN.replace("HANDLER", "default_int_handler")
    end = end_of(f"import signal, sys\nfrom PACKAGE.__main__ import main\n{then}", package)
    assert (end.returncode, end.stdout, end.stderr) == (0, "True\n", "")


def test_a_program_that_is_to_ignore_ctrl_c_does() -> None:
    end = end_of(f"{IGNORING}\n{START}\n{THEN.replace('HANDLER', 'SIG_IGN')}", "producer_tools")
    assert (end.returncode, end.stdout, end.stderr) == (0, "True\n", "")


def test_the_installed_programs_begin_so() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    scripts = project["project"]["scripts"]
    assert scripts == {name: f"{package}.__main__:main" for name, package in PROGRAMS.items()}


@pytest.mark.parametrize("package", PROGRAMS.values())
def test_what_comes_before_the_guard_takes_no_time_to_load(package: str) -> None:
    heavy = "{'pydantic', 'fastavro', 'argparse', 'logging', 'confluent_kafka', 'minio'} & set(sys.modules)"
    end = end_of(f"import sys\nimport PACKAGE.__main__\nprint({heavy})", package)
    assert end.stdout == "set()\n"
