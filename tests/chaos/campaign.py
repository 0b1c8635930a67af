"""python -m tests.chaos.campaign: chaos runs in turn, until so many faults are done. One line of JSON for all.

Group protocols and numbers of brokers take turns, and each run has a seed of its own. Every run keeps its folder, and
a campaign that was stopped goes on behind the last run that ended when it is started again with the same folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.run import say

GROUNDS = (("classic", 1), ("consumer", 1), ("classic", 3), ("consumer", 3))
MOST_BROKEN = 3
MOST_TIMES_PACE = 3.0
"""Faults wait for each other, and processes for a free core."""
SUMS = ("runs", "lost_runs", "double_terminals", "partials", "lost_partials", "double_partials", "transcripts_compared")
MORE_SUMS = ("transcripts_different", "dead_letters", "sent_again", "faults", "starts", "chunks", "computed_again")
LARGEST = ("takeover_p95_s", "takeover_p95_with_others_s", "lag_zero_after_s", "longest_standstill_s")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="campaign-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    ended = folder / "runs.jsonl"
    found = _ended_before(ended)
    broken: list[int] = []
    while sum(run["faults"] for run in found) < asked.faults and len(broken) < MOST_BROKEN:
        number = len(found) + len(broken)
        run = _run(folder, number, asked)
        if run is None:
            broken.append(asked.seed + number)
        else:
            found.append(run)
            with ended.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(run) + "\n")
        (folder / "campaign.json").write_text(json.dumps(total(found, broken)) + "\n", encoding="utf-8")
    print(json.dumps(total(found, broken)))
    return 0 if total(found, broken)["ok"] else 1


def _ended_before(ended: Path) -> list[dict[str, Any]]:
    """Summaries of the runs that an earlier start of this campaign finished."""
    if not ended.exists():
        return []
    found = [json.loads(line) for line in ended.read_text(encoding="utf-8").splitlines()]
    say(f"{len(found)} runs with {sum(run['faults'] for run in found)} faults have ended before")
    return found


def total(found: Sequence[dict[str, Any]], broken: Sequence[int] = ()) -> dict[str, Any]:
    """Sums, and the worst of what cannot be added; `not_ok` says which checks of which run did not hold.

    `broken` are the seeds of runs that came to no summary.
    """
    return {
        "ok": bool(found) and not broken and all(run["ok"] for run in found),
        "broken": list(broken),
        "seeds": [run["seed"] for run in found],
        **{name: sum(run[name] for run in found) for name in (*SUMS, *MORE_SUMS)},
        "faults_by_kind": dict(sum((Counter(run["faults_by_kind"]) for run in found), Counter())),
        **{f"largest_{name}": max(_known(run[name] for run in found), default=None) for name in LARGEST},
        "wall_s": sum(run["wall_s"] for run in found),
        "not_ok": {
            run["seed"]: [name for name, ok in run["verdicts"].items() if not ok] for run in found if not run["ok"]
        },
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _run(folder: Path, number: int, asked: argparse.Namespace) -> dict[str, Any] | None:
    protocol, brokers = GROUNDS[number % len(GROUNDS)]
    seed = asked.seed + number
    say(f"run {number + 1}: seed {seed}, protocol {protocol}, {brokers} broker(s)")
    shutil.rmtree(folder / str(seed), ignore_errors=True)  # of a run that was cut off
    own = ("--seed", str(seed), "--protocol", protocol, "--brokers", str(brokers), "--folder", str(folder / str(seed)))
    size = ("--jobs", str(asked.jobs), "--faults", str(asked.faults_per_run), "--fault-pace", str(asked.fault_pace))
    limit = ("--minutes", str(MOST_TIMES_PACE * asked.faults_per_run * asked.fault_pace / 60))
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *own, *size, *limit], stdout=subprocess.PIPE, text=True, check=False
    )
    if not done.stdout.strip():
        say(f"run {number + 1} ended with {done.returncode} and without a summary; see {folder / str(seed)}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(f"run {number + 1}: {'ok' if found['ok'] else 'NOT OK'}, {found['faults']} faults, {found['findings']}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=__doc__)
    parser.add_argument("--faults", type=int, default=3000, help="in all (default: 3000)")
    parser.add_argument("--faults-per-run", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=60, help="of a run (default: 60)")
    parser.add_argument("--fault-pace", type=float, default=1.6, help="mean time between two faults in seconds")
    parser.add_argument("--seed", type=int, default=100, help="of the first run; the others count up")
    parser.add_argument("--folder", type=Path, help="of the runs, and where they go on (default: a new one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
