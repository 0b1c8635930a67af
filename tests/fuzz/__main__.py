"""python -m tests.fuzz: one line of JSON for each kind of case, status 1 when something was found."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tests.fuzz.case import Kind
from tests.fuzz.run import Plan, keep, run
from tests.fuzz.watch import cannot_watch
from tests.fuzz.wrong_builds import Wrong


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    watch = not asked.unwatched
    if watch and (why := cannot_watch()):
        print(f"{why}: nothing can be watched; install it, or say --unwatched", file=sys.stderr)
        return 2
    found_something = False
    for kind in get_args(Kind) if asked.kind == "all" else (asked.kind,):
        started_s = time.monotonic()
        found = run(Plan(kind, asked.seed, asked.count, asked.workers, wrong=asked.wrong, watch=watch))
        print(json.dumps({**found.summary(), "wall_s": round(time.monotonic() - started_s)}), flush=True)
        for path in keep(found, asked.keep):
            print(f"kept in {path}; replay it with `python -m tests.fuzz.replay {path}`", file=sys.stderr)
        found_something |= bool(found.findings)
    return int(found_something)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=(*get_args(Kind), "all"), default="all")
    parser.add_argument("--seed", type=int, default=1, help="of all cases (default: 1)")
    parser.add_argument("--count", type=int, default=10_000, help="cases of each kind (default: 10,000)")
    parser.add_argument("--workers", type=int, default=2, help="processes that work at the same time (default: 2)")
    parser.add_argument("--keep", type=Path, default=Path(".cache/fuzz"), help="where cases go that found something")
    parser.add_argument("--unwatched", action="store_true", help="go without the kernel's trace (no strace is needed)")
    parser.add_argument("--wrong", type=Wrong, choices=list(Wrong), default=Wrong.NOTHING, help="a build with a fault")
    return parser


if __name__ == "__main__":
    sys.exit(main())
