"""Plain WhisperX with the demo models on recordings whose truth is known.

    python -m demo.training.evaluate demo/models/tiny demo/recordings/conversation-90s.flac ...

prints one JSON line for each recording: word error rate, errors of the word times, diarization error rate, speakers.
"""

import argparse
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate

from demo.training import flac
from demo.training.conversation import WITHIN_TURN_S, truth_file
from demo.training.speech import SAMPLE_RATE_HZ, Samples

CHUNK_SIZE_S = 12
"""What WhisperX calls chunk_size: the longest window. The demo models lose words in windows above 15 s."""
BATCH, BEAM, THREADS = 8, 5, 2

Json = dict[str, Any]


class PlainWhisperX:
    """The unmodified whisperx, from samples to words with speakers, without network."""

    def __init__(self, models: Path) -> None:
        self._go_offline(models)
        import whisperx  # reads the variables set above when it is imported
        from whisperx.diarize import DiarizationPipeline

        self._whisperx = whisperx
        self._recogniser = whisperx.load_model(
            str(models / "asr"),
            "cpu",
            compute_type="int8",
            language="en",
            threads=THREADS,
            asr_options={"beam_size": BEAM},
            vad_options={"chunk_size": CHUNK_SIZE_S},
        )
        self._aligner, self._alphabet = whisperx.load_align_model("en", "cpu", model_name=str(models / "align"))
        self._diarizer = DiarizationPipeline(model_name=str(models / "diarization"), device="cpu")

    @staticmethod
    def _go_offline(models: Path) -> None:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0"}
        os.environ["NLTK_DATA"] = str(models / "nltk_data")
        if str(models / "diarization") not in sys.path:
            sys.path.append(str(models / "diarization"))  # holds the class of the speaker embedding

    def __call__(self, samples: Samples) -> tuple[Json, Any]:
        """The result of whisperx and the turns of its diarization (a data frame)."""
        result = self._recogniser.transcribe(samples, batch_size=BATCH, chunk_size=CHUNK_SIZE_S)
        if result["segments"]:
            result = self._whisperx.align(result["segments"], self._aligner, self._alphabet, samples, "cpu")
        else:
            result = {"segments": [], "word_segments": []}
        diarized = self._diarizer(samples)
        return self._whisperx.assign_word_speakers(diarized, result), diarized


def measure(whisperx: PlainWhisperX, recording: Path) -> Json:
    """All figures of one recording."""
    samples, truth = flac.read(recording), json.loads(truth_file(recording).read_text())
    started_s = time.monotonic()
    result, diarized = whisperx(samples)
    return {
        "recording": recording.stem,
        "duration_s": round(len(samples) / SAMPLE_RATE_HZ, 1),
        "compute_s": round(time.monotonic() - started_s, 1),
        **word_figures(truth, result),
        **speaker_figures(truth, result, diarized),
    }


def normalised(text: str) -> str:
    """Lower case without marks; apostrophes stay."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def word_figures(truth: Json, result: Json) -> Json:
    reference = normalised(truth["text"])
    hypothesis = normalised(" ".join(segment["text"] for segment in result["segments"]))
    found = jiwer.process_words(reference, hypothesis)
    figures = {
        "words": len(reference.split()),
        "word_error_rate": round(found.wer, 4),
        "substitutions": found.substitutions,
        "insertions": found.insertions,
        "deletions": found.deletions,
    }
    words = [word for word in result["word_segments"] if normalised(word["word"])]
    if len(truth["words"]) == len(reference.split()) and len(words) == len(hypothesis.split()):
        figures |= _time_figures(truth["words"], words, found)
    return figures


def _time_figures(expected: list[Json], words: list[Json], found: jiwer.WordOutput) -> Json:
    """Errors of the word times, in ms, of the words that were recognised."""
    pairs = [(expected[i], words[j]) for i, j in _equal_words(found) if "start" in words[j]]
    if not pairs:
        return {}
    starts = np.array([word["start"] - true["start_s"] for true, word in pairs]) * 1000
    ends = np.array([word["end"] - true["end_s"] for true, word in pairs]) * 1000
    return {"word_start_ms": _spread(starts), "word_end_ms": _spread(ends)}


def _equal_words(found: jiwer.WordOutput) -> Iterator[tuple[int, int]]:
    for piece in found.alignments[0]:
        if piece.type == "equal":
            reference = range(piece.ref_start_idx, piece.ref_end_idx)
            yield from zip(reference, range(piece.hyp_start_idx, piece.hyp_end_idx), strict=True)


def _spread(errors_ms: np.ndarray) -> Json:
    size = np.abs(errors_ms)
    return {
        "median": round(float(np.median(size)), 1),
        "of_90_percent": round(float(np.percentile(size, 90)), 1),
    }


def speaker_figures(truth: Json, result: Json, diarized: Any) -> Json:
    """Diarization error rates against turns (pauses of 0.6 s inside count as speech), with and without a collar of
    0.25 s at each edge, and strictly against sentences; speakers; words with the right speaker."""
    found = Annotation()
    for k, row in diarized.iterrows():
        found[Segment(row["start"], row["end"]), k] = row["speaker"]
    strict = Annotation()
    for k, segment in enumerate(truth["segments"]):
        strict[Segment(segment["start_s"], segment["end_s"]), k] = segment["speaker"]
    turns = strict.support(collar=WITHIN_TURN_S)
    return {
        "speakers": len(strict.labels()),
        "speakers_found": len(found.labels()),
        "diarization_error_rate": _error_rate(turns, found, 0.0),
        "diarization_error_rate_collar": _error_rate(turns, found, 0.5),
        "diarization_error_rate_strict": _error_rate(strict, found, 0.0),
        "words_with_right_speaker": _right_speakers(strict, found, truth["segments"], result["word_segments"]),
    }


def _error_rate(reference: Annotation, found: Annotation, collar_s: float) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "uem was approximated": the whole recording is meant
        error_rate = float(DiarizationErrorRate(collar=collar_s)(reference, found))
    return round(error_rate, 4)


def _right_speakers(reference: Annotation, found: Annotation, segments: list[Json], words: list[Json]) -> float:
    """Share, of the words that have a speaker and whose middle lies in a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        names = DiarizationErrorRate().optimal_mapping(reference, found)
    right: list[bool] = []
    for word in words:
        if "speaker" in word and "start" in word:
            middle_s = (word["start"] + word["end"]) / 2
            said = [s["speaker"] for s in segments if s["start_s"] <= middle_s <= s["end_s"]]
            right += [names.get(word["speaker"]) == said[0]] if said else []
    return round(sum(right) / max(1, len(right)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, help="a model directory, such as demo/models/tiny")
    parser.add_argument("recordings", type=Path, nargs="+", help="FLAC files with a .truth.json beside them")
    chosen = parser.parse_args()
    whisperx = PlainWhisperX(chosen.models)
    for recording in chosen.recordings:
        print(json.dumps(measure(whisperx, recording)), flush=True)


if __name__ == "__main__":
    main()
