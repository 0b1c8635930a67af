"""The short form of the chaos run, and builds that are wrong on purpose: the harness must find what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers.control import unavailable
from tests.servers.packages import KAFKA, MINIO, TOXIPROXY

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
TIMED = {"takeovers", "standstill"}
"""Verdicts about seconds. `make chaos` asks for them; a test on a busy machine only shows them."""


def chaos(folder: Path, *arguments: str) -> dict[str, Any]:
    """The summary line of a run with everything as plain processes."""
    for package in (KAFKA, MINIO, TOXIPROXY):
        if not package.is_installed():
            unavailable(f"no {package.name} as a plain process: run python -m tests.servers.install {package.name}")
    command = [sys.executable, "-m", "tests.chaos", "--folder", str(folder), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.stdout.strip(), f"no summary; the end of what it said:\n{done.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if found["ok"] else 1)
    return found


def test_twenty_faults_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """P1, P2, P3 and P4, in their short form."""
    found = chaos(tmp_path / "run", "--jobs", "6", "--faults", "20", "--minutes", "2", "--drain-minutes", "3")
    broken = [name for name, ok in found["verdicts"].items() if not ok and name not in TIMED]
    assert not broken, json.dumps(found, indent=2)
    assert found["faults"] >= 20
    assert found["transcripts_compared"] >= 2


BROKEN = {
    "no-transactions": (
        ("--kinds", "torn", "--roles", "coordinate", "--faults", "4", "--fault-pace", "8"),
        ("--jobs", "6", "--minutes", "1.5", "--drain-minutes", "1"),
    ),
    # What is lost never comes: the wait for it, in minutes, is only longer than the coordinator's longest retry.
    "commit-first": (
        ("--kinds", "kill", "--roles", "transcribe", "--faults", "8", "--fault-pace", "3"),
        ("--jobs", "6", "--minutes", "1.5", "--drain-minutes", "0.6", "--chunk-pace", "4"),
    ),
}
"""Builds that are wrong on purpose: the faults that aim at what is wrong, and how long to look."""
Broken = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """The summary line of each. All run at once: most of a run is waiting, and what they show is not how soon."""
    with ThreadPoolExecutor(len(BROKEN)) as pool:
        runs = {
            name: pool.submit(chaos, tmp_path_factory.mktemp(name) / "run", "--sabotage", name, *aimed, *short)
            for name, (aimed, short) in BROKEN.items()
        }
        yield lambda name: runs[name].result()


def test_a_build_without_transactions_is_found_out_by_its_duplicates(broken: Broken) -> None:
    found = broken("no-transactions")
    assert found["double_partials"] + found["double_terminals"] > 0, json.dumps(found, indent=2)
    assert not found["ok"]


def test_a_build_that_commits_before_it_works_is_found_out_by_its_losses(broken: Broken) -> None:
    found = broken("commit-first")
    assert found["lost_runs"] > 0, json.dumps(found, indent=2)
    assert found["verdicts"]["lag"], "they are lost and not late: nothing is left to do"
    assert not found["ok"]
