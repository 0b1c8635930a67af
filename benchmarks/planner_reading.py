"""What does reading ahead gain where each request to the store takes its time?

    python -m benchmarks.planner_reading                           # 30 ms a request
    python -m benchmarks.planner_reading --latency-ms 5 --rounds 6

A recording is read, decoded in the confined process and searched for speech, as a planner does, from a file behind a
wait. In turns without and with two blocks on their way, so that both see the same machine. Prints JSON: seconds of
each run, the median of those in which it waited for bytes, the ratio of the medians, and whether samples and
probabilities were the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av

from benchmarks.made_recordings import RATE_HZ, voice, write_m4a, write_wav
from consumer.audio.decode import decode
from consumer.audio.source import AHEAD_BLOCKS, ReadAhead
from consumer.audio.vad_silero import SileroStream
from consumer.settings import LimitSettings

WAV_BYTES, FLAC_REPEATS, M4A_BYTES = 60_000_000, 20, 10_000_000


class SlowFile:
    """A file whose every read waits first, as a request to a store does."""

    def __init__(self, path: Path, latency_s: float) -> None:
        self._path = path
        self._latency_s = latency_s
        self.name, self.size_bytes = path.name, path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        time.sleep(self._latency_s)
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def write_flac(path: Path) -> None:
    with av.open(str(path), "w", format="flac") as out:
        stream = out.add_stream("flac", rate=RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.layout = "mono"
        for _ in range(FLAC_REPEATS):
            frame = av.AudioFrame.from_ndarray(voice()[None], format="s16", layout="mono")
            frame.sample_rate = RATE_HZ
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


class TimedReadAhead(ReadAhead):
    """Counts the seconds in which its reader waits."""

    waited_s = 0.0

    def read(self, offset: int, length: int) -> bytes:
        started_s = time.monotonic()
        try:
            return super().read(offset, length)
        finally:
            self.waited_s += time.monotonic() - started_s


KINDS: dict[str, Callable[[Path], None]] = {
    "wav": lambda path: write_wav(path, WAV_BYTES),
    "flac": write_flac,
    "m4a": lambda path: write_m4a(path, M4A_BYTES),
}


def read(path: Path, latency_s: float, ahead: int) -> tuple[float, float, str]:
    """Seconds, those of them in which it waited for bytes, and a digest of what came out."""
    digest, started_s = hashlib.sha256(), time.monotonic()
    with TimedReadAhead(SlowFile(path, latency_s), ahead=ahead) as source:
        speech = SileroStream()
        with decode(source, LimitSettings()) as decoding:
            for samples in decoding.blocks():
                digest.update(samples.tobytes())
                digest.update(speech.feed(samples).tobytes())
        return time.monotonic() - started_s, source.waited_s, digest.hexdigest()


def compare(path: Path, latency_s: float, rounds: int) -> dict[str, Any]:
    read(path, 0.0, 0)  # libraries load, the file gets into memory
    runs: dict[int, list[tuple[float, float, str]]] = {0: [], AHEAD_BLOCKS: []}
    for _ in range(rounds):
        for ahead, done in runs.items():
            done.append(read(path, latency_s, ahead))
    return {
        "bytes": path.stat().st_size,
        "one_by_one": _figures(runs[0]),
        "ahead": _figures(runs[AHEAD_BLOCKS]),
        "ratio": round(_median(runs[AHEAD_BLOCKS], 0) / _median(runs[0], 0), 3),
        "same_output": len({digest for done in runs.values() for _, _, digest in done}) == 1,
    }


def _figures(done: list[tuple[float, float, str]]) -> dict[str, Any]:
    return {"run_s": [round(run_s, 3) for run_s, _, _ in done], "waited_s": round(_median(done, 1), 3)}


def _median(done: list[tuple[float, float, str]], which: int) -> float:
    return statistics.median(float(one[which]) for one in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=30.0, help="wait before each request is answered")
    parser.add_argument("--rounds", type=int, default=4, help="runs of each way")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"latency_ms": arguments.latency_ms}
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in KINDS.items():
            path = Path(folder, f"talk.{kind}")
            write(path)
            results[kind] = compare(path, arguments.latency_ms / 1000, arguments.rounds)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
