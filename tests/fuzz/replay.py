"""python -m tests.fuzz.replay FILE ...: put kept cases to a system, and print what becomes of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.case import read_case
from tests.fuzz.world import World


def main(paths: Sequence[str]) -> int:
    logging.disable(logging.CRITICAL)
    for path in paths:
        case = read_case(Path(path))
        print(f"{path}: {World().outcome_of(case)} ({', '.join(case.story)})", flush=True)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # its threads are in the middle of nothing
