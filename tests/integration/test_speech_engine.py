"""The real engine against plain whisperx and pyannote, with the demo models: same text, same words, same speakers.

P4 on one machine: the same whether a recording is one chunk or many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.core import checkpoint
from consumer.core.chunks import ChunkShape
from consumer.core.speech import Activity, ChunkSpeech, ChunkTask, Samples, Segment
from consumer.core.values import SAMPLE_RATE_HZ, Chunk, Span, Window
from consumer.core.windows import Decided
from consumer.errors import Cancelled, NoAligner, UnknownModel
from consumer.events import AlignOptions, DiarizeOptions, JobOptions
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from demo import recordings

pytestmark = [
    pytest.mark.models,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]

MODELS = Path(__file__).parents[2] / "demo" / "models"
MODEL = MODELS / "tiny"
LONGEST_WINDOW_S = 12.0
NO_SPEAKERS = JobOptions(diarize=DiarizeOptions(enabled=False))


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    return SpeechEngine(ModelSettings(directory=MODELS, allowed=("tiny",)), DeviceSettings(device="cpu", cpu_threads=2))


@dataclass(frozen=True)
class Conversation:
    samples: Samples
    windows: tuple[Window, ...]

    @property
    def whole(self) -> Chunk:
        span = Span(0, len(self.samples))
        return Chunk(0, span, span, self.windows, is_last=True)

    def chunks(self, length_s: float) -> list[Chunk]:
        planner = ChunkShape(length_s, 10.0, 1 << 30).planner(LONGEST_WINDOW_S, 10.0)
        return list(planner.finish(Decided(self.windows, len(self.samples)), len(self.samples)))

    def task(self, chunk: Chunk, options: JobOptions, language: str | None = "en") -> ChunkTask:
        total = chunk.audio.end if chunk.is_last else None
        return ChunkTask(chunk, self.samples[chunk.audio.start : chunk.audio.end], options, language, total)


def conversation(name: str, seconds: float | None = None) -> Conversation:
    """A shipped recording, whole or its beginning, with windows of at most 12 s around its sentences."""
    recording = recordings.shipped(name)
    samples = np.asarray(recording.samples, dtype=np.float32)
    samples = samples[: int((seconds or recording.duration_s) * SAMPLE_RATE_HZ)]
    return Conversation(samples, tuple(_windows(recording.truth["segments"], len(samples) / SAMPLE_RATE_HZ)))


def _windows(sentences: Sequence[dict[str, Any]], duration_s: float) -> Iterator[Window]:
    """Sentences joined while they fit; times that are no whole milliseconds, as from a detector's frames."""
    spans = [(one["start_s"] - 0.0837, one["end_s"] + 0.0713) for one in sentences if one["end_s"] + 0.1 < duration_s]
    index = itertools.count()
    start_s, end_s = spans[0]
    for next_start_s, next_end_s in spans[1:]:
        if next_end_s - start_s > LONGEST_WINDOW_S:
            yield Window(next(index), start_s, end_s)
            start_s = next_start_s
        end_s = next_end_s
    yield Window(next(index), start_s, end_s)


@pytest.fixture(scope="module")
def short() -> Conversation:
    return conversation("conversation-90s")


@pytest.fixture(scope="module")
def long() -> Conversation:
    """A little over three minutes, three speakers, no whole number of seconds."""
    return conversation("conversation-5min", 190.37)


@pytest.fixture(scope="module")
def heard(engine: SpeechEngine, short: Conversation) -> ChunkSpeech:
    return engine.transcribe(short.task(short.whole, NO_SPEAKERS), lambda _: None)


@pytest.fixture(scope="module")
def plain(engine: SpeechEngine, short: Conversation) -> dict[str, list[dict[str, Any]]]:
    """Unmodified whisperx with the same windows: its own transcribe and align."""
    engine.warm_up()  # sets the environment before whisperx is imported
    import whisperx
    from whisperx.vads import Vad

    class GivenWindows(Vad):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(0.5)

        def __call__(self, *_: Any) -> list[dict[str, float]]:
            return [{"start": window.start_s, "end": window.end_s} for window in short.windows]

        @staticmethod
        def preprocess_audio(audio: Samples) -> Samples:
            return audio

        @staticmethod
        def merge_chunks(segments: Any, *_: Any, **__: Any) -> Any:
            return segments

    pipeline = whisperx.load_model(
        str(MODEL / "asr"), "cpu", compute_type="int8", language=None, vad_model=GivenWindows(), threads=2
    )
    said = pipeline.transcribe(short.samples, batch_size=8, language="en", task="transcribe")
    model, metadata = whisperx.load_align_model("en", "cpu", model_name=str(MODEL / "align"))
    aligned = whisperx.align(said["segments"], model, metadata, short.samples, "cpu")
    return {"windows": said["segments"], "segments": aligned["segments"]}


@pytest.fixture(scope="module")
def activities(engine: SpeechEngine, long: Conversation) -> dict[float, list[Activity]]:
    """The map step over one chunk, over chunks of 100 s, and over chunks of 60 s."""
    options = JobOptions(language="en")

    def listen(length_s: float) -> list[Activity]:
        found = []
        for chunk in long.chunks(length_s):
            silent = Chunk(chunk.index, chunk.span, chunk.audio, (), chunk.is_last)
            activity = engine.transcribe(long.task(silent, options), lambda _: None).activity
            assert activity is not None
            found.append(activity)
        return found

    return {length_s: listen(length_s) for length_s in (1000.0, 100.0, 60.0)}


# ── text and words ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_text_of_each_window_is_that_of_plain_whisperx(heard: ChunkSpeech, plain: dict[str, Any]) -> None:
    texts = {
        index: " ".join(segment.text for segment in segments)
        for index, segments in itertools.groupby(heard.segments, key=lambda segment: segment.window_index)
    }
    assert len(plain["windows"]) > 8
    assert [texts.get(i, "") for i in range(len(plain["windows"]))] == [one["text"].strip() for one in plain["windows"]]


def test_segments_are_those_of_plain_whisperx(heard: ChunkSpeech, plain: dict[str, Any]) -> None:
    assert [one.text for one in heard.segments] == [one["text"].strip() for one in plain["segments"]]
    assert {one.timing for one in heard.segments} == {"aligned"}
    for ours, theirs in zip(heard.segments, plain["segments"], strict=True):
        assert (ours.start_s, ours.end_s) == (theirs["start"], theirs["end"])
        assert ours.avg_logprob == pytest.approx(theirs["avg_logprob"], abs=1e-6)


def test_words_are_those_of_plain_whisperx(heard: ChunkSpeech, plain: dict[str, Any]) -> None:
    ours = [word for segment in heard.segments for word in segment.words]
    theirs = [word for segment in plain["segments"] for word in segment["words"]]
    assert len(ours) > 150
    assert [word.text for word in ours] == [word["word"] for word in theirs]
    assert [word.start_s for word in ours] == [word["start"] for word in theirs]
    assert [word.end_s for word in ours] == [word["end"] for word in theirs]
    assert [word.score for word in ours] == pytest.approx([word["score"] for word in theirs], abs=0.0011)


def test_text_does_not_depend_on_the_batch(short: Conversation, heard: ChunkSpeech) -> None:
    """P4: another chunk length puts other windows together."""
    models = ModelSettings(directory=MODELS, allowed=("tiny",))
    small = SpeechEngine(models, DeviceSettings(device="cpu", cpu_threads=2, cpu_batch_size=3))
    again = small.transcribe(short.task(short.whole, NO_SPEAKERS), lambda _: None)
    assert again.segments == heard.segments


def test_a_recording_gives_the_same_in_chunks_and_as_a_whole(
    engine: SpeechEngine, short: Conversation, heard: ChunkSpeech
) -> None:
    """P4: text, word times and scores are equal, not close."""
    chunks = short.chunks(30.0)
    assert len(chunks) >= 3
    segments: list[Segment] = []
    for chunk in chunks:
        speech = engine.transcribe(short.task(chunk, NO_SPEAKERS), lambda _: None)
        assert speech.fingerprint == heard.fingerprint
        segments += speech.segments
    assert tuple(segments) == heard.segments


def test_a_chunk_survives_its_checkpoint(heard: ChunkSpeech) -> None:
    assert checkpoint.decode(checkpoint.encode(heard)) == heard


# ── speakers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_activity_is_equal_to_the_last_bit_however_the_recording_is_cut(
    activities: dict[float, list[Activity]],
) -> None:
    whole, *cut = activities.values()
    assert len(whole) == 1 < len(cut[0]) < len(cut[1])
    for chunks in cut:
        scores = np.concatenate([one.scores for one in chunks])
        embeddings = np.concatenate([one.embeddings for one in chunks])
        np.testing.assert_array_equal(scores, whole[0].scores)
        np.testing.assert_array_equal(embeddings, whole[0].embeddings)


@pytest.fixture(scope="module")
def pyannote_apply(engine: SpeechEngine, long: Conversation) -> Any:
    """Plain pyannote over the whole recording, as whisperx calls it; steps as functions of the options."""
    engine.warm_up()
    import torch
    from pyannote.audio import Pipeline

    pipeline = Pipeline.from_pretrained(str(MODEL / "diarization"))
    assert pipeline is not None
    recording = {"waveform": torch.from_numpy(long.samples[None]), "sample_rate": SAMPLE_RATE_HZ, "uri": "recording"}
    segmentations = pipeline.get_segmentations(recording)
    return pipeline, recording, segmentations


def test_scores_and_embeddings_are_those_of_pyannote(
    activities: dict[float, list[Activity]], pyannote_apply: Any
) -> None:
    """Its batches have other shapes, so the last bits differ; silent local speakers are left out."""
    from pyannote.audio.utils.signal import binarize

    pipeline, recording, segmentations = pyannote_apply
    (ours,) = activities[1000.0]
    np.testing.assert_allclose(ours.scores, segmentations.data, atol=1e-6)
    binary = binarize(segmentations, onset=pipeline.segmentation.threshold, initial_state=False)
    theirs = pipeline.get_embeddings(recording, binary, exclude_overlap=pipeline.embedding_exclude_overlap)
    active = binary.data.sum(axis=1) > 0
    np.testing.assert_array_equal(~np.isnan(ours.embeddings).any(axis=2), active)
    np.testing.assert_allclose(ours.embeddings[active], theirs[active], atol=2e-5)


@pytest.mark.parametrize(
    "wanted",
    [DiarizeOptions(embeddings=True), DiarizeOptions(num_speakers=2), DiarizeOptions(min_speakers=4, max_speakers=5)],
    ids=["free", "two", "four or five"],
)
def test_speakers_are_those_of_the_whole_file(
    engine: SpeechEngine,
    long: Conversation,
    activities: dict[float, list[Activity]],
    pyannote_apply: Any,
    wanted: DiarizeOptions,
) -> None:
    """Turn for turn, from one chunk and from many."""
    pipeline, recording, _ = pyannote_apply
    output = pipeline.apply(
        recording,
        num_speakers=wanted.num_speakers,
        min_speakers=wanted.min_speakers,
        max_speakers=wanted.max_speakers,
    )
    for chunks in activities.values():
        joined = engine.join_speakers(chunks, len(long.samples), JobOptions(diarize=wanted))
        for ours, theirs in (
            (joined.turns, output.speaker_diarization),
            (joined.exclusive, output.exclusive_speaker_diarization),
        ):
            tracks = theirs.itertracks(yield_label=True)
            assert [(turn.start_s, turn.end_s, turn.speaker) for turn in ours] == [
                (round(span.start, 3), round(span.end, 3), label) for span, _, label in tracks
            ]
        if wanted.embeddings:
            assert list(joined.embeddings) == output.speaker_diarization.labels()
            np.testing.assert_allclose(np.array(list(joined.embeddings.values())), output.speaker_embeddings, atol=1e-4)
    assert len(output.speaker_diarization.labels()) >= 2


def test_a_missing_last_chunk_is_silence(
    engine: SpeechEngine, long: Conversation, activities: dict[float, list[Activity]]
) -> None:
    first = activities[100.0][:1]
    joined = engine.join_speakers(first, len(long.samples), JobOptions())
    assert joined.turns
    assert max(turn.end_s for turn in joined.turns) < 112


def test_windows_that_do_not_follow_each_other_are_refused(
    engine: SpeechEngine, long: Conversation, activities: dict[float, list[Activity]]
) -> None:
    with pytest.raises(ValueError, match="missing or there twice"):
        engine.join_speakers(activities[60.0][1:], len(long.samples), JobOptions())


def test_silence_has_no_speakers_and_no_text(engine: SpeechEngine) -> None:
    span = Span(0, 8 * SAMPLE_RATE_HZ + 17)
    chunk = Chunk(0, span, span, (), is_last=True)
    task = ChunkTask(chunk, np.zeros(span.length, np.float32), JobOptions(), None, span.end)
    speech = engine.transcribe(task, lambda _: None)
    assert speech.activity is not None
    joined = engine.join_speakers([speech.activity], span.end, JobOptions())
    assert (speech.segments, joined.turns, joined.exclusive) == ((), (), ())


# ── options and trouble ─────────────────────────────────────────────────────────────────────────────────────────────


def first_window(short: Conversation) -> Chunk:
    (whole,) = [short.whole]
    return Chunk(0, whole.span, whole.audio, short.windows[:1], is_last=True)


def test_the_language_is_detected_with_its_probability(engine: SpeechEngine, short: Conversation) -> None:
    found = engine.detect_language(short.samples[: 30 * SAMPLE_RATE_HZ], None)
    assert found is not None
    assert found.code == "en"
    assert 0.5 < found.probability <= 1
    assert engine.detect_language(short.samples[:0], None) is None


def test_a_language_without_an_aligner_keeps_its_text_and_says_so(engine: SpeechEngine, short: Conversation) -> None:
    speech = engine.transcribe(short.task(first_window(short), NO_SPEAKERS, "de"), lambda _: None)
    assert [one.code for one in speech.warnings] == ["NO_ALIGNER"]
    (segment,) = speech.segments
    assert (segment.timing, segment.words, bool(segment.text)) == ("segment", (), True)
    assert (segment.start_s, segment.end_s) == (round(short.windows[0].start_s, 3), round(short.windows[0].end_s, 3))


def test_a_job_may_fail_for_want_of_an_aligner(engine: SpeechEngine, short: Conversation) -> None:
    options = NO_SPEAKERS.model_copy(update={"align": AlignOptions(on_missing_aligner="fail")})
    with pytest.raises(NoAligner):
        engine.transcribe(short.task(first_window(short), options, "de"), lambda _: None)


def test_a_translation_is_not_aligned(engine: SpeechEngine, short: Conversation) -> None:
    options = NO_SPEAKERS.model_copy(update={"task": "translate"})
    speech = engine.transcribe(short.task(first_window(short), options), lambda _: None)
    assert all(one.timing == "segment" for one in speech.segments)
    assert "align" not in {one.role for one in speech.models}


def test_a_prompt_that_is_too_long_is_cut_and_reported(engine: SpeechEngine, short: Conversation) -> None:
    options = NO_SPEAKERS.model_copy(update={"hotwords": ("Daniel",), "initial_prompt": "long words " * 90})
    speech = engine.transcribe(short.task(first_window(short), options), lambda _: None)
    assert [one.code for one in speech.warnings] == ["PROMPT_TRUNCATED"]


def test_a_cancelled_chunk_leaves_the_engine_as_it_was(
    engine: SpeechEngine, short: Conversation, heard: ChunkSpeech
) -> None:
    """Also with another language and task in the call that was ended."""
    asked = itertools.count()

    def cancel_at_the_third(_: float) -> None:
        if next(asked) == 2:
            raise Cancelled("enough")

    options = NO_SPEAKERS.model_copy(update={"task": "translate", "beam_size": 1})
    with pytest.raises(Cancelled):
        engine.transcribe(short.task(short.whole, options, "de"), cancel_at_the_third)
    chunk = first_window(short)
    again = engine.transcribe(short.task(chunk, NO_SPEAKERS), lambda _: None)
    assert again.segments == tuple(one for one in heard.segments if one.window_index == 0)


def test_progress_goes_from_nothing_to_all_and_never_back(engine: SpeechEngine, short: Conversation) -> None:
    seen: list[float] = []
    chunk = short.chunks(20.0)[0]
    engine.transcribe(short.task(chunk, JobOptions()), seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == pytest.approx(1.0)


def test_a_model_that_is_not_allowed_is_refused(engine: SpeechEngine) -> None:
    with pytest.raises(UnknownModel, match="tiny"):
        engine.max_window_s("large-v3")


def test_the_fingerprint_names_models_and_device(engine: SpeechEngine, heard: ChunkSpeech) -> None:
    assert {one.role for one in engine.models_used(JobOptions(), "en")} == {"transcribe", "align", "diarize"}
    assert heard.device == "cpu/int8"
    assert engine.fingerprint(JobOptions(), "en") != heard.fingerprint
    assert engine.fingerprint(NO_SPEAKERS, "en") == heard.fingerprint
