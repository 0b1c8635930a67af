"""A run: cases dealt out to traced workers, what they say and what the kernel says of them, and what it comes to."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from consumer.errors import DecoderCrashed
from tests.fuzz.case import Kind
from tests.fuzz.watch import deeds, watched
from tests.fuzz.worker import CASES
from tests.fuzz.world import LIMIT_S
from tests.fuzz.wrong_builds import Wrong

BATCH: Final = 500
"""Cases of one worker. It keeps all that was ever on its topics."""

START_S: Final = 120.0
SLOWEST: Final = 5
MOST_FINDINGS: Final = 30
"""Then the rest is left: something is broken, and each finding costs a start."""

MOST_GROWTH_BYTES: Final = 256 << 20
"""What one case may add to the peak of the worker's memory."""


class BrokenWorker(Exception):
    """A worker that did not come to its first case: nothing is known of any."""


@dataclass(frozen=True, slots=True)
class Plan:
    kind: Kind
    seed: int
    count: int
    workers: int = 2
    limit_s: float = LIMIT_S + 10
    """Longest silence of a worker in seconds: what it allows itself, and a little."""
    wrong: Wrong = Wrong.NOTHING
    watch: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    number: int
    what: Literal["death", "hang", "opened", "memory"]
    detail: str


@dataclass
class Found:
    """What has come of a run."""

    plan: Plan
    codes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    crashed: list[int] = field(default_factory=list)
    """Numbers of those that a decoder died of: no worker did, but somebody should look at them."""
    walls: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and number of the slowest."""

    def add(self, said: dict[str, Any]) -> None:
        self.codes[said["code"]] += 1
        if said["code"] == DecoderCrashed.code:
            self.crashed.append(said["number"])
        self.walls = sorted([*self.walls, (said["wall_s"], said["number"])], reverse=True)[:SLOWEST]
        if said["grown_bytes"] > MOST_GROWTH_BYTES:
            self.findings.append(Finding(said["number"], "memory", f"{said['grown_bytes']} bytes more"))

    def summary(self) -> dict[str, object]:
        return {
            "kind": self.plan.kind,
            "seed": self.plan.seed,
            "count": self.plan.count,
            "watched": self.plan.watch,
            "codes": dict(self.codes.most_common()),
            "crashed": sorted(self.crashed),
            "slowest_s": self.walls,
            "findings": [(one.number, one.what, one.detail.splitlines()[-1]) for one in self.findings],
        }


def run(plan: Plan) -> Found:
    """Put all cases of the plan to workers."""
    found = Found(plan)
    size = min(BATCH, -(-plan.count // plan.workers))
    batches = [(first, min(first + size, plan.count)) for first in range(0, plan.count, size)]
    with ThreadPoolExecutor(plan.workers) as pool:
        list(pool.map(lambda batch: _run_batch(found, *batch), batches))
    found.findings.sort(key=lambda one: one.number)
    return found


def keep(found: Found, folder: Path) -> list[Path]:
    """Write the cases that found something, or that a decoder died of."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = found.plan
    named = {(number, "crash") for number in found.crashed} | {(one.number, one.what) for one in found.findings}
    kept = {folder / f"{plan.kind}-{plan.seed}-{number}-{what}.json": number for number, what in sorted(named)}
    for path, number in kept.items():
        path.write_text(CASES[plan.kind](plan.seed, number).written() + "\n", encoding="utf-8")
    return list(kept)


def _run_batch(found: Found, first: int, last: int) -> None:
    """A worker that dies or hangs is followed by another one behind that case."""
    while first < last and len(found.findings) < MOST_FINDINGS:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            trace = Path(folder) / "trace"
            first = _run_worker(found, first, last, trace)
            if found.plan.watch:
                with trace.open(encoding="utf-8", errors="replace") as lines:
                    opened = {deed.number: deed.call for deed in reversed([*deeds(lines)])}  # the first of each case
                found.findings += [Finding(number, "opened", call) for number, call in opened.items()]


def _run_worker(found: Found, first: int, last: int, trace: Path) -> int:
    """The number to go on with."""
    plan = found.plan
    numbers = (str(plan.seed), str(first), str(last))
    command = [sys.executable, "-m", "tests.fuzz.worker", plan.kind, *numbers, plan.wrong.value]
    command = watched(command, trace) if plan.watch else command
    at, is_ready = first, False

    def note(what: Literal["death", "hang"], detail: str) -> int:
        if not is_ready:
            raise BrokenWorker(f"{what} before the first case: {detail}; run {' '.join(command)}")
        found.findings.append(Finding(at, what, detail))
        return at + 1

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as worker:
        assert worker.stdout is not None
        try:
            for said in _lines(worker.stdout.fileno(), plan.limit_s):
                if "death" in said:
                    return note("death", said["death"])
                is_ready = True
                if "code" in said:
                    found.add(said)
                    at += 1
        except TimeoutError:
            os.killpg(worker.pid, signal.SIGKILL)
            return note("hang", f"nothing for {plan.limit_s:g} s")
    return at if at == last else note("death", f"its process ended with {worker.returncode}")


def _lines(descriptor: int, limit_s: float) -> Iterator[dict[str, Any]]:
    """What a worker says. Raises TimeoutError when it is silent for too long; its start may take longer."""
    rest, wait_s = b"", max(START_S, limit_s)
    while True:
        if not select.select([descriptor], [], [], wait_s)[0]:
            raise TimeoutError
        data = os.read(descriptor, 1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            wait_s = limit_s
            yield json.loads(line)
