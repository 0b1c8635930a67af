"""Diarization in two steps: what needs the samples (map, per chunk) and what needs the whole recording (reduce).

pyannote slides a window over the recording, scores it for a few local speakers, embeds each of them, and clusters all
embeddings once. Scores and embeddings of a window depend on its own samples only, so a chunk computes the windows
that start in its span, counted from the start of the recording. The reduce step is pyannote's own `apply` over what
the chunks stored (see replay.py).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer.core.speech import Activity, Diarization, Samples, Turn
from consumer.core.values import SAMPLE_RATE_HZ, Span
from consumer.errors import Misconfigured
from consumer.events import DiarizeOptions
from consumer.speech.environment import make_importable, quiet
from consumer.speech.replay import become_replay, stored_scores
from consumer.speech.voiceless import without_voice

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

BATCH = 16
"""Windows scored, and voices embedded, together. Fixed and always filled up: the last bits of a score depend on the
shape of its batch and its place in it, and P4 wants them the same however the recording is cut. 16 is as fast as more
(whisperx-api-server), wastes little at the end of a chunk, and saves gigabytes on a GPU."""

CPU_EMBEDDED = 4
"""Voices embedded together on the CPU: with ResNet34 each takes 50 MB, and 16 at once are only a tenth faster."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The sliding windows of a recording, in samples; window k starts at k * step."""

    window: int
    step: int

    def count(self, recording_samples: int) -> int:
        """Windows of the whole recording: the last one is padded if anything is left for it to cover."""
        return 1 + max(0, -(-(recording_samples - self.window) // self.step))

    def starting_in(self, span: Span, recording_samples: int | None) -> range:
        """Numbers of the windows that start in the span and that the recording has."""
        first, behind = -(-span.start // self.step), -(-span.end // self.step)
        last = behind if recording_samples is None else min(behind, self.count(recording_samples))
        return range(first, max(first, last))


class Diarizer:
    """A loaded pyannote pipeline, used step by step."""

    def __init__(self, files: Path, device: str, longest_window_s: float) -> None:
        """Raises Misconfigured for a window longer than `longest_window_s`, by which chunks overlap."""
        self._pipeline = _load(files, device)
        self._embedded = CPU_EMBEDDED if device == "cpu" else BATCH
        inference = self._pipeline._segmentation
        self._inference = inference
        self._duration_s: float = inference.duration
        self._step_s: float = inference.step
        self._powerset: bool = inference.model.specifications.powerset
        self.grid = Grid(
            window=inference.model.audio.get_num_samples(inference.duration),
            step=round(inference.step * SAMPLE_RATE_HZ),
        )
        if self._duration_s > longest_window_s:
            raise Misconfigured(
                f"{files} looks at {self._duration_s} s at once and chunks may overlap by {longest_window_s} s only; "
                "say so in model.json (diarization_window_s)"
            )
        rates = (inference.model.audio.sample_rate, self._pipeline._embedding.sample_rate)
        if rates != (SAMPLE_RATE_HZ, SAMPLE_RATE_HZ):
            raise Misconfigured(f"{files} wants sample rates of {rates}, and there are {SAMPLE_RATE_HZ} Hz only")

    # ── map ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def listen(
        self,
        samples: Samples,
        audio: Span,
        span: Span,
        recording_samples: int | None,
        progress: Callable[[float], None],
        batch: int = BATCH,
    ) -> Activity:
        """Activity of the windows that start in `span`; `samples` are those of `audio`.

        `recording_samples` is known where the audio reaches the end of the recording; only there a window is padded.
        """
        numbers = self.grid.starting_in(span, recording_samples)
        windows = self._windows(samples, audio, numbers, is_end=recording_samples is not None)
        with _tf32_put_back():
            scores = self._scores(windows, numbers.start, batch, lambda done: progress(done / 2))
            embeddings = self._embeddings(
                windows, scores, min(batch, self._embedded), lambda done: progress((1 + done) / 2)
            )
        return Activity(first=numbers.start, scores=scores, embeddings=embeddings)

    def _windows(self, samples: Samples, audio: Span, numbers: range, *, is_end: bool) -> Floats:
        """(n_windows, window); a view of the samples but for the last window."""
        start = numbers.start * self.grid.step - audio.start
        needed = (len(numbers) - 1) * self.grid.step + self.grid.window
        part = np.asarray(samples[start : start + needed], dtype=np.float32)
        if not numbers:
            return np.zeros((0, self.grid.window), dtype=np.float32)
        if start < 0 or (len(part) < needed and not is_end):
            raise ValueError(f"the audio {audio} does not hold the diarization windows {numbers}: overlap too short")
        if len(part) < needed:
            part = np.pad(part, (0, needed - len(part)))
        return np.lib.stride_tricks.sliding_window_view(part, self.grid.window)[:: self.grid.step]

    def _scores(self, windows: Floats, first: int, batch: int, progress: Callable[[float], None]) -> Floats:
        """(n_windows, n_frames, n_speakers): what `get_segmentations` gives."""
        import torch

        parts = [self._no_scores()]
        for rows, filled, answers in _full_batches(len(windows), batch, first):
            chosen = torch.from_numpy(np.ascontiguousarray(windows[filled]))[:, None]
            parts.append(np.asarray(self._inference.infer(chosen), dtype=np.float32)[answers])
            progress(rows.stop / len(windows))
        return np.concatenate(parts)

    def _no_scores(self) -> Floats:
        specifications = self._inference.model.specifications
        frames = self._inference.model.num_frames(self.grid.window)
        return np.zeros((0, frames, len(specifications.classes)), dtype=np.float32)

    def _embeddings(self, windows: Floats, scores: Floats, batch: int, progress: Callable[[float], None]) -> Floats:
        """(n_windows, n_speakers, dimension): what `get_embeddings` gives where a local speaker is active, else NaN.

        Silent ones are more than half; pyannote embeds them too and throws the result away.
        """
        import torch

        network = self._pipeline._embedding
        active = self._binary(scores)
        masks = self._masks(active)
        embeddings = np.full((*active.shape[::2], network.dimension), np.nan, dtype=np.float32)
        at, speaker = np.nonzero(active.sum(axis=1) > 0)
        for rows, filled, answers in _full_batches(len(at), batch):
            sound = torch.from_numpy(np.ascontiguousarray(windows[at[filled]]))[:, None]
            weights = torch.from_numpy(np.ascontiguousarray(masks[at[filled], :, speaker[filled]]))
            found = np.asarray(network(sound, masks=weights), dtype=np.float32)
            embeddings[at[rows], speaker[rows]] = found[answers]
            progress(rows.stop / len(at))
        return embeddings

    def _binary(self, scores: Floats) -> NDArray[np.floating[Any]]:
        """Who is active, 0 or 1, as `apply` binarises it."""
        if self._powerset or not len(scores):
            return scores
        from pyannote.audio.utils.signal import binarize

        feature = binarize(self._feature(scores), onset=self._pipeline.segmentation.threshold, initial_state=False)
        binary: NDArray[np.floating[Any]] = np.asarray(feature.data)
        return binary

    def _masks(self, active: NDArray[np.floating[Any]]) -> Floats:
        """What each embedding is weighted by: frames without a second voice, unless they are too few."""
        if not self._pipeline.embedding_exclude_overlap:
            return active.astype(np.float32)
        frames = active.shape[1]
        needed = math.ceil(frames * self._pipeline._embedding.min_num_samples / (self._duration_s * SAMPLE_RATE_HZ))
        clean = active * (active.sum(axis=2, keepdims=True) < 2)
        enough = clean.sum(axis=1, keepdims=True) > needed
        return np.where(enough, clean, active).astype(np.float32)

    # ── reduce ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, activities: Iterable[Activity], recording_samples: int, options: DiarizeOptions) -> Diarization:
        """Cluster all embeddings and rebuild the turns, by pyannote's own code.

        Windows missing behind the last activity (a failed chunk) are silence. Raises ValueError when the activities
        are not one row of windows from 0, or more than the recording has.
        """
        row = self._row(activities, self.grid.count(recording_samples))
        if row is None:
            return Diarization((), ())
        scores, embeddings = row
        recording = {"uri": "recording", "scores": self._feature(scores), "embeddings": embeddings}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            output = self._pipeline.apply(
                recording,
                num_speakers=options.num_speakers,
                min_speakers=options.min_speakers,
                max_speakers=options.max_speakers,
            )
        for warning in said:
            log.debug("Diarization warns", extra={"text": str(warning.message).strip()[:500]})
        return Diarization(
            turns=_turns(output.speaker_diarization),
            exclusive=_turns(output.exclusive_speaker_diarization),
            embeddings=_voices(output) if options.embeddings else {},
        )

    def _row(self, activities: Iterable[Activity], count: int) -> tuple[Floats, Floats] | None:
        """Scores and embeddings of all windows of the recording, each activity let go once it is copied. An embedding
        that is none is NaN."""
        scores = embeddings = None
        expected = 0
        for activity in activities:
            if activity.first != expected:
                raise ValueError(f"diarization window {expected} is missing or there twice: {activity.first} follows")
            rows = slice(expected, expected + len(activity.scores))
            expected = rows.stop
            if expected > count:
                raise ValueError(f"there are {expected} diarization windows or more, and the recording has {count}")
            if scores is None or embeddings is None:
                scores = np.zeros((count, *activity.scores.shape[1:]), dtype=np.float32)
                embeddings = np.ones((count, *activity.embeddings.shape[1:]), dtype=np.float32)
            # A silent local speaker is in no cluster whatever its embedding is, but NaN spoils the distances of others.
            silent = self._binary(activity.scores).sum(axis=1) == 0
            scores[rows] = activity.scores
            embeddings[rows] = np.where(silent[:, :, None], np.float32(1.0), activity.embeddings)
            embeddings[rows][without_voice(embeddings[rows])] = np.nan
        return None if scores is None or embeddings is None or not expected else (scores, embeddings)

    def _feature(self, scores: Floats) -> Any:
        return stored_scores(scores, self._duration_s, self._step_s)


def _full_batches(count: int, batch: int, shift: int = 0) -> Iterator[tuple[slice, NDArray[np.int_], slice]]:
    """Rows that a batch answers for, the rows it is made of, and where in it the answers stand.

    Every batch has the same shape: what is missing is filled up with the nearest row. With a `shift` of the number of
    the first row, row k stands at place k % batch in any chunk.
    """
    for start in range(-(shift % batch), count, batch):
        rows = slice(max(start, 0), min(start + batch, count))
        yield rows, np.clip(np.arange(start, start + batch), 0, count - 1), slice(rows.start - start, rows.stop - start)


def _turns(annotation: Any) -> tuple[Turn, ...]:
    tracks = annotation.itertracks(yield_label=True)
    return tuple(Turn(round(float(span.start), 3), round(float(span.end), 3), str(label)) for span, _, label in tracks)


def _voices(output: Any) -> dict[str, tuple[float, ...]]:
    """One embedding per speaker, in the order of the labels; none where pyannote has none (NaN, or only zeros)."""
    labels = output.speaker_diarization.labels()
    rows = output.speaker_embeddings
    pairs = zip(labels, rows, strict=False) if rows is not None else ()
    return {label: tuple(float(x) for x in row) for label, row in pairs if not without_voice(row)}


@contextmanager
def _tf32_put_back() -> Iterator[None]:
    """TensorFloat-32 off, as pyannote wants it for equal results, and back afterwards for the aligner's speed."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _load(files: Path, device: str) -> Any:
    """The pipeline, made to replay stored scores and embeddings."""
    make_importable(files)
    with quiet():
        import torch
        from pyannote.audio import Pipeline
        from pyannote.audio.pipelines import SpeakerDiarization

        pipeline = Pipeline.from_pretrained(str(files))
        if not isinstance(pipeline, SpeakerDiarization):
            raise Misconfigured(f"{files} is no pipeline for speaker diarization but {type(pipeline).__name__}")
        if not pipeline.instantiated:
            pipeline.instantiate(pipeline.default_parameters())  # type: ignore[no-untyped-call]
        pipeline.to(torch.device(device))
    become_replay(pipeline)
    return pipeline
