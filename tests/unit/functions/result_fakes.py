"""What assembly and cleanup work with in tests: a store, an attempt, and an engine that joins speakers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consumer.adapters.memory_store import MemoryStore
from consumer.core.speech import Activity, ChunkSpeech, ChunkTask, Diarization, Language, Progress, Samples, Turn
from consumer.events import Event, JobOptions
from consumer.ports import PutOutcome


class WatchedStore(MemoryStore):
    """The store in memory, with notes on what was written in which order and deleted together."""

    def __init__(self, objects: Mapping[tuple[str, str], bytes] | None = None) -> None:
        super().__init__("work", "results", "calls")
        for (bucket, key), data in (objects or {}).items():
            super().put(bucket, key, data)
        self.written: list[str] = []
        self.deleted_together: list[int] = []

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        self.written.append(key)
        return super().put(bucket, key, data, content_type)

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        self.deleted_together.append(super().delete(bucket, keys))
        return self.deleted_together[-1]

    def contents(self) -> dict[tuple[str, str], bytes]:
        """Everything that is stored, by bucket and key."""
        keys = [(bucket, key) for bucket in ("work", "results", "calls") for key in self.list_keys(bucket, "")]
        return {(bucket, key): self.get(bucket, key) for bucket, key in keys}


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

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        activities = tuple(activities)
        self.joined.append((activities, recording_samples))
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
