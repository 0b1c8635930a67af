"""Does the planner's memory grow with the recording? Promise P5: 5 GB take at most 100 MB more than 5 MB.

    python -m benchmarks.planner_memory                  # 3 and 30 minutes
    python -m benchmarks.planner_memory --minutes 30     # 30 and 300 minutes

Each recording is a WAV of the demo conversation over and over, planned in a process of its own from a store on disk.
Prints JSON: the peak resident memory of the planning process and of its decoder, in bytes, and the differences.
"""

# ruff: noqa: ARG002  (the store has the shape of the port, and needs less)

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from consumer.audio.decode import decode
from consumer.audio.policies import WindowPolicies
from consumer.audio.sniff import sniff
from consumer.audio.vad_whisperx import FrameScorer
from consumer.core.chunks import ChunkShape
from consumer.errors import MissingObject
from consumer.events import Event, JobOptions, RecordingRef
from consumer.functions.plan import Plan
from consumer.ports import ObjectStat, PutOutcome
from consumer.settings import ChunkSettings, LimitSettings
from consumer.work import PlanWork

VOICE = Path(__file__).parents[1] / "demo" / "recordings" / "conversation-90s.flac"
BUCKET, KEY, WORK_BUCKET = "recordings", "talk.wav", "transcription-work"
KIB = 1024


class FolderStore:
    """Objects as files in a folder, so that nothing of them is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        path = self._path(bucket, key)
        if not path.is_file():
            raise MissingObject(f"no object {bucket}/{key}")
        return ObjectStat(bucket, key, path.stat().st_size, "the-only-one", version_id)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        with self._path(bucket, key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        return self._path(bucket, key).read_bytes()

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "") -> PutOutcome:
        path = self._path(bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
        return PutOutcome(True, "new")

    put = put_new

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        raise NotImplementedError("the planner reads ranges")

    def upload(self, bucket: str, key: str, source: BinaryIO, content_type: str = "") -> ObjectStat:
        raise NotImplementedError("the planner puts whole chunks")

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        raise NotImplementedError("the planner lists nothing")

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        raise NotImplementedError("the planner deletes nothing")

    def delete_exactly(self, pinned: ObjectStat) -> None:
        raise NotImplementedError("the planner deletes nothing")

    def bucket_exists(self, bucket: str) -> bool:
        return True

    def make_bucket(self, bucket: str) -> None:
        raise NotImplementedError("the planner makes no bucket")

    def _path(self, bucket: str, key: str) -> Path:
        return self._folder / bucket / key


class WatchingAttempt:
    """Looks at the decoder whenever the planner asks whether to go on: after every block of samples.

    (What the kernel adds up for children when they end counts the fork of the planner as theirs.)
    """

    number = 1

    def __init__(self) -> None:
        self.decoder_peak_bytes = 0

    def announce(self, *events: Event) -> None:
        pass

    def report(self, event: Event) -> None:
        pass

    def check(self) -> None:
        for child in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
            self.decoder_peak_bytes = max(self.decoder_peak_bytes, peak_bytes(Path("/proc", child, "status")))


def peak_bytes(status: Path) -> int:
    """VmHWM: the most memory that was resident at once."""
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * KIB if lines else 0


def write_recording(path: Path, minutes: float) -> None:
    """A WAV of at least so many minutes, written piece by piece."""
    path.parent.mkdir(parents=True)
    voice = b"".join(voice_blocks())
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        for _ in range(int(minutes * 60 * 16_000 * 2 / len(voice)) + 1):
            file.writeframes(voice)


def voice_blocks() -> Iterator[bytes]:
    store = FolderStore(VOICE.parents[1])
    source = _Source(store, VOICE.parent.name, VOICE.name)
    with decode(source, sniff(source), LimitSettings()) as decoding:
        yield from (block.tobytes() for block in decoding.blocks())


class _Source:
    def __init__(self, store: FolderStore, bucket: str, key: str) -> None:
        self._store, self._bucket, self._key = store, bucket, key
        self.name, self.size_bytes = key, store.stat(bucket, key).size_bytes

    def read(self, offset: int, length: int) -> bytes:
        return self._store.read_range(self._bucket, self._key, offset, length)


def measure(folder: Path) -> dict[str, float]:
    """Plan the recording in `folder`, in this process, and say what it took."""
    settings = ChunkSettings()
    plan = Plan(
        FolderStore(folder),
        WORK_BUCKET,
        ChunkShape(settings.length_s, settings.overlap_s, settings.max_bytes),
        LimitSettings(),
        WindowPolicies("silero", scorer=_no_scorer),
        max_window_s=lambda _: 30.0,
        min_overlap_s=lambda _: 10.0,
        clock=time.monotonic,
    )
    recording = RecordingRef(bucket=BUCKET, key=KEY)
    attempt = WatchingAttempt()
    finished = plan(PlanWork(job_id="memory", run=1, epoch=1, recording=recording, options=JobOptions()), attempt)
    return {
        "recording_bytes": finished.recording.size_bytes,
        "recording_s": finished.recording.duration_s,
        "chunks": finished.chunks_total,
        "plan_s": round(finished.plan_s, 2),
        "planner_peak_bytes": peak_bytes(Path("/proc/self/status")),
        "decoder_peak_bytes": attempt.decoder_peak_bytes,
    }


def _no_scorer() -> FrameScorer:
    raise AssertionError("the silero policy needs no scorer")


def measure_apart(minutes: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_recording(Path(folder, BUCKET, KEY), minutes)
        command = [sys.executable, "-m", "benchmarks.planner_memory", "--measure", folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="length of the short recording; the long is ten times"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    short, long = measure_apart(arguments.minutes), measure_apart(arguments.minutes * 10)
    growth = {part: int(long[f"{part}_peak_bytes"] - short[f"{part}_peak_bytes"]) for part in ("planner", "decoder")}
    print(json.dumps({"short": short, "long": long, "growth_bytes": growth}, indent=2))


if __name__ == "__main__":
    main()
