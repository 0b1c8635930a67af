"""How long each hostile recording of the table takes until it is refused, or heard, beside an honest one.

python -m benchmarks.hostile_recordings

Prints JSON: seconds, code (or seconds heard) and size of each, and the slowest.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing

from consumer.audio.decode import decode
from consumer.audio.decoders import Decoders
from consumer.errors import Rejected
from consumer.settings import LimitSettings
from tests import media
from tests.hostile_cases import CASES
from tests.unit.audio.sources import BytesSource


def outcome(data: bytes, decoders: Decoders) -> str | float:
    """The code of the refusal, or the seconds that are heard."""
    source = BytesSource(data)
    try:
        with decode(source, LimitSettings(), decoders) as decoding:
            return sum(map(len, decoding.blocks())) / 16_000
    except Rejected as error:
        return error.code


def measured(data: bytes, decoders: Decoders) -> dict[str, object]:
    started_s = time.perf_counter()
    found = outcome(data, decoders)
    return {"seconds": round(time.perf_counter() - started_s, 3), "outcome": found, "bytes": len(data)}


def main() -> int:
    with closing(Decoders()) as decoders:
        honest = media.wav(media.tone(3600))
        measured(honest, decoders)  # starts the process that makes decoders
        report: dict[str, object] = {"an honest hour of WAV": measured(honest, decoders)}
        cases = {name: measured(case.make(), decoders) for name, case in CASES.items()}
    slowest = max(cases, key=lambda name: float(str(cases[name]["seconds"])))
    report["cases"] = cases
    report["slowest"] = {"name": slowest, **cases[slowest]}
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
