"""Odd recordings through the whole system: each ends as documented, and the next job runs."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.events import JobFinished, JobStatus
from demo import recordings
from tests import media
from tests.integration.memory_system import RECORDINGS, RESULTS, WORK_BUCKET, MemorySystem

SPEECH = recordings.shipped("conversation-90s").samples[np.newaxis, : 20 * 16_000]


def mp3(signal: media.Signal) -> bytes:
    return media.encode(signal, 16_000, "mp3", "libmp3lame", bit_rate=64_000)


def finished(data: bytes) -> JobFinished:
    """What becomes of the recording; a sound one that comes after it must be done."""
    made = MemorySystem(10.0)
    made.upload("a", media.wav(SPEECH))
    made.upload("odd", data)
    made.start()
    made.submit(job_id="odd", recording={"bucket": RECORDINGS, "key": "odd"})
    made.submit(job_id="next")
    results = made.finish("odd", "next")
    assert results["next"].status is JobStatus.COMPLETED
    assert made.store.get(RECORDINGS, "odd") == data
    return results["odd"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: b"", "RECORDING_EMPTY"),
        (lambda: media.wav_header(0), "RECORDING_EMPTY"),
        (lambda: b"Not music, only words. " * 200, "MEDIA_UNSUPPORTED"),
        (media.silent_film, "NO_SOUND_TRACK"),
    ],
    ids=["no bytes", "no samples", "text", "a film without sound"],
)
def test_what_cannot_be_heard_is_refused_with_its_code(make: Callable[[], bytes], code: str) -> None:
    result = finished(make())
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == (code, False)


def test_silence_is_completed_with_an_empty_transcript_and_a_warning() -> None:
    result = finished(media.wav(media.silence(15)))
    assert result.status is JobStatus.COMPLETED
    assert [warning.code for warning in result.warnings] == ["NO_SPEECH"]
    assert result.transcript_inline is not None
    assert json.loads(result.transcript_inline)["segments"] == []
    assert result.language is None


def test_an_mp3_that_breaks_off_is_done_as_far_as_it_goes_with_a_warning() -> None:
    whole = mp3(SPEECH)
    result = finished(whole[: len(whole) // 2])
    assert result.status is JobStatus.COMPLETED
    assert result.recording is not None
    assert 8 < result.recording.duration_s < 12
    assert "RECORDING_TRUNCATED" in [warning.code for warning in result.warnings]


def test_four_channels_are_mixed_to_one() -> None:
    result = finished(media.wav(np.repeat(SPEECH, 4, axis=0)))
    assert result.status is JobStatus.COMPLETED
    assert result.recording is not None
    assert (result.recording.channels, round(result.recording.duration_s)) == (4, 20)
    assert result.recording.speech_s > 5


class Overwriting(MemoryStore):
    """Somebody replaces the recording after its first bytes were read."""

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        data = super().read_range(bucket, key, start, length, etag=etag, version_id=version_id)
        if key == "odd":
            self.put(bucket, key, media.wav(media.tone(60)))
        return data


def test_a_recording_that_is_overwritten_in_mid_job_fails_with_source_changed() -> None:
    made = MemorySystem(10.0)
    made.store = Overwriting(RECORDINGS, WORK_BUCKET, RESULTS)
    made.upload("a", media.wav(SPEECH))
    made.upload("odd", media.wav(np.tile(SPEECH, (1, 6))))
    made.start()
    made.submit(job_id="odd", recording={"bucket": RECORDINGS, "key": "odd"})
    made.submit(job_id="next")
    results = made.finish("odd", "next")
    assert results["odd"].error is not None
    assert results["odd"].error.code == "SOURCE_CHANGED"
    assert results["next"].status is JobStatus.COMPLETED


def test_the_trace_of_a_request_goes_through_to_its_result() -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    made = MemorySystem(10.0)
    made.upload("a", media.wav(SPEECH))
    made.start()
    made.submit_raw(
        json.dumps({"job_id": "job", "recording": {"bucket": RECORDINGS, "key": "a"}}).encode(),
        headers=(("traceparent", trace),),
    )
    made.finish("job")
    for topic in ("progress", "partials", "results", "plan-work", "chunk-work.normal", "assembly-work"):
        headers = [dict(record.headers) for record in made.broker.records(f"t.{topic}")]
        assert headers, topic
        assert {each.get("traceparent") for each in headers} == {trace}, topic
