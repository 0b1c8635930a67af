"""What assembly and cleanup work with in tests: a store in a dict, an attempt, and an engine that joins speakers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from consumer.core.speech import Activity, ChunkSpeech, ChunkTask, Diarization, Language, Progress, Samples, Turn
from consumer.errors import MissingObject
from consumer.events import Event, JobOptions
from consumer.ports import ObjectStat, PutOutcome


class DictStore:
    """An object store in a dict, which remembers in which order it was written to."""

    def __init__(self, objects: dict[tuple[str, str], bytes] | None = None) -> None:
        self.objects = objects if objects is not None else {}
        self.written: list[str] = []
        self.deleted_together: list[int] = []

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        data = self.get(bucket, key)
        return ObjectStat(bucket, key, len(data), _etag(data), version_id)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        return self.get(bucket, key)[start : start + length]

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        if (bucket, key) not in self.objects:
            raise MissingObject(f"{bucket}/{key} is not there", bucket=bucket, key=key)
        return self.objects[bucket, key]

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        yield self.get(bucket, key)

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        if (bucket, key) in self.objects:
            return PutOutcome(created=False, etag=_etag(self.objects[bucket, key]))
        return self.put(bucket, key, data, content_type)

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        self.objects[bucket, key] = data
        self.written.append(key)
        return PutOutcome(created=True, etag=_etag(data))

    def upload(
        self, bucket: str, key: str, source: BinaryIO, content_type: str = "application/octet-stream"
    ) -> ObjectStat:
        self.put(bucket, key, source.read(), content_type)
        return self.stat(bucket, key)

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        return (key for of_bucket, key in self.objects if of_bucket == bucket and key.startswith(prefix))

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        asked = list(keys)
        for key in asked:
            self.objects.pop((bucket, key), None)
        self.deleted_together.append(len(asked))
        return len(asked)

    def bucket_exists(self, bucket: str) -> bool:
        return any(of_bucket == bucket for of_bucket, _ in self.objects)

    def make_bucket(self, bucket: str) -> None:
        """Buckets come with their first object."""


class FakeAttempt:
    """The first try. With `stop` every check says that nobody wants the work."""

    number = 1

    def __init__(self, stop: Exception | None = None) -> None:
        self._stop = stop

    def announce(self, *events: Event) -> None:
        raise AssertionError("assembly and cleanup say nothing before their answer")

    def report(self, event: Event) -> None:
        raise AssertionError("assembly and cleanup report no progress")

    def check(self) -> None:
        if self._stop is not None:
            raise self._stop


class JoiningEngine:
    """An engine that only joins speakers: local speaker k is SPEAKER_0k, one window is one second.

    Keeps what it was asked, so that a test can tell how often and with what.
    """

    device = "cpu/int8"

    def __init__(self) -> None:
        self.joined: list[tuple[tuple[Activity, ...], int]] = []

    def join_speakers(self, activities: Sequence[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        self.joined.append((tuple(activities), recording_samples))
        turns = tuple(
            Turn(float(activity.first + window), float(activity.first + window + 1), f"SPEAKER_{speaker:02d}")
            for activity in activities
            for window, scores in enumerate(activity.scores)
            for speaker in range(scores.shape[1])
            if scores[:, speaker].any()
        )
        embeddings = {turn.speaker: (0.5, -0.25) for turn in turns}
        return Diarization(turns=turns, exclusive=turns, embeddings=embeddings)

    def max_window_s(self, model: str | None) -> float:
        return 30.0

    def min_overlap_s(self, model: str | None) -> float:
        return 10.0

    def detect_language(self, samples: Samples, model: str | None) -> Language | None:
        raise AssertionError("the assembler recognises nothing")

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        raise AssertionError("the assembler recognises nothing")


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
