"""A planner in a process of its own, on a real store; it may kill itself when it has announced a chunk.

    python -m tests.integration.mortal_planner RECORDINGS WORK KEY [CHUNK]

The store is that of WHISPERX_STORE__*. Each body that goes to the store is a line `sent KEY BYTES`.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from consumer.adapters.object_store import S3Store
from consumer.adapters.store_errors import Place
from consumer.audio.vad_silero import silero_windows
from consumer.core.chunks import ChunkShape
from consumer.events import Event, JobOptions, RecordingRef
from consumer.functions.plan import Plan
from consumer.ports import PutOutcome
from consumer.settings import LimitSettings, Settings
from consumer.work import ChunkPlanned, PlanWork


class ToldStore(S3Store):
    """Says of every request with a body what it sends, whether the store takes it or not."""

    def _put(self, place: Place, data: bytes, headers: dict[str, str]) -> PutOutcome:
        print("sent", place.key, len(data), flush=True)
        return super()._put(place, data, headers)


class MortalAttempt:
    number = 1

    def __init__(self, last_chunk: int | None) -> None:
        self._last_chunk = last_chunk

    def announce(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, ChunkPlanned) and event.chunk_index == self._last_chunk:
                os.kill(os.getpid(), signal.SIGKILL)

    def report(self, event: Event) -> None:
        raise AssertionError("planning reports nothing")

    def check(self) -> None:
        pass


def main(recordings: str, work_bucket: str, key: str, last_chunk: str | None = None) -> None:
    planner = Plan(
        ToldStore.of(Settings().store),
        work_bucket,
        ChunkShape(20.0, 5.0, 100_000_000),
        LimitSettings(),
        lambda options: silero_windows(options.vad, 12.0),
        max_window_s=lambda _: 12.0,
        min_overlap_s=lambda _: 2.0,
        clock=time.monotonic,
    )
    recording = RecordingRef(bucket=recordings, key=key)
    work = PlanWork(job_id="job-1", run=1, epoch=1, recording=recording, options=JobOptions())
    finished = planner(work, MortalAttempt(int(last_chunk) if last_chunk else None))
    print("chunks", finished.chunks_total, finished.recording.size_bytes)


if __name__ == "__main__":
    main(*sys.argv[1:])
