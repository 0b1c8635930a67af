"""Resident memory of a process and its children over time, as the kernel counts it, and whether it grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KIB = 1024
INTERVAL_S = 0.25
WARM_SHARE = 0.25
"""The part of a run, at its start, that the slope leaves out: buffers fill and libraries load."""

SHOWN_SAMPLES = 240
"""Points of a curve that are written down."""


@dataclass
class Curve:
    """Memory over time: pairs of seconds since the start and bytes."""

    samples: list[tuple[float, int]] = field(default_factory=list)
    peak_bytes: int = 0

    def add(self, at_s: float, resident_bytes: int, peak_bytes: int) -> None:
        self.samples.append((at_s, resident_bytes))
        self.peak_bytes = max(self.peak_bytes, resident_bytes, peak_bytes)

    def slope(self) -> float:
        """Bytes per second after the start, by least squares."""
        if not self.samples:
            return 0.0
        first = self.samples[-1][0] * WARM_SHARE
        points = [one for one in self.samples if one[0] >= first]
        mean_s = sum(at for at, _ in points) / len(points)
        mean_bytes = sum(size for _, size in points) / len(points)
        spread = sum((at - mean_s) ** 2 for at, _ in points)
        if not spread:
            return 0.0
        return sum((at - mean_s) * (size - mean_bytes) for at, size in points) / spread

    def figures(self) -> dict[str, Any]:
        """Peak, growth over the whole run by the slope, and the curve, thinned out."""
        step = max(len(self.samples) // SHOWN_SAMPLES, 1)
        lasted_s = self.samples[-1][0] if self.samples else 0.0
        return {
            "peak_bytes": self.peak_bytes,
            "slope_bytes_over_the_run": round(self.slope() * lasted_s),
            "curve": [(round(at, 1), size) for at, size in self.samples[::step]],
        }


@dataclass(frozen=True)
class Measured:
    """What a process printed, and what it and its children held."""

    answer: dict[str, Any]
    own: Curve
    children: Curve
    """The largest of the descendants at each instant."""


def measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run `python -m ...` to its end and watch it; the last line of its stdout is JSON, or nothing is.

    Raises CalledProcessError when it fails.
    """
    full = [sys.executable, *command]
    with subprocess.Popen(
        full, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        own, children, over = Curve(), Curve(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, own, children, over))
        watcher.start()
        try:
            out, _ = process.communicate()
        finally:
            over.set()
            watcher.join()
            process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, full)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return Measured(json.loads(lines[-1]) if lines else {}, own, children)


def _watch(pid: int, own: Curve, children: Curve, over: threading.Event) -> None:
    started_s = time.monotonic()
    while not over.wait(INTERVAL_S):
        at_s = time.monotonic() - started_s
        if found := resident(pid):
            own.add(at_s, *found)
        if held := [one for one in map(resident, descendants(pid)) if one]:
            children.add(at_s, max(one[0] for one in held), max(one[1] for one in held))


def resident(pid: int) -> tuple[int, int] | None:
    """VmRSS and VmHWM, the most that was resident at once, in bytes; None when the process is gone."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0]) * KIB
    return (found["VmRSS"], found["VmHWM"]) if len(found) == 2 else None


def peak_bytes(status: Path) -> int:
    """VmHWM of a process's status file."""
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * KIB if lines else 0


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for child in map(int, (task / "children").read_text().split()):
                    found += [child, *descendants(child)]
    return found
