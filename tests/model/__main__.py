"""Run many sequences and say in one line of JSON what happened: `python -m tests.model --sequences 10000 --seed 1`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time

from tests.model.exploring import STEPS, explore
from tests.model.machine import Model


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=STEPS, help="most steps of one sequence")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-shrink", action="store_true", help="show the first failing sequence as it was found")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began_s = time.monotonic()
    try:
        explore(Model, asked.sequences, asked.seed, shrink=not asked.no_shrink, steps=asked.steps)
    finally:
        said = {"seed": asked.seed, **dict(sorted(Model.tally.items()))}
        print(json.dumps({**said, "seconds": round(time.monotonic() - began_s, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
