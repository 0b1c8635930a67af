"""python -m tests.chaos: the chaos run. One line of JSON on stdout, talk on stderr, status 1 when a check fails."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.broken_builds import Sabotage
from tests.chaos.checks import check, summary
from tests.chaos.faults import FaultKind
from tests.chaos.loading import load
from tests.chaos.run import Plan, run, say


def main(arguments: Sequence[str] | None = None) -> int:
    plan = _plan(_parser().parse_args(arguments))
    say(f"seed {plan.seed}, everything is kept in {plan.folder}")
    started_s = time.monotonic()
    run(plan)
    found = summary(check(load(plan.folder)))
    asked = {
        "seed": plan.seed,
        "protocol": plan.protocol,
        "brokers": plan.brokers,
        "sabotage": plan.sabotage,
        "jobs": plan.jobs,
        "wall_s": round(time.monotonic() - started_s),
    }
    line = json.dumps({**asked, **found})
    (plan.folder / "summary.json").write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0 if found["ok"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of jobs and faults (default: 1)")
    parser.add_argument("--jobs", type=int, default=60, help="jobs to submit (default: 60, with over 1,000 chunks)")
    parser.add_argument("--faults", type=int, default=200, help="faults to do (default: 200)")
    parser.add_argument("--minutes", type=float, default=20, help="longest time for the faults (default: 20)")
    parser.add_argument("--drain-minutes", type=float, default=10, help="longest time until all runs end after them")
    parser.add_argument("--protocol", choices=("classic", "consumer"), default="classic", help="of the groups")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--kinds", type=_kinds, default=frozenset(FaultKind), help=f"of: {', '.join(FaultKind)}")
    parser.add_argument("--roles", type=_names, default=frozenset(), help="hit only processes with one of these roles")
    parser.add_argument("--sabotage", type=Sabotage, choices=list(Sabotage), default=Sabotage.NONE)
    parser.add_argument("--chunk-pace", type=float, default=1.0, help="longest duration of a chunk in seconds")
    parser.add_argument("--fault-pace", type=float, default=2.5, help="mean time between two faults in seconds")
    parser.add_argument("--folder", type=Path, help="where logs and journal stay (default: a new one)")
    return parser


def _kinds(text: str) -> frozenset[FaultKind]:
    return frozenset(FaultKind(name) for name in text.split(","))


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _plan(asked: argparse.Namespace) -> Plan:
    return Plan(
        seed=asked.seed,
        jobs=asked.jobs,
        faults=asked.faults,
        limit_s=asked.minutes * 60,
        drain_s=asked.drain_minutes * 60,
        protocol=asked.protocol,
        brokers=asked.brokers,
        kinds=asked.kinds,
        roles=asked.roles,
        sabotage=asked.sabotage,
        chunk_pace_s=asked.chunk_pace,
        fault_pace_s=asked.fault_pace,
        folder=(asked.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute(),
    )


if __name__ == "__main__":
    sys.exit(main())
