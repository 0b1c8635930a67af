"""A planner that takes over from one that died: what is in the store is looked at and not sent again."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from consumer.audio.source import AHEAD_BLOCKS, BLOCK_BYTES
from consumer.core.chunks import PlanShape
from consumer.core.manifest import ChunkPlan
from consumer.core.values import BYTES_PER_SAMPLE, Chunk, Span
from consumer.errors import Abandoned, ChangedObject, UnreadableDocument
from consumer.ports import ObjectStat, PutOutcome
from tests import media
from tests.unit.functions.spoilt import spoilt, with_more
from tests.unit.functions.test_plan import (
    BUCKET,
    KEYS,
    SPEECH,
    WORK_BUCKET,
    DictStore,
    RecordedAttempt,
    make_plan,
    work,
)

CHUNKS = 3
AUDIO = [KEYS.chunk_audio(index) for index in range(CHUNKS)]
PLAN = re.compile(r".*/chunks/\d+\.json")
PLANS = [KEYS.chunk_plan(index) for index in range(CHUNKS)]


@dataclass
class CountingStore(DictStore):
    """Keeps what was sent, whether it was taken or not, and what was asked of the work bucket."""

    sent: list[tuple[str, int]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        self.sent.append((key, len(data)))
        asked = len(self.asked)
        outcome = super().put_new(bucket, key, data, content_type)
        del self.asked[asked:]  # what the store asks itself
        return outcome

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        if bucket == WORK_BUCKET:
            self.asked.append(key)
        return super().stat(bucket, key, version_id)

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        yield self.objects[bucket, key]

    @property
    def audio_sent(self) -> list[str]:
        return [key for key, _ in self.sent if key.endswith(".pcm")]

    def in_work(self) -> dict[str, bytes]:
        return {key: data for (bucket, key), data in self.objects.items() if bucket == WORK_BUCKET}


class DyingAttempt(RecordedAttempt):
    """Its planner dies with the announcement of a chunk."""

    def __init__(self, store: DictStore, chunk: int) -> None:
        super().__init__(store)
        self._chunk = chunk

    def announce(self, *events: object) -> None:
        super().announce(*events)  # type: ignore[arg-type]
        if len(self.chunks) > self._chunk:
            raise Abandoned("this planner is no more")


def fresh() -> CountingStore:
    return CountingStore({(BUCKET, "talk.mp3"): media.wav(SPEECH)})


def undisturbed() -> tuple[dict[str, bytes], list[object]]:
    store = fresh()
    attempt = RecordedAttempt(store)
    make_plan(store)(work(), attempt)
    return store.in_work(), list(attempt.events)


def left_by_a_planner_that_died(after_chunk: int) -> CountingStore:
    store = fresh()
    with pytest.raises(Abandoned):
        make_plan(store)(work(), DyingAttempt(store, after_chunk))
    store.sent.clear()
    store.asked.clear()
    return store


def take_over(store: CountingStore) -> RecordedAttempt:
    attempt = RecordedAttempt(store)
    make_plan(store)(work(), attempt)
    return attempt


class TestASuccessor:
    @pytest.mark.parametrize("died_after", [0, 1, 2])
    def test_sends_the_audio_that_is_missing_and_no_other(self, died_after: int) -> None:
        store = left_by_a_planner_that_died(died_after)
        there = set(store.in_work())
        attempt = take_over(store)
        missing = [key for key in (*AUDIO, KEYS.language_sample) if key not in there]
        assert sorted(store.audio_sent) == sorted(missing)
        objects, events = undisturbed()
        assert store.in_work() == objects
        assert attempt.events == events, "what is announced does not depend on what died"

    def test_sends_no_audio_where_only_the_plan_of_a_chunk_is_missing(self) -> None:
        store = left_by_a_planner_that_died(0)
        del store.objects[WORK_BUCKET, PLANS[0]]
        take_over(store)
        assert AUDIO[0] not in store.audio_sent
        assert store.in_work() == undisturbed()[0]

    def test_asks_no_more_once_something_was_missing(self) -> None:
        store = left_by_a_planner_that_died(0)
        take_over(store)
        assert [key for key in store.asked if key in AUDIO] == AUDIO[:2]

    def test_sends_again_what_was_removed_behind_its_plan(self) -> None:
        store = left_by_a_planner_that_died(1)
        del store.objects[WORK_BUCKET, AUDIO[1]]
        take_over(store)
        assert AUDIO[1] in store.audio_sent
        assert store.in_work() == undisturbed()[0]


class TestTheFirstPlanner:
    def test_asks_for_nothing_before_it_writes(self) -> None:
        store = fresh()
        take_over(store)
        assert store.asked == []
        assert len(store.audio_sent) == CHUNKS + 1

    def test_goes_on_beside_another_that_still_writes(self) -> None:
        objects, events = undisturbed()

        class Raced(CountingStore):
            def put_new(
                self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream"
            ) -> PutOutcome:
                if key == AUDIO[1]:
                    self.objects |= {(WORK_BUCKET, one): objects[one] for one in (AUDIO[1], PLANS[1], AUDIO[2])}
                return super().put_new(bucket, key, data, content_type)

        store = Raced({(BUCKET, "talk.mp3"): media.wav(SPEECH)})
        assert take_over(store).events == events
        assert store.in_work() == objects
        assert AUDIO[2] not in store.audio_sent, "after one refusal it looks first"


class TestOtherAudioThatIsThere:
    def refused(self, store: CountingStore) -> str:
        attempt = RecordedAttempt(store)
        with pytest.raises(ChangedObject) as caught:
            make_plan(store)(work(), attempt)
        assert attempt.chunks == [], "the chunk was not announced"
        return caught.value.message

    def test_is_refused_by_its_length(self) -> None:
        store = left_by_a_planner_that_died(1)
        store.objects[WORK_BUCKET, AUDIO[0]] += b"\0\0"
        assert AUDIO[0] in self.refused(store)

    def test_is_refused_by_the_digest_in_its_plan(self) -> None:
        store = left_by_a_planner_that_died(1)
        plan = ChunkPlan.model_validate_json(store.objects[WORK_BUCKET, PLANS[0]])
        other = plan.model_copy(update={"audio_sha256": hashlib.sha256(b"other").hexdigest()})
        store.objects[WORK_BUCKET, PLANS[0]] = other.model_dump_json().encode()
        self.refused(store)

    def test_is_refused_by_its_bytes_where_there_is_no_plan(self) -> None:
        store = left_by_a_planner_that_died(0)
        del store.objects[WORK_BUCKET, PLANS[0]]
        audio = store.objects[WORK_BUCKET, AUDIO[0]]
        store.objects[WORK_BUCKET, AUDIO[0]] = bytes(len(audio))
        self.refused(store)


class TestASlowStore:
    """Back-pressure: while a chunk is being written, the decoder waits; only the blocks of read-ahead come in."""

    def test_keeps_the_decoder_from_working_ahead(self) -> None:
        store = SlowStore({(BUCKET, "talk.mp3"): media.wav(media.tone(240))})
        make_plan(store, length_s=20.0)(work(), RecordedAttempt(store))
        assert len(store.ahead_bytes) > 8
        assert max(store.ahead_bytes) <= MOST_AHEAD_BYTES


MOST_AHEAD_BYTES = (2 + AHEAD_BLOCKS) * BLOCK_BYTES
"""The block that is being decoded, the next one where a chunk ends just behind its start, and those on their way."""


@dataclass
class SlowStore(DictStore):
    """A write takes as long as it needs to see whether too much of the recording is read behind its back."""

    ahead_bytes: list[int] = field(default_factory=list)
    """What was read of the recording beyond the end of the chunk, at the end of each write."""
    chunk_end_bytes: int | None = None
    """Where the chunk ends that is being written."""
    too_far: threading.Event = field(default_factory=threading.Event)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        data = super().read_range(bucket, key, start, length, etag=etag, version_id=version_id)
        if self.chunk_end_bytes is not None and self._ahead(self.chunk_end_bytes) > MOST_AHEAD_BYTES:
            self.too_far.set()
        return data

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        if PLAN.fullmatch(key):
            self.chunk_end_bytes = ChunkPlan.model_validate_json(data).audio[1] * BYTES_PER_SAMPLE
            self.too_far.wait(0.1)
            self.ahead_bytes.append(self._ahead(self.chunk_end_bytes))
            self.chunk_end_bytes = None
        return super().put_new(bucket, key, data, content_type)

    def _ahead(self, end_bytes: int) -> int:
        return max(start + length for start, length in self.reads) - end_bytes


SHAPE = PlanShape(length=160_000, overlap=64_000, max_window_s=12.0)
NOTED = ChunkPlan.of(Chunk(0, Span(0, 1), Span(0, 1), ()), "")


class TestWhatCannotBeRead:
    @pytest.mark.parametrize("data", spoilt(SHAPE, length=0, overlap=-1, max_window_s=None))
    def test_a_shape_is_refused_before_anything_is_cut_in_another_way(self, data: bytes) -> None:
        store = left_by_a_planner_that_died(0)
        store.objects[WORK_BUCKET, KEYS.plan_shape] = data
        before = store.in_work()
        with pytest.raises(UnreadableDocument, match=KEYS.plan_shape):
            take_over(store)
        assert store.in_work() == before

    @pytest.mark.parametrize("data", spoilt(NOTED, audio=[2, 1]))
    def test_a_chunk_whose_plan_is_none_is_refused(self, data: bytes) -> None:
        store = left_by_a_planner_that_died(0)
        store.objects[WORK_BUCKET, PLANS[0]] = data
        with pytest.raises(UnreadableDocument, match=PLANS[0]):
            take_over(store)

    def test_what_a_later_version_adds_is_skipped(self) -> None:
        store = left_by_a_planner_that_died(0)
        for key in (KEYS.plan_shape, PLANS[0]):
            store.objects[WORK_BUCKET, key] = with_more(store.objects[WORK_BUCKET, key])
        assert take_over(store).events == undisturbed()[1]
