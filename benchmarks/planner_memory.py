"""Does the planner's memory grow with the recording? Promise P5: 5 GB take at most 100 MB more than 5 MB.

    python -m benchmarks.planner_memory                    # each kind at 5 MB and at full size: about half an hour
    python -m benchmarks.planner_memory --quick            # at 5 and 100 MB
    python -m benchmarks.planner_memory --only wav mkv --output figures.json

A WAV of 43 hours, videos of 5 GB with two hours of sound (Matroska, and MP4 with its index at the end), an MP3 of
500 MB and an M4A of 500 MB with its index at the end, all out of the demo conversation. Each is planned in a process
of its own from a MinIO that is started for this run, into which the chunks go too; needs up to 16 GB of disk.

Prints JSON: resident memory of the planning process and of the largest of its decoder processes over time, the
growth from small to large, and the slope: what the line through the last three quarters of a run gains over all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.made_recordings import WRITERS, WavStream
from benchmarks.resident import Measured, measured
from benchmarks.surroundings import Alone
from consumer.adapters.object_store import S3Store
from consumer.audio.policies import WindowPolicies
from consumer.audio.vad_whisperx import FrameScorer
from consumer.core.chunks import ChunkShape
from consumer.events import JobOptions, RecordingRef
from consumer.functions.plan import Plan
from consumer.settings import ChunkSettings, LimitSettings, StoreSettings
from consumer.work import PlanWork
from tests.servers.minio import Minio, own_minio

BUCKET, WORK_BUCKET = "recordings", "transcription-work"
SMALL_BYTES = 5_000_000
FULL_BYTES = {"wav": 5_000_000_000, "mkv": 5_000_000_000, "mp4": 5_000_000_000, "mp3": 500_000_000, "m4a": 500_000_000}
QUICK_BYTES = 100_000_000


def plan(key: str, max_window_s: float = 30.0) -> dict[str, float]:
    """Plan one recording, in this process, and say what it was."""
    settings = ChunkSettings()
    planner = Plan(
        S3Store.of(StoreSettings.model_validate_json(os.environ["BENCHMARK_STORE"])),
        WORK_BUCKET,
        ChunkShape(settings.length_s, settings.overlap_s, settings.max_bytes),
        LimitSettings(),
        WindowPolicies("silero", scorer=_no_scorer),
        max_window_s=lambda _: max_window_s,
        min_overlap_s=lambda _: 10.0,
        clock=time.monotonic,
    )
    recording = RecordingRef(bucket=BUCKET, key=key)
    work = PlanWork(job_id=key.replace(".", "-"), run=1, epoch=1, recording=recording, options=JobOptions())
    finished = planner(work, Alone())
    return {
        "recording_bytes": finished.recording.size_bytes,
        "recording_s": finished.recording.duration_s,
        "chunks": finished.chunks_total,
        "plan_s": round(finished.plan_s, 2),
    }


def _no_scorer() -> FrameScorer:
    raise AssertionError("the silero policy needs no scorer")


def settings_of(minio: Minio) -> StoreSettings:
    return StoreSettings(
        endpoint=minio.endpoint, access_key=minio.access_key, secret_key=minio.secret_key, secure=minio.secure
    )


def environment_of(minio: Minio) -> dict[str, str]:
    """The keys are those of a server that lives for this run."""
    store = {"endpoint": minio.endpoint, "access_key": minio.access_key, "secret_key": minio.secret_key}
    return {"BENCHMARK_STORE": json.dumps({**store, "secure": minio.secure})}


def put_recording(store: S3Store, kind: str, key: str, size_bytes: int, folder: Path) -> None:
    """A WAV goes into the store while it is made; the others are written first, because their writers go back."""
    if kind == "wav":
        store.upload(BUCKET, key, WavStream(size_bytes))  # type: ignore[arg-type]  # read() is all that is asked of it
        return
    path = folder / key
    try:
        WRITERS[kind](path, size_bytes)
        with path.open("rb") as file:
            store.upload(BUCKET, key, file)
    finally:
        path.unlink(missing_ok=True)


def measure(kind: str, size_bytes: int, folder: Path) -> dict[str, Any]:
    """In a store of its own, so that the disk holds one recording at a time."""
    with ExitStack() as open_here:
        inside = Path(open_here.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        minio = open_here.enter_context(own_minio(inside))
        store = S3Store.of(settings_of(minio))
        for bucket in (BUCKET, WORK_BUCKET):
            store.make_bucket(bucket)
        key = f"talk.{kind}"
        put_recording(store, kind, key, size_bytes, inside)
        command = ["-m", "benchmarks.planner_memory", "--measure", key]
        return figures(measured(command, environment_of(minio)))


def figures(found: Measured) -> dict[str, Any]:
    return {**found.answer, "planner": found.own.figures(), "decoder": found.children.figures()}


def compared(kind: str, large_bytes: int, folder: Path) -> dict[str, Any]:
    small, large = measure(kind, SMALL_BYTES, folder), measure(kind, large_bytes, folder)
    growth = {part: large[part]["peak_bytes"] - small[part]["peak_bytes"] for part in ("planner", "decoder")}
    return {"small": small, "large": large, "growth_bytes": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FULL_BYTES, default=list(FULL_BYTES), help="kinds of recordings")
    parser.add_argument("--quick", action="store_true", help="100 MB instead of the full size")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where there is room")
    parser.add_argument("--output", type=Path, help="file for the JSON, written after each kind")
    parser.add_argument("--measure", metavar="KEY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(plan(arguments.measure)))
        return
    results: dict[str, Any] = {}
    for kind in arguments.only:
        results[kind] = compared(kind, QUICK_BYTES if arguments.quick else FULL_BYTES[kind], arguments.folder)
        if arguments.output:
            arguments.output.write_text(json.dumps(results) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
