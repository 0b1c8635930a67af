"""python -m tests.fuzz.worker KIND SEED FIRST LAST [WRONG]: put those cases to a system, and print what became of each.

One line of JSON for each. In front of each case and behind it stands a question for a file that is named after its
number, which is how its place in the kernel's trace is known. Ends with status 1 at the first case that a worker would
have died of.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.resident import peak_bytes
from consumer.audio import decode
from consumer.audio.protocol import Order
from tests.fuzz import wrong_builds
from tests.fuzz.case import Case, Kind
from tests.fuzz.events import event_case
from tests.fuzz.recordings import ASKED, media_case
from tests.fuzz.watch import mark
from tests.fuzz.world import World

CASES: Final[Mapping[Kind, Callable[[int, int], Case]]] = {"media": media_case, "events": event_case}
"""What makes a case, by its kind, from a seed and a number."""

PACKETS_AT_ONCE: Final = 20
"""Of the index of an MP4: those of the cases are short, and only long ones are read in windows."""

STATUS: Final = Path("/proc/self/status")
FRAMES: Final = 6
"""Of a traceback: the last ones say where."""


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    logging.disable(logging.CRITICAL)
    setattr(decode, "Order", functools.partial(Order, packets_at_once=PACKETS_AT_ONCE))  # noqa: B010 (one of its kind)
    world = World()
    _warm_up(world)
    with wrong_builds.build(asked.wrong, world):
        _say(ready=True)
        for number in range(asked.first, asked.last):
            if not _put(world, number, CASES[asked.kind](asked.seed, number)):
                return 1
    return 0


def _put(world: World, number: int, case: Case) -> bool:
    """False when the worker is dead."""
    before, put_before, started_s = peak_bytes(STATUS), world.put_bytes, time.monotonic()
    mark(number)
    try:
        code = world.outcome_of(case)
    except Exception:  # noqa: BLE001  (whatever it is: a worker would have died)
        mark(None)
        _say(number=number, death=traceback.format_exc(limit=-FRAMES))
        return False
    mark(None)
    wall_s = round(time.monotonic() - started_s, 3)
    grown_bytes = max(peak_bytes(STATUS) - before - (world.put_bytes - put_before), 0)
    _say(number=number, code=code, wall_s=wall_s, grown_bytes=grown_bytes)
    return True


def _warm_up(world: World) -> None:
    """What is loaded with the first job, the first refusal and the first failure is loaded then."""
    for number in range(8):
        world.outcome_of(event_case(0, number))
    for recording in (event_case(0, 0).recording, b"no recording at all"):
        world.outcome_of(Case(("warm-up",), recording, ASKED))


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.worker", description=__doc__)
    parser.add_argument("kind", choices=CASES)
    parser.add_argument("seed", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, help="one behind the last")
    parser.add_argument(
        "wrong",
        nargs="?",
        type=wrong_builds.Wrong,
        choices=list(wrong_builds.Wrong),
        default=wrong_builds.Wrong.NOTHING,
    )
    return parser


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # its threads are in the middle of nothing
