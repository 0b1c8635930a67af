"""The engine of real models: `core.speech.Engine` over recogniser, aligners and diarizer, each loaded on first use.

One call at a time, a second caller waits: the models share a device. Joining speakers needs no sound and runs beside.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from consumer.core.prompt import fit_prompt
from consumer.core.speech import Activity, ChunkSpeech, ChunkTask, Diarization, Language, Progress, Samples, Segment
from consumer.core.values import Span, Window
from consumer.errors import NoAligner
from consumer.events import ChunkTimings, JobOptions, ModelUsed, Problem
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.align import Heard
from consumer.speech.asr import Decoding, Recogniser, Text, in_batches
from consumer.speech.diarize import BATCH
from consumer.speech.ladder import climb_down
from consumer.speech.loaded import LoadedModels, Stage
from consumer.speech.models import SpeechModel
from consumer.speech.spare_memory import give_back, give_back_gpu

log = logging.getLogger(__name__)

T = TypeVar("T")

WARM_LANGUAGE = "en"
"""The aligner that is loaded before the first job; the others come with their first job."""
STAGE_WEIGHTS: dict[Stage, float] = {"transcribe": 3.0, "align": 1.0, "diarize": 2.0}
"""How long the stages take, roughly; only the progress bar depends on it."""
GIVE_BACK_INTERVAL_S = 0.3
"""On the CPU freed memory is given back within a stage too, at most this often: each time takes 8 ms."""


class SpeechEngine:
    def __init__(
        self, models: ModelSettings, device: DeviceSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loaded = LoadedModels(models, device)
        self._clock = clock
        self._lock = threading.RLock()
        self._batch_size: int | None = None

    # ── what is asked before a model is loaded ──────────────────────────────────────────────────────────────────────

    @property
    def device(self) -> str:
        with self._lock:
            return str(self._loaded.device)

    def max_window_s(self, model: str | None) -> float:
        return self._loaded.find(model).max_window_s

    def min_overlap_s(self, model: str | None) -> float:
        return self._loaded.find(model).diarization_window_s

    def models_used(self, options: JobOptions, language: str | None) -> tuple[ModelUsed, ...]:
        """The models that such a job needs, with the digests of their files. Loads none of them."""
        with self._lock:
            return self._loaded.used(options, language)

    def fingerprint(self, options: JobOptions, language: str | None) -> str:
        """Model digests, device type and compute type in one hash."""
        facts = [f"{one.role} {one.digest}" for one in self.models_used(options, language)]
        return hashlib.sha256("\n".join([*facts, self.device]).encode()).hexdigest()

    def warm_up(self, model: str | None = None) -> None:
        """Load what a transcriber needs before it joins its group, and read all files for their digests."""
        with self._lock:
            chosen = self._loaded.find(model)
            self._load(chosen, "transcribe", self._loaded.tried_recogniser)
            self._load(chosen, "diarize", self._loaded.diarizer)
            self._load(chosen, "align", lambda one: self._loaded.aligner(one, WARM_LANGUAGE))
            self.fingerprint(JobOptions(model=chosen.name), WARM_LANGUAGE)
            log.info("Models loaded", extra={"model": chosen.name, "device": self.device})

    def _load(self, model: SpeechModel, stage: Stage, load: Callable[[SpeechModel], object]) -> None:
        """A GPU that others fill is no reason not to start: the ladder leads to the CPU, and each chunk tries anew."""
        climb_down(lambda _: load(model) is not None, 1, self._loaded.rungs(stage))

    # ── the work ────────────────────────────────────────────────────────────────────────────────────────────────────

    def detect_language(self, samples: Samples, model: str | None) -> Language | None:
        if not len(samples):
            return None
        with self._lock:
            chosen = self._loaded.find(model)
            language, _ = climb_down(
                lambda _: self._loaded.recogniser(chosen).detect_language(samples), 1, self._loaded.rungs("transcribe")
            )
            return language

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        with self._lock:
            self._loaded.leave_fallback()
            return ChunkRun(self._loaded, task, progress, self._clock, self._batches).speech(self.fingerprint)

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        with self._lock:
            model = self._loaded.find(options.model)
            self._load(model, "diarize", self._loaded.diarizer)
            diarizer = self._loaded.diarizer(model)
        return diarizer.join(activities, recording_samples, options.diarize)

    def _batches(self, had_room: int | None) -> int:
        """Windows to recognise together; what had room once is where the next chunk starts."""
        self._batch_size = had_room or self._batch_size
        return min(self._batch_size or self._loaded.device.batch_size, self._loaded.device.batch_size)


class ChunkRun:
    """One chunk on its way through the stages, with what it gathers."""

    def __init__(
        self,
        loaded: LoadedModels,
        task: ChunkTask,
        progress: Progress,
        clock: Callable[[], float],
        batches: Callable[[int | None], int],
    ) -> None:
        self._loaded = loaded
        self._task = task
        self._model = loaded.find(task.options.model)
        self._progress = progress
        self._clock = clock
        self._batches = batches
        self._warnings: list[Problem] = []
        self._spent_s: dict[str, float] = {}

    def speech(self, fingerprint: Callable[[JobOptions, str | None], str]) -> ChunkSpeech:
        task = self._task
        with self._stage("transcribe") as progress:
            heard = self._recognise(progress)
        with self._stage("align") as progress:
            segments = self._align(heard, progress)
        activity = None
        if task.options.tells_voices_apart:
            with self._stage("diarize") as progress:
                activity = self._listen(progress)
        return ChunkSpeech(
            segments=tuple(segments),
            activity=activity,
            language=task.language,
            language_probability=None,
            timings=ChunkTimings(**self._spent_s),
            warnings=tuple(self._warnings),
            fingerprint=fingerprint(task.options, task.language),
            device=str(self._loaded.device),
            models=self._loaded.used(task.options, task.language),
        )

    # ── recognition ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _recognise(self, progress: Progress) -> list[Heard]:
        windows = [window for window in self._task.chunk.windows if window.span.length]
        if not windows:
            return []
        done: dict[int, Text] = {}
        before: Recogniser | None = None

        def work(batch: int) -> list[Text]:
            nonlocal before
            recogniser = self._loaded.recogniser(self._model)
            if before is not None and before.device != recogniser.device:
                done.clear()  # all windows of a chunk come from one device
            before = recogniser
            decoding = self._decoding(recogniser)
            sounds = [self._cut(window.span) for window in windows]
            for share in in_batches(sounds, batch, lambda part: recogniser.recognise(part, decoding), done):
                progress(share)
            return [done[at] for at in range(len(windows))]

        texts = self._climb(work, self._batches(None), "transcribe")
        found = zip(windows, texts, strict=True)
        return [_heard(window, text) for window, text in found if text.text.strip()]

    def _decoding(self, recogniser: Recogniser) -> Decoding:
        task = self._task
        if task.language is None:
            raise ValueError(f"chunk {task.chunk.index} has speech and no language; detect it first")
        options = task.options
        prompt = fit_prompt(options.hotwords, options.initial_prompt, recogniser.count_tokens)
        self._warn(prompt.warning())
        return Decoding(task.language, options.task, options.beam_size, prompt)

    # ── word times ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _align(self, heard: list[Heard], progress: Progress) -> list[Segment]:
        """Sentences with words where there is an aligner, else the windows. Translated text is not in the sound."""
        options, language = self._task.options, self._task.language
        if not heard or language is None or not options.align.enabled or options.task == "translate":
            return [one.segment() for one in heard]
        if not self._loaded.has_aligner(self._model, language):
            self._say_no_aligner(language)
            return [one.segment() for one in heard]
        aligned: list[list[Segment]] = []

        def work(_: int) -> list[list[Segment]]:
            aligner = self._loaded.aligner(self._model, language)
            assert aligner is not None, "it was there a moment ago"
            for one in heard[len(aligned) :]:
                aligned.append(aligner.align(one, self._cut(one.span)))
                progress(len(aligned) / len(heard))
            return aligned

        return [segment for segments in self._climb(work, 1, "align") for segment in segments]

    def _say_no_aligner(self, language: str) -> None:
        message = f"there is no alignment model for the language {language}"
        if self._task.options.align.on_missing_aligner == "fail":
            raise NoAligner(
                f"{message}; install one (models.align_models) or send the job with "
                "align.on_missing_aligner=segment_times",
                language=language,
            )
        self._warn(Problem(code=NoAligner.code, message=f"{message}; words have no times", stage="transcribe"))

    # ── speakers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self, progress: Progress) -> Activity:
        chunk, task = self._task.chunk, self._task

        def work(batch: int) -> Activity:
            diarizer = self._loaded.diarizer(self._model)
            return diarizer.listen(task.samples, chunk.audio, chunk.span, task.recording_samples, progress, batch)

        return self._climb(work, BATCH, "diarize")

    # ── what all stages need ────────────────────────────────────────────────────────────────────────────────────────

    def _cut(self, span: Span) -> Samples:
        """The samples of a span of the recording, as far as the chunk has them."""
        start = self._task.chunk.audio.start
        return np.asarray(self._task.samples[max(span.start - start, 0) : max(span.end - start, 0)])

    def _climb(self, work: Callable[[int], T], batch: int, stage: Stage) -> T:
        result, climbed = climb_down(work, batch, self._loaded.rungs(stage))
        self._warn(climbed.warning("transcribe"))
        if stage == "transcribe" and climbed.steps and self._loaded.device.kind == "cuda":
            self._batches(climbed.batch)
        return result

    def _warn(self, problem: Problem | None) -> None:
        if problem is not None and problem not in self._warnings:
            self._warnings.append(problem)

    @contextmanager
    def _stage(self, stage: Stage) -> Iterator[Progress]:
        """Measures the stage, and turns its progress into that of the whole chunk."""
        wanted = [one for one in STAGE_WEIGHTS if one != "diarize" or self._task.options.tells_voices_apart]
        total = sum(STAGE_WEIGHTS[one] for one in wanted)
        before = sum(STAGE_WEIGHTS[one] for one in wanted[: wanted.index(stage)])

        def tell(share: float) -> None:
            self._progress((before + share * STAGE_WEIGHTS[stage]) / total)

        tell(0.0)
        started_s = given_back_s = self._clock()

        def progress(share: float) -> None:
            nonlocal given_back_s
            if self._loaded.device.kind == "cpu" and self._clock() - given_back_s >= GIVE_BACK_INTERVAL_S:
                give_back()  # of this batch or window: it would stand below the next one's peak
                given_back_s = self._clock()
            tell(share)

        yield progress
        give_back()
        if self._loaded.device.kind == "cuda":
            give_back_gpu()
        self._spent_s[f"{stage}_s"] = self._clock() - started_s
        tell(1.0)


def _heard(window: Window, text: Text) -> Heard:
    """Times in whole milliseconds, as whisperx gives them."""
    return Heard(
        window_index=window.index,
        start_s=round(window.start_s, 3),
        end_s=round(window.end_s, 3),
        text=text.text,
        avg_logprob=text.avg_logprob,
        channel=window.channel,
    )
