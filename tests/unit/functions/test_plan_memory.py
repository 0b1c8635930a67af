"""P5 in small: what the planner allocates does not grow with the recording. benchmarks/planner_memory.py has 5 GB."""

from __future__ import annotations

import tracemalloc

import pytest

from consumer.audio.source import AHEAD_BLOCKS, BLOCK_BYTES, CACHED_BLOCKS
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ
from consumer.ports import ObjectStat, PutOutcome
from tests import media
from tests.unit.functions.test_plan import BUCKET, DictStore, RecordedAttempt, make_plan, work

SECOND = media.s16(media.tone(1)).tobytes()
CHUNK_S = 20.0
CHUNK_BYTES = int(CHUNK_S * 1.5 * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE)
"""Of the audio of a chunk, with its overlap."""


class MadeUpStore(DictStore):
    """A WAV of so many seconds that is computed where it is read. Of what is written it keeps the plans only."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self._head = media.wav_header(seconds * len(SECOND))
        self._size_bytes = len(self._head) + seconds * len(SECOND)
        self.audio_bytes = 0

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        if bucket == BUCKET:
            return ObjectStat(bucket, key, self._size_bytes, "the-only-one", version_id)
        return super().stat(bucket, key, version_id)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        seconds = SECOND * (length // len(SECOND) + 2)
        if start < len(self._head):
            return (self._head + seconds)[start : start + length]
        at = (start - len(self._head)) % len(SECOND)
        return seconds[at : at + min(length, self._size_bytes - start)]

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        if not key.endswith(".pcm"):
            return super().put_new(bucket, key, data, content_type)
        self.audio_bytes += len(data)
        return PutOutcome(True, "kept-nowhere")


def peak_of(seconds: int) -> int:
    """The most that was allocated at once in this process while a recording of this length was planned."""
    store = MadeUpStore(seconds)
    tracemalloc.start()
    try:
        make_plan(store, length_s=CHUNK_S)(work(), RecordedAttempt(DictStore()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert store.audio_bytes > seconds * len(SECOND), "all of it was planned"
    return peak


@pytest.mark.timeout(120)
def test_a_recording_three_times_as_long_takes_no_more_memory() -> None:
    """38 MB more to read; what may differ is how many blocks happened to be on their way."""
    short, long = peak_of(600), peak_of(1800)
    assert long - short < (1 + AHEAD_BLOCKS) * BLOCK_BYTES
    assert long < (CACHED_BLOCKS + 2 * AHEAD_BLOCKS + 2) * BLOCK_BYTES + 5 * CHUNK_BYTES
