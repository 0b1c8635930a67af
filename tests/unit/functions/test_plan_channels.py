"""Planning a recording channel by channel: windows, chunks and the language sample of each and of all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer.core.chunks import LEAD
from consumer.core.values import Window
from consumer.core.windows import Decided, VoiceShape, WindowPolicy, Windows
from consumer.errors import MissingTrack, TooManyChannels
from consumer.events import JobOptions
from consumer.functions import plan as plan_module
from consumer.functions.chunk_audio import PcmBuffer
from consumer.functions.plan import LanguageSample
from consumer.settings import LimitSettings
from consumer.work import ChunkPlanned, PlanFinished
from tests import media
from tests.unit.functions.test_plan import (
    BUCKET,
    KEYS,
    WORK_BUCKET,
    DictStore,
    LoudWindows,
    RecordedAttempt,
    make_plan,
    stored_plan,
    stored_samples,
    work,
)


class LoudStretches:
    """A policy for tests with the program's own way of making windows from a simple idea of voice: what is loud."""

    FRAME = 1_600

    def __init__(self) -> None:
        self._windows = Windows(VoiceShape(max_window_s=12.0), self.FRAME)
        self._rest = np.empty(0, dtype=np.int16)
        self._total = 0

    def feed(self, samples: NDArray[np.int16]) -> Decided:
        self._total += len(samples)
        rest = np.concatenate([self._rest, samples])
        full = len(rest) // self.FRAME * self.FRAME
        self._rest = rest[full:]
        loud = np.abs(rest[:full]).reshape(-1, self.FRAME).max(axis=1) > 1_000
        return self._windows.feed(loud.astype(float).tolist())

    def finish(self) -> Decided:
        return self._windows.finish(self._total)


APART = JobOptions(multichannel=True)


class Planned:
    """A plan with what it left and said."""

    def __init__(self, data: bytes, options: JobOptions = APART, store: DictStore | None = None, **how: object) -> None:
        self.store = store or DictStore({(BUCKET, "talk.mp3"): data})
        self.attempt = RecordedAttempt(self.store)
        self.finished: PlanFinished = make_plan(self.store, **how)(work(options), self.attempt)  # type: ignore[arg-type]
        self.plans = [stored_plan(self.store, index) for index in range(self.finished.chunks_total)]

    @property
    def announced(self) -> list[ChunkPlanned]:
        return self.attempt.chunks

    @property
    def sample(self) -> NDArray[np.int16]:
        return stored_samples(self.store, KEYS.language_sample)

    def windows(self, channel: int) -> list[tuple[float, float]]:
        plans = [plan for plan in self.plans if plan.channel == channel]
        return [(start_s, end_s) for plan in plans for _, start_s, end_s, _ in plan.windows]


def speech(*spans_s: tuple[int, int], seconds: int = 60, hz: float = 440.0) -> NDArray[np.float32]:
    """A channel with a tone in these seconds."""
    heard = np.zeros(seconds * 16_000, dtype=np.float32)
    for start_s, end_s in spans_s:
        heard[start_s * 16_000 : end_s * 16_000] = media.tone(end_s - start_s, hz=hz)[0]
    return heard


TWO = np.stack([speech((1, 12), (20, 24), (50, 60)), speech((5, 6), (12, 20), (24, 50), hz=300.0)])


class TestAPlanByChannel:
    def test_gives_each_channel_the_windows_that_it_has_alone(self) -> None:
        planned = Planned(media.wav(TWO))
        for channel in range(2):
            alone = Planned(media.wav(TWO[channel : channel + 1]), JobOptions())
            assert planned.windows(channel) == alone.windows(0)
            assert {w[3] for plan in planned.plans if plan.channel == channel for w in plan.windows} == {channel}
            indices = [w[0] for plan in planned.plans if plan.channel == channel for w in plan.windows]
            assert indices == list(range(len(indices)))

    def test_stores_chunks_of_each_channel_that_tile_the_recording_with_its_own_sound(self) -> None:
        planned = Planned(media.wav(TWO), length_s=20.0)
        sounds = media.s16(TWO).T
        assert {plan.channel for plan in planned.plans} == {0, 1}
        for channel in range(2):
            plans = [plan for plan in planned.plans if plan.channel == channel]
            assert (plans[0].span[0], plans[-1].span[1]) == (0, 60 * 16_000)
            assert all(a.span[1] == b.span[0] for a, b in pairwise(plans))
            for plan in plans:
                assert plan.audio[0] == max(plan.span[0] - LEAD, 0)
                stored = stored_samples(planned.store, KEYS.chunk_audio(plan.index))
                assert np.array_equal(stored, sounds[channel, slice(*plan.audio)])

    def test_announces_them_in_one_order_by_their_ends(self) -> None:
        planned = Planned(media.wav(TWO), length_s=20.0)
        assert [chunk.chunk_index for chunk in planned.announced] == list(range(planned.finished.chunks_total))
        ends = [chunk.end_s for chunk in planned.announced]
        assert ends == sorted(ends)
        assert planned.attempt.started.streams == 2

    def test_says_of_the_recording_what_it_is(self) -> None:
        facts = Planned(media.wav(TWO)).finished.recording
        assert (facts.channels, facts.duration_s, facts.speech_s) == (2, 60, 60)

    def test_shares_the_length_of_a_chunk_among_the_channels(self) -> None:
        planned = Planned(media.wav(TWO), length_s=20.0)
        assert planned.plans[0].span[1] == 10 * 16_000

    def test_keeps_in_memory_about_what_one_chunk_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kept: dict[PcmBuffer, int] = {}
        peaks: list[int] = []

        class Watched(PcmBuffer):
            def append(self, samples: NDArray[np.int16]) -> None:
                super().append(samples)
                kept[self] = len(self._bytes)
                peaks.append(sum(kept.values()))

        monkeypatch.setattr(plan_module, "PcmBuffer", Watched)
        # Voices that pause at other times in each channel; the last says a word a minute.
        voices = [speech(*((s + k, s + 4 + k) for s in range(0, 290, 5)), seconds=300) for k in range(3)]
        rare = speech(*((s, s + 1) for s in range(0, 300, 60)), seconds=300)
        data = media.wav(np.stack([*voices, rare]))
        Planned(data, windows_for=lambda _: LoudStretches(), length_s=80.0, overlap_s=10.0)
        apart = max(peaks)
        peaks.clear()
        kept.clear()
        Planned(data, JobOptions(), windows_for=lambda _: LoudStretches(), length_s=80.0, overlap_s=10.0)
        overlaps_and_windows = 3 * 2 * 16_000 * (10 + 12)  # of each further channel, besides its share of the length
        assert apart <= max(peaks) + overlaps_and_windows

    def test_of_a_mono_recording_is_that_of_one_channel(self) -> None:
        mono = media.wav(TWO[:1])
        apart, mixed = Planned(mono), Planned(mono, JobOptions())
        assert apart.plans == mixed.plans
        assert apart.store.objects == mixed.store.objects

    def test_starts_over_and_finds_what_it_wrote(self) -> None:
        planned = Planned(media.wav(TWO), length_s=20.0)
        before = dict(planned.store.objects)
        again = Planned(b"", store=planned.store, length_s=44.0, overlap_s=9.0)
        assert again.store.objects == before
        assert again.announced == planned.announced

    def test_finds_no_speech_only_where_no_channel_has_any(self) -> None:
        silent = np.stack([speech(seconds=20), speech(seconds=20)])
        assert [w.code for w in Planned(media.wav(silent)).finished.warnings] == ["NO_SPEECH"]
        silent[1, 80_000:96_000] = 0.5
        assert Planned(media.wav(silent)).finished.warnings == ()

    def test_is_refused_for_more_channels_than_are_taken(self) -> None:
        with pytest.raises(TooManyChannels, match=r"recordings/talk\.mp3 has 3 channels, and at most 2"):
            Planned(media.wav(media.tone(1, channels=3)), limits=LimitSettings(max_transcribed_channels=2))


class TestTheLanguageSampleOfSeveralChannels:
    def test_holds_the_first_speech_over_all_channels_in_order_of_time(self) -> None:
        """1-12 s on the left, 5-6 and 12-20 on the right, 20-24 on the left, and 6 s of what follows on the right."""
        left, right = media.s16(TWO).T
        expected = [left[1:][:0]]
        for second in range(60):
            for channel in (left, right):
                sound = channel[second * 16_000 : (second + 1) * 16_000]
                if np.abs(sound).max() >= 1000:
                    expected.append(sound)
        wanted = np.concatenate(expected)[: 30 * 16_000]
        for length_s in (10.0, 20.0, 300.0):
            assert np.array_equal(Planned(media.wav(TWO), length_s=length_s).sample, wanted)

    def test_does_not_depend_on_which_channel_is_decided_first(self) -> None:
        """A channel whose windows are told late may still have the earlier speech."""
        samples = [self.sample_of(late) for late in (0, 1)]
        assert samples[0] == samples[1]

    @staticmethod
    def sample_of(late: int) -> bytes:
        class Late(LoudWindows):
            """Says nothing before the end."""

            def __init__(self) -> None:
                super().__init__()
                self._kept: list[Window] = []

            def feed(self, samples: NDArray[np.int16]) -> Decided:
                self._kept += super().feed(samples).windows
                return Decided((), 0)

            def finish(self) -> Decided:
                return Decided(tuple(self._kept), super().finish().upto)

        made: list[WindowPolicy] = []

        def windows_for(_: JobOptions) -> WindowPolicy:
            made.append(Late() if len(made) == late else LoudWindows())
            return made[-1]

        planned = Planned(media.wav(TWO), windows_for=windows_for, length_s=300.0)
        return planned.store.objects[WORK_BUCKET, KEYS.language_sample]

    def test_keeps_no_more_than_thirty_seconds_of_each(self) -> None:
        pcm = PcmBuffer()
        pcm.append(np.ones(100 * 16_000, dtype=np.int16))
        sample = LanguageSample(2)
        for start_s in range(0, 80, 10):
            sample.add(Window(0, float(start_s), start_s + 8.0, 1), pcm)
        assert sum(len(sound) for _, _, sound in sample._heard) == 30 * 32_000
        assert not sample.is_full(16_000 * 30)  # speech up to there: 24 s, and more may come from the other channel
        assert sample.is_full(16_000 * 31)


class TestATrack:
    DATA = media.tracks([media.tone(12, hz=300.0), media.tone(6, channels=2, hz=500.0)])

    @pytest.mark.parametrize(("track", "found"), [(0, (0, 1, 12)), (1, (1, 2, 6)), (None, (1, 2, 6))])
    def test_that_is_asked_for_is_planned_and_named(self, track: int | None, found: tuple[int, int, int]) -> None:
        facts = Planned(self.DATA, JobOptions(track=track)).finished.recording
        assert (facts.track, facts.channels, round(facts.duration_s)) == found
        assert facts.tracks == 2

    def test_that_is_missing_is_refused_with_nothing_left_behind(self) -> None:
        store = DictStore({(BUCKET, "talk.mp3"): self.DATA})
        with pytest.raises(MissingTrack, match=r"recordings/talk\.mp3 .* 2 sound tracks, 0 to 1.* another track"):
            make_plan(store)(work(JobOptions(track=2)), RecordedAttempt(store))
        assert {bucket for bucket, _ in store.objects} == {BUCKET}
