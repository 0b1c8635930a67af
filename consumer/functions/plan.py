"""Plan: from the recording in the object store to chunks with their audio and windows.

One streaming pass: bytes → samples → windows → chunks. Each chunk is stored and announced as soon as its span and
overlap are decoded. What is kept in memory is the audio of one chunk and a few blocks, whatever the recording. Where
channels are kept apart, each has windows and (shorter) chunks of its own.

Every key is deterministic and written once, so a planner that starts over finds what it wrote before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from consumer.audio.decode import Decoding, decode
from consumer.audio.limits import RecordingLimits
from consumer.audio.source import ReadAhead
from consumer.core.chunks import LEAD, ChunkOrder, ChunkShape
from consumer.core.places import may_be_read
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Chunk, Span, Window, to_seconds
from consumer.core.windows import Decided, WindowPolicy
from consumer.errors import (
    AccessDenied,
    ChangedObject,
    ChangedRecording,
    EmptyRecording,
    MissingObject,
    MissingRecording,
    RecordingTooLarge,
)
from consumer.events import JobOptions, Problem, RecordingFacts, RecordingRef
from consumer.functions.chunk_audio import ChunkWriter, PcmBuffer
from consumer.ports import Attempt, ObjectStat, ObjectStore
from consumer.work import ChunkPlanned, PlanFinished, PlanStarted, PlanWork, keys_of

SAMPLE_S: Final = 30.0
"""Speech that the language is detected on, in seconds: what Whisper looks at."""

SAMPLE_BYTES: Final = int(SAMPLE_S * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE  # 960_000

WindowsFor = Callable[[JobOptions], WindowPolicy]
ForModel = Callable[[str | None], float]
Clock = Callable[[], float]


class Plan:
    """Plan a recording.

    Jobs read neither `work_bucket` nor `results_bucket`. `windows_for` makes the window policy of a job; it finds in
    `options.vad.max_window_s` what the model takes.
    `max_window_s` and `min_overlap_s` are what the engine says of a model; `clock` gives seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        work_bucket: str,
        chunks: ChunkShape,
        limits: RecordingLimits,
        windows_for: WindowsFor,
        max_window_s: ForModel,
        min_overlap_s: ForModel,
        clock: Clock,
        results_bucket: str = "",
    ) -> None:
        self._store = store
        self._work_bucket = work_bucket
        self._our_buckets = {work_bucket, results_bucket}
        self._chunks = chunks
        self._limits = limits
        self._windows_for = windows_for
        self._max_window_s = max_window_s
        self._min_overlap_s = min_overlap_s
        self._clock = clock

    def __call__(self, work: PlanWork, attempt: Attempt) -> PlanFinished:
        """Store and announce all chunks.

        Raises Rejected errors for what is wrong with the recording (missing, changed, empty, too large, too long,
        not readable), StoreUnavailable and DecoderCrashed for what may work later, Stopped when nobody wants it.
        """
        started_s = self._clock()
        stat = self._pin(work.recording)
        with ReadAhead(StoredRecording(self._store, stat)) as source:
            return self._planned(work, attempt, stat, source, started_s)

    def _planned(
        self, work: PlanWork, attempt: Attempt, stat: ObjectStat, source: ReadAhead, started_s: float
    ) -> PlanFinished:
        options = work.options
        track, by_channel = options.track, options.multichannel
        decoded = decode(source, self._limits, track=track, by_channel=by_channel, on_read=attempt.check)
        with decoded as decoding:
            attempt.announce(_started(work, stat, decoding, self._limits.max_duration_s))
            planning = self._planning(work, attempt, stat, decoding.streams)
            for samples in decoding.channels():
                attempt.check()
                planning.feed(samples)
            planning.finish()
            return PlanFinished(
                job_id=work.job_id,
                run=work.run,
                epoch=work.epoch,
                chunks_total=planning.chunks,
                recording=_facts(stat, decoding, planning),
                plan_s=self._clock() - started_s,
                warnings=(*decoding.warnings, *_silence(stat, planning)),
            )

    def _pin(self, ref: RecordingRef) -> ObjectStat:
        """What is read from now on, checked against the limits before a byte is read."""
        self._check_place(ref)
        try:
            stat = self._store.stat(ref.bucket, ref.key, ref.version_id)
        except MissingObject as exc:
            raise _missing(ref.bucket, ref.key) from exc
        if ref.etag is not None and ref.etag != stat.etag:
            raise _changed(ref.bucket, ref.key)
        name = f"{ref.bucket}/{ref.key}"
        if stat.size_bytes == 0:
            raise EmptyRecording(f"{name} has no bytes; upload the recording again", key=name)
        if stat.size_bytes > self._limits.max_recording_bytes:
            raise RecordingTooLarge(
                f"{name} has {stat.size_bytes} bytes, the limit is {self._limits.max_recording_bytes}; "
                "send it compressed or in parts",
                key=name,
                size_bytes=stat.size_bytes,
            )
        return stat

    def _check_place(self, ref: RecordingRef) -> None:
        """Before the store is asked: even whether an object exists is nobody's business who may not read it."""
        allowed, bucket, key = self._limits.allowed_buckets, ref.bucket, ref.key
        if bucket in self._our_buckets or (allowed and not may_be_read(allowed, bucket, key)):
            raise AccessDenied(
                f"jobs may not read {bucket}/{key}; put the recording into another place or allow it in the settings "
                "(limits.allowed_buckets)",
                bucket=bucket,
                key=key,
            )

    def _planning(self, work: PlanWork, attempt: Attempt, stat: ObjectStat, channels: int) -> Planning:
        model, asked_s = work.options.model, work.options.vad.max_window_s
        wanted = self._chunks.fit(
            min(self._max_window_s(model), asked_s or float("inf")),
            self._min_overlap_s(model),
            channels,
        )
        writer = ChunkWriter(self._store, self._work_bucket, keys_of(work))
        shape = writer.agree(wanted.model_copy(update={"etag": stat.etag}))
        if shape.etag not in ("", stat.etag):
            raise _changed(stat.bucket, stat.key)
        vad = work.options.vad.model_copy(update={"max_window_s": shape.max_window_s})
        options = work.options.model_copy(update={"vad": vad})
        order = ChunkOrder([shape.planner() for _ in range(channels)])
        return Planning(work, attempt, writer, order, [self._windows_for(options) for _ in range(channels)])


class Planning:
    """One recording on its way through: what is decoded and not stored yet, and what was found out so far."""

    def __init__(
        self,
        work: PlanWork,
        attempt: Attempt,
        writer: ChunkWriter,
        order: ChunkOrder,
        policies: Sequence[WindowPolicy],
    ) -> None:
        """One window policy for each channel."""
        self._work = work
        self._attempt = attempt
        self._writer = writer
        self._order = order
        self._policies = tuple(policies)
        self._pcm = tuple(PcmBuffer() for _ in policies)
        self._sample = LanguageSample(len(policies))
        self.chunks = 0
        self.windows = 0
        self.speech_samples = 0

    @property
    def samples(self) -> int:
        return self._pcm[0].end

    def feed(self, samples: NDArray[np.int16]) -> None:
        """Take the next samples, (channels, n_samples)."""
        decided = []
        for channel, policy in enumerate(self._policies):
            self._pcm[channel].append(samples[channel])
            decided.append(_of_channel(policy.feed(samples[channel]), channel))
        self._hear(decided)
        self._store(self._order.advance(decided, self.samples))

    def finish(self) -> None:
        decided = [_of_channel(policy.finish(), channel) for channel, policy in enumerate(self._policies)]
        self._hear(decided)
        if not self._sample.is_stored:
            self._sample.store(self._writer)
        self._store(self._order.finish(decided, self.samples))

    def _hear(self, decided: Sequence[Decided]) -> None:
        """Count the windows, and keep the first of them for the detection of the language."""
        for window in [window for one in decided for window in one.windows]:
            self.windows += 1
            self.speech_samples += window.span.length
            self._sample.add(window, self._pcm[window.channel])
        if not self._sample.is_stored and self._sample.is_full(min(one.upto for one in decided)):
            self._sample.store(self._writer)

    def _store(self, chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            self._attempt.check()
            pcm = self._pcm[chunk.channel]
            self._writer.put(chunk, pcm)
            pcm.drop_before(max(chunk.span.end - LEAD, 0))
            self.chunks += 1
            self._attempt.announce(
                ChunkPlanned(
                    job_id=self._work.job_id,
                    run=self._work.run,
                    epoch=self._work.epoch,
                    chunk_index=chunk.index,
                    start_s=chunk.span.start_s,
                    end_s=chunk.span.end_s,
                    windows=len(chunk.windows),
                    sample_ready=self._sample.is_stored,
                )
            )


class LanguageSample:
    """The first 30 s of speech of the recording, the same however it is cut into chunks.

    Windows of several channels are taken by their starts, then by channel. Kept are the first 30 s of each channel, as
    it is not known yet which of them are the first of all.
    """

    def __init__(self, channels: int = 1) -> None:
        self._room = [int(SAMPLE_S * SAMPLE_RATE_HZ)] * channels
        self._heard: list[tuple[int, int, bytes]] = []
        """(first sample, channel, sound) of each window."""
        self.is_stored = False

    def is_full(self, decided_upto: int) -> bool:
        """Whether windows that start before that sample, of which no more come, are enough."""
        sure = sum(len(sound) for start, _, sound in self._heard if start < decided_upto)
        return sure >= SAMPLE_BYTES

    def add(self, window: Window, pcm: PcmBuffer) -> None:
        span, room = window.span, self._room[window.channel]
        if room > 0 and not self.is_stored:
            sound = pcm.slice(Span(span.start, min(span.end, span.start + room)))
            self._heard.append((span.start, window.channel, sound))
            self._room[window.channel] -= len(sound) // BYTES_PER_SAMPLE

    def store(self, writer: ChunkWriter) -> None:
        """Empty when nothing was said: then there is no language to detect."""
        writer.put_sample(b"".join(sound for _, _, sound in sorted(self._heard))[:SAMPLE_BYTES])
        self._heard.clear()
        self.is_stored = True


class StoredRecording:
    """The pinned object as a source of ranges: every read asks for the same etag and version."""

    def __init__(self, store: ObjectStore, stat: ObjectStat) -> None:
        self._store = store
        self._stat = stat

    @property
    def name(self) -> str:
        return f"{self._stat.bucket}/{self._stat.key}"

    @property
    def size_bytes(self) -> int:
        return self._stat.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        stat = self._stat
        try:
            return self._store.read_range(
                stat.bucket, stat.key, offset, length, etag=stat.etag, version_id=stat.version_id
            )
        except ChangedObject as exc:
            raise _changed(stat.bucket, stat.key) from exc
        except MissingObject as exc:
            raise _missing(stat.bucket, stat.key) from exc


def _of_channel(decided: Decided, channel: int) -> Decided:
    """Window policies know of one channel only."""
    if not channel:
        return decided
    return Decided(tuple(replace(window, channel=channel) for window in decided.windows), decided.upto)


def _missing(bucket: str, key: str) -> MissingRecording:
    return MissingRecording(f"there is no recording {bucket}/{key} (any more); upload it, then send the job", key=key)


def _changed(bucket: str, key: str) -> ChangedRecording:
    return ChangedRecording(
        f"{bucket}/{key} is no longer the object that the job pinned; send the job again for the new one", key=key
    )


def _started(work: PlanWork, stat: ObjectStat, decoding: Decoding, max_duration_s: float) -> PlanStarted:
    """A length that is only a guess can be anything, and a decoder that was taken over can make one up. Other jobs wait
    for what is planned, so it counts for no more than the longest recording that is taken."""
    hint_s = decoding.facts.duration_hint_s
    return PlanStarted(
        job_id=work.job_id,
        run=work.run,
        epoch=work.epoch,
        etag=stat.etag,
        version_id=stat.version_id,
        size_bytes=stat.size_bytes,
        duration_hint_s=min(hint_s, max_duration_s) if hint_s is not None and hint_s > 0 else None,
        streams=decoding.streams,
        modified_at=stat.modified_at,
    )


def _facts(stat: ObjectStat, decoding: Decoding, planning: Planning) -> RecordingFacts:
    return RecordingFacts(
        bucket=stat.bucket,
        key=stat.key,
        version_id=stat.version_id,
        etag=stat.etag,
        size_bytes=stat.size_bytes,
        media_type=decoding.facts.media_type,
        duration_s=to_seconds(planning.samples),
        speech_s=to_seconds(planning.speech_samples),
        channels=decoding.facts.channels,
        sample_rate_hz=decoding.facts.sample_rate_hz,
        track=decoding.facts.track,
        tracks=decoding.facts.tracks,
    )


def _silence(stat: ObjectStat, planning: Planning) -> Iterator[Problem]:
    if not planning.windows:
        yield Problem(
            code="NO_SPEECH",
            message=f"no speech was found in {stat.bucket}/{stat.key}; the transcript is empty; check the microphone",
            stage="plan",
        )
