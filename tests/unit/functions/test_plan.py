"""Planning, from an object in a store to chunks in the work bucket; the decoder is the real confined process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.audio.vad_silero import silero_windows
from consumer.core.chunks import LEAD, ChunkShape
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.values import SAMPLE_RATE_HZ, Window
from consumer.core.windows import Decided, WindowPolicy
from consumer.errors import (
    AccessDenied,
    Cancelled,
    ChangedObject,
    ChangedRecording,
    EmptyRecording,
    MissingBucket,
    MissingObject,
    MissingRecording,
    NoSoundTrack,
    RecordingTooLarge,
    RecordingTooLong,
    StoreUnavailable,
    UnreadableAudio,
    UnsupportedMedia,
)
from consumer.events import Event, JobOptions, RecordingRef, VadOptions
from consumer.functions.plan import Plan
from consumer.ports import ObjectStat, PutOutcome
from consumer.settings import LimitSettings
from consumer.work import ChunkPlanned, PlanFinished, PlanStarted, PlanWork
from tests import media

BUCKET = "recordings"
WORK_BUCKET = "transcription-work"
RESULTS_BUCKET = "transcription-results"
KEYS = RunKeys("job-1", 1)


@dataclass
class DictStore:
    """An object store in a dictionary; `before_read` may change it or fail while a recording is read."""

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    buckets: set[str] = field(default_factory=lambda: {BUCKET, WORK_BUCKET})
    before_read: Callable[[int], None] = lambda start: None
    reads: list[tuple[int, int]] = field(default_factory=list)

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        data = self._object(bucket, key)
        return ObjectStat(bucket, key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest(), version_id)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        self.before_read(start)
        self.reads.append((start, length))
        if etag is not None and self.stat(bucket, key).etag != etag:
            raise ChangedObject(f"{bucket}/{key} has another etag")
        return self._object(bucket, key)[start : start + length]

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        return self._object(bucket, key)

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        if (bucket, key) in self.objects:
            return PutOutcome(False, self.stat(bucket, key).etag)
        return self.put(bucket, key, data, content_type)

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        self.objects[bucket, key] = data
        return PutOutcome(True, self.stat(bucket, key).etag)

    def bucket_exists(self, bucket: str) -> bool:
        return bucket in self.buckets

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        raise NotImplementedError

    def upload(self, bucket: str, key: str, source: BinaryIO, content_type: str = "") -> ObjectStat:
        raise NotImplementedError

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        raise NotImplementedError

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        raise NotImplementedError

    def delete_exactly(self, pinned: ObjectStat) -> None:
        raise NotImplementedError

    def make_bucket(self, bucket: str) -> None:
        self.buckets.add(bucket)

    def _object(self, bucket: str, key: str) -> bytes:
        if bucket not in self.buckets:
            raise MissingBucket(f"no bucket {bucket}")
        if (bucket, key) not in self.objects:
            raise MissingObject(f"no object {bucket}/{key}")
        return self.objects[bucket, key]


class UnaskedStore(DictStore):
    """A store that nobody may ask anything."""

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        raise AssertionError(f"{bucket}/{key} was asked for")


class RecordedAttempt:
    """Keeps what is announced, with a look at the store at that moment."""

    def __init__(self, store: DictStore) -> None:
        self.number = 1
        self.events: list[Event] = []
        self.keys_at: list[set[str]] = []
        self.stop_after: int | None = None
        self._store = store

    def announce(self, *events: Event) -> None:
        self.events.extend(events)
        self.keys_at.extend({key for bucket, key in self._store.objects if bucket == WORK_BUCKET} for _ in events)

    def report(self, event: Event) -> None:
        raise AssertionError("planning reports nothing")

    def check(self) -> None:
        if self.stop_after is not None and len(self.events) > self.stop_after:
            raise Cancelled("the job was cancelled")

    @property
    def started(self) -> PlanStarted:
        assert isinstance(self.events[0], PlanStarted)
        return self.events[0]

    @property
    def chunks(self) -> list[ChunkPlanned]:
        return [event for event in self.events if isinstance(event, ChunkPlanned)]


class LoudWindows:
    """A policy for tests: every second whose loudest sample is over a threshold is a window. Pure and exact."""

    def __init__(self) -> None:
        self._rest = np.empty(0, dtype=np.int16)
        self._second = 0
        self._count = 0
        self._total = 0

    def feed(self, samples: NDArray[np.int16]) -> Decided:
        self._total += len(samples)
        self._rest = np.concatenate([self._rest, samples])
        windows = []
        while len(self._rest) >= SAMPLE_RATE_HZ:
            windows += self._window(self._rest[:SAMPLE_RATE_HZ])
            self._rest = self._rest[SAMPLE_RATE_HZ:]
        return Decided(tuple(windows), self._second * SAMPLE_RATE_HZ)

    def finish(self) -> Decided:
        return Decided((), self._total)

    def _window(self, second: NDArray[np.int16]) -> list[Window]:
        start, self._second = self._second, self._second + 1
        if np.abs(second).max() < 1000:
            return []
        self._count += 1
        return [Window(self._count - 1, float(start), float(start + 1))]


def work(options: JobOptions | None = None, **ref: str) -> PlanWork:
    recording = RecordingRef(**{"bucket": BUCKET, "key": "talk.mp3", **ref})
    return PlanWork(job_id="job-1", run=1, epoch=3, recording=recording, options=options or JobOptions())


def make_plan(
    store: DictStore,
    windows_for: Callable[[JobOptions], WindowPolicy] = lambda _: LoudWindows(),
    length_s: float = 10.0,
    overlap_s: float = 4.0,
    limits: LimitSettings | None = None,
) -> Plan:
    return Plan(
        store,
        WORK_BUCKET,
        ChunkShape(length_s, overlap_s, 100_000_000),
        limits or LimitSettings(),
        windows_for,
        max_window_s=lambda _: 12.0,
        min_overlap_s=lambda _: 2.0,
        clock=iter([100.0, 107.5]).__next__,
        results_bucket=RESULTS_BUCKET,
    )


def run(data: bytes, **settings: object) -> tuple[PlanFinished, RecordedAttempt, DictStore]:
    store = DictStore({(BUCKET, "talk.mp3"): data})
    attempt = RecordedAttempt(store)
    return make_plan(store, **settings)(work(), attempt), attempt, store  # type: ignore[arg-type]


def stored_plan(store: DictStore, index: int) -> ChunkPlan:
    return ChunkPlan.model_validate_json(store.objects[WORK_BUCKET, KEYS.chunk_plan(index)])


def stored_samples(store: DictStore, key: str) -> NDArray[np.int16]:
    return np.frombuffer(store.objects[WORK_BUCKET, key], dtype="<i2")


SPEECH = media.tone(33.5)
SAMPLES = media.s16(SPEECH)[:, 0]


class TestAPlan:
    def test_stores_chunks_that_tile_the_recording_with_their_audio(self) -> None:
        finished, _, store = run(media.wav(SPEECH))
        plans = [stored_plan(store, i) for i in range(finished.chunks_total)]
        assert [p.span for p in plans] == [(0, 160_000), (160_000, 320_000), (320_000, 536_000)]
        assert [p.audio for p in plans] == [(0, 224_000), (160_000 - LEAD, 384_000), (320_000 - LEAD, 536_000)]
        assert [p.is_last for p in plans] == [False, False, True]
        assert [p.recording_samples for p in plans] == [None, None, 536_000]
        for plan in plans:
            audio = stored_samples(store, KEYS.chunk_audio(plan.index))
            assert np.array_equal(audio, SAMPLES[slice(*plan.audio)])
            assert plan.audio_sha256 == hashlib.sha256(audio.tobytes()).hexdigest()

    def test_announces_each_chunk_in_order_when_it_is_stored(self) -> None:
        finished, attempt, _ = run(media.wav(SPEECH))
        assert [c.chunk_index for c in attempt.chunks] == [0, 1, 2]
        assert [(c.start_s, c.end_s, c.windows) for c in attempt.chunks] == [(0, 10, 10), (10, 20, 10), (20, 33.5, 13)]
        for event, keys in zip(attempt.events, attempt.keys_at, strict=True):
            if isinstance(event, ChunkPlanned):
                assert {KEYS.chunk_audio(event.chunk_index), KEYS.chunk_plan(event.chunk_index)} <= keys
        assert {e.epoch for e in attempt.chunks} == {3} == {finished.epoch}

    def test_pins_the_recording_before_the_first_chunk(self) -> None:
        data = media.wav(SPEECH)
        finished, attempt, _ = run(data)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert (attempt.started.etag, attempt.started.size_bytes) == (etag, len(data))
        assert attempt.started.duration_hint_s == pytest.approx(33.5)
        assert finished.recording.etag == etag

    def test_says_what_it_found_out(self) -> None:
        finished, _, _ = run(media.encode(media.tone(6, 48_000, 2), 48_000, "flac", "flac"))
        facts = finished.recording
        assert (facts.media_type, facts.channels, facts.sample_rate_hz) == ("audio/flac", 2, 48_000)
        assert facts.duration_s == pytest.approx(6, abs=0.02)
        assert facts.speech_s == pytest.approx(6, abs=1)
        assert (finished.plan_s, finished.warnings) == (7.5, ())

    def test_raises_the_overlap_to_what_the_engine_needs(self) -> None:
        _, _, store = run(media.wav(SPEECH), overlap_s=0.0)
        assert stored_plan(store, 0).audio == (0, 192_000)

    def test_gives_the_policy_no_longer_windows_than_the_model_takes(self) -> None:
        asked: list[float | None] = []

        def windows_for(options: JobOptions) -> WindowPolicy:
            asked.append(options.vad.max_window_s)
            return LoudWindows()

        store = DictStore({(BUCKET, "talk.mp3"): media.wav(media.tone(2))})
        for wanted_s in (None, 30.0, 5.0):
            options = JobOptions(vad=VadOptions(max_window_s=wanted_s))
            make_plan(store, windows_for)(work(options), RecordedAttempt(store))
            del store.objects[WORK_BUCKET, KEYS.plan_shape]
        assert asked == [12.0, 12.0, 5.0]

    def test_keeps_the_windows_whatever_the_length_of_the_chunks(self) -> None:
        voice = media.buzz([(1, 4), (5, 11), (13, 14), (19, 30)], 33)
        found = []
        for length_s in (3.0, 10.0, 60.0):
            finished, _, store = run(
                media.wav(voice), windows_for=lambda o: silero_windows(o.vad, 12.0), length_s=length_s
            )
            plans = [stored_plan(store, i) for i in range(finished.chunks_total)]
            found.append([w for p in plans for w in p.windows])
            assert all(a.span[1] == b.span[0] for a, b in pairwise(plans))
        assert found[0] == found[1] == found[2]
        assert len(found[0]) >= 3

    def test_starts_over_and_finds_what_it_wrote(self) -> None:
        _, first, store = run(media.wav(SPEECH))
        before = dict(store.objects)
        again = RecordedAttempt(store)
        finished = make_plan(store)(work(), again)
        assert store.objects == before
        assert (again.chunks, finished.chunks_total) == (first.chunks, 3)

    def test_starts_over_with_the_lengths_of_the_first_try_whatever_the_settings_are_now(self) -> None:
        _, first, store = run(media.wav(SPEECH))
        before = dict(store.objects)
        again = RecordedAttempt(store)
        make_plan(store, length_s=4.0, overlap_s=8.0)(work(), again)
        assert store.objects == before
        assert again.chunks == first.chunks

    def test_never_mixes_chunks_of_two_recordings_even_if_nobody_heard_of_the_first_try(self) -> None:
        _, _, store = run(media.wav(SPEECH))
        store.objects[BUCKET, "talk.mp3"] = media.wav(media.tone(60))
        before = dict(store.objects)
        with pytest.raises(ChangedRecording):
            make_plan(store)(work(), RecordedAttempt(store))
        assert store.objects == before

    def test_stops_while_the_decoder_only_reads(self) -> None:
        """The sound of a film may stand gigabytes behind its beginning."""
        store = DictStore({(BUCKET, "talk.mp3"): media.FORMATS["m4a-index-at-end"](media.tone(60), 16_000)})
        attempt = RecordedAttempt(store)
        attempt.stop_after = -1
        with pytest.raises(Cancelled):
            make_plan(store)(work(), attempt)
        assert attempt.events == []

    def test_stops_between_blocks_when_the_job_is_cancelled(self) -> None:
        store = DictStore({(BUCKET, "talk.mp3"): media.wav(media.tone(60))})
        attempt = RecordedAttempt(store)
        attempt.stop_after = 2
        with pytest.raises(Cancelled):
            make_plan(store)(work(), attempt)
        assert len(attempt.chunks) == 2


class TestTheLanguageSample:
    def test_holds_the_first_thirty_seconds_of_speech_whatever_the_chunks(self) -> None:
        signal = np.concatenate([media.silence(3), media.tone(20), media.silence(5), media.tone(20)], axis=1)
        expected = media.s16(signal)[:, 0]
        expected = np.concatenate([expected[3 * 16_000 : 23 * 16_000], expected[28 * 16_000 : 38 * 16_000]])
        for length_s in (5.0, 20.0, 300.0):
            _, _, store = run(media.wav(signal), length_s=length_s)
            assert np.array_equal(stored_samples(store, KEYS.language_sample), expected)

    def test_is_ready_from_the_chunk_on_that_is_announced_after_it_was_stored(self) -> None:
        _, attempt, _ = run(media.wav(media.tone(60)))
        ready = [c.sample_ready for c in attempt.chunks]
        assert (ready[0], ready[-1], ready) == (False, True, sorted(ready))
        stored = [KEYS.language_sample in keys for keys in attempt.keys_at[1:]]
        assert stored == ready

    def test_is_empty_when_nothing_is_said(self) -> None:
        finished, attempt, store = run(media.wav(media.silence(12)))
        assert store.objects[WORK_BUCKET, KEYS.language_sample] == b""
        assert attempt.chunks[-1].sample_ready
        assert [w.code for w in finished.warnings] == ["NO_SPEECH"]
        assert finished.recording.speech_s == 0


class TestARecordingThatIsRefused:
    """Early, with a code, and with nothing left behind."""

    def refused(self, data: bytes | None, error: type[Exception], limits: LimitSettings | None = None) -> DictStore:
        store = DictStore({} if data is None else {(BUCKET, "talk.mp3"): data})
        with pytest.raises(error) as caught:
            make_plan(store, limits=limits)(work(), RecordedAttempt(store))
        assert "recordings/talk.mp3" in str(caught.value)
        assert {key for bucket, key in store.objects if bucket == WORK_BUCKET} <= {KEYS.plan_shape}
        return store

    def test_because_it_is_missing(self) -> None:
        self.refused(None, MissingRecording)

    def test_because_it_has_no_bytes(self) -> None:
        assert self.refused(b"", EmptyRecording).reads == []

    def test_because_it_is_too_large_before_a_byte_is_read(self) -> None:
        limits = LimitSettings(max_recording_bytes=1000)
        assert self.refused(media.wav(SPEECH), RecordingTooLarge, limits).reads == []

    def test_because_it_is_too_long_by_its_header(self) -> None:
        self.refused(media.wav(SPEECH), RecordingTooLong, LimitSettings(max_duration_s=20))

    def test_because_it_is_a_text_that_is_named_mp3(self) -> None:
        self.refused(b"Dear all, please find the recording attached.\n" * 50, UnsupportedMedia)

    def test_because_it_is_a_header_without_samples(self) -> None:
        self.refused(media.wav_header(0), EmptyRecording)

    def test_because_it_is_a_film_without_sound(self) -> None:
        self.refused(media.silent_film(), NoSoundTrack)

    def test_because_its_index_is_cut_off(self) -> None:
        m4a = media.FORMATS["m4a-index-at-end"](media.tone(5), 16_000)
        self.refused(m4a[: len(m4a) // 2], UnreadableAudio)

    def test_because_it_has_too_many_channels(self) -> None:
        self.refused(media.wav(media.tone(1, channels=4)), UnsupportedMedia, LimitSettings(max_channels=2))

    def test_because_its_etag_is_not_the_one_that_was_asked_for(self) -> None:
        store = DictStore({(BUCKET, "talk.mp3"): media.wav(SPEECH)})
        with pytest.raises(ChangedRecording):
            make_plan(store)(work(etag="0" * 32), RecordedAttempt(store))

    def test_because_there_is_no_such_bucket(self) -> None:
        store = DictStore()
        with pytest.raises(MissingBucket):
            make_plan(store)(work(bucket="nowhere"), RecordedAttempt(store))

    @pytest.mark.parametrize(
        ("bucket", "key", "allowed"),
        [
            (WORK_BUCKET, "talk.mp3", ()),
            (WORK_BUCKET, "talk.mp3", (WORK_BUCKET,)),
            (RESULTS_BUCKET, "talk.mp3", ()),
            (RESULTS_BUCKET, "talk.mp3", (RESULTS_BUCKET, f"{RESULTS_BUCKET}/talk.mp3/")),
            (BUCKET, "talk.mp3", ("calls",)),
            (BUCKET, "talk.mp3", (f"{BUCKET}/calls/",)),
            (BUCKET, "calls-secret/talk.mp3", (f"{BUCKET}/calls/",)),
            (BUCKET, "calls", (f"{BUCKET}/calls/",)),
        ],
    )
    def test_because_jobs_may_not_read_that_place(self, bucket: str, key: str, allowed: tuple[str, ...]) -> None:
        """And the store is not asked: whether there is such an object is not told either."""
        store = UnaskedStore({(bucket, key): media.wav(SPEECH)})
        with pytest.raises(AccessDenied, match="allow"):
            make_plan(store, limits=LimitSettings(allowed_buckets=allowed))(
                work(bucket=bucket, key=key), RecordedAttempt(store)
            )

    def test_and_not_because_its_prefix_is_allowed(self) -> None:
        store = DictStore({(BUCKET, "calls/2024/talk.mp3"): media.wav(SPEECH)})
        plan = make_plan(store, limits=LimitSettings(allowed_buckets=("other", f"{BUCKET}/calls/")))
        assert plan(work(key="calls/2024/talk.mp3"), RecordedAttempt(store)).chunks_total == 3


class TestPlacesThatJobsMayName:
    PLACES = LimitSettings(allowed_buckets=("calls/team-a/", "open"))

    @pytest.mark.parametrize(("bucket", "key"), [("calls", "team-a/1.wav"), ("open", "1.wav"), ("open", "x/1.wav")])
    def test_are_read(self, bucket: str, key: str) -> None:
        store = DictStore({(bucket, key): media.wav(SPEECH)}, buckets={WORK_BUCKET, bucket})
        done = make_plan(store, limits=self.PLACES)(work(bucket=bucket, key=key), RecordedAttempt(store))
        assert done.recording.key == key

    @pytest.mark.parametrize(
        ("bucket", "key"),
        [("calls", "1.wav"), ("calls", "team-a"), ("calls", "team-abc/1.wav"), ("call", "s/team-a/1.wav")],
    )
    def test_end_where_they_are_said_to_end(self, bucket: str, key: str) -> None:
        store = DictStore({(bucket, key): media.wav(SPEECH)})
        with pytest.raises(AccessDenied, match="allowed_buckets"):
            make_plan(store, limits=self.PLACES)(work(bucket=bucket, key=key), RecordedAttempt(store))


class TestARecordingThatChangesWhileItIsRead:
    def long_store(self) -> DictStore:
        return DictStore({(BUCKET, "talk.mp3"): media.wav(media.tone(120))})  # four blocks of read-ahead

    def test_is_refused_when_it_is_overwritten(self) -> None:
        store = self.long_store()

        def overwrite(start: int) -> None:
            if start >= 2 << 20:
                store.put(BUCKET, "talk.mp3", media.wav(media.tone(120, hz=300.0)))

        store.before_read = overwrite
        attempt = RecordedAttempt(store)
        with pytest.raises(ChangedRecording) as caught:
            make_plan(store)(work(), attempt)
        assert caught.value.code == "SOURCE_CHANGED"
        assert attempt.chunks, "what was planned before the change had been announced"

    def test_is_refused_when_it_is_deleted(self) -> None:
        store = self.long_store()

        def delete(start: int) -> None:
            if start >= 2 << 20:
                del store.objects[BUCKET, "talk.mp3"]

        store.before_read = delete
        with pytest.raises(MissingRecording):
            make_plan(store)(work(), RecordedAttempt(store))

    def test_may_be_tried_again_when_the_store_does_not_answer(self) -> None:
        store = self.long_store()

        def fail(start: int) -> None:
            if start >= 2 << 20:
                raise StoreUnavailable("the store does not answer")

        store.before_read = fail
        with pytest.raises(StoreUnavailable):
            make_plan(store)(work(), RecordedAttempt(store))


class TestAnOddRecording:
    def test_that_breaks_off_is_used_as_far_as_it_goes(self) -> None:
        mp3 = media.FORMATS["mp3-cbr"](media.tone(20), 16_000)
        finished, _, _ = run(mp3[: len(mp3) // 2 + 77])
        assert finished.recording.duration_s == pytest.approx(10, abs=0.5)
        assert [w.code for w in finished.warnings] == ["RECORDING_TRUNCATED"]
        assert finished.warnings[0].stage == "plan"

    def test_with_four_channels_is_mixed(self) -> None:
        finished, _, store = run(media.wav(media.tone(5, channels=4)))
        assert finished.recording.channels == 4
        mixed = stored_samples(store, KEYS.chunk_audio(0)).astype(np.float64)
        spectrum = np.abs(np.fft.rfft(mixed[:80_000]))
        for channel in range(4):
            peak = 440 * 2**channel * 5  # five seconds: 0.2 Hz per bin
            assert spectrum[peak - 10 : peak + 10].max() > 50 * np.median(spectrum)

    def test_of_one_sample_is_one_chunk(self) -> None:
        finished, attempt, _ = run(media.wav(np.full((1, 1), 0.5, dtype=np.float32)))
        assert finished.chunks_total == 1
        assert attempt.chunks[0].windows == 0
