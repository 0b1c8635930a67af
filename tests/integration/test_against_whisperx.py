"""The whole system against plain whisperx on the same files with the same models, and against itself (P4)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest

from consumer.core.values import SAMPLE_RATE_HZ
from consumer.events import JobStatus
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from consumer.speech.vad import whisperx_scorer
from demo import recordings
from demo.training import flac
from tests.integration.memory_system import MemorySystem

pytestmark = [pytest.mark.models, pytest.mark.slow, pytest.mark.timeout(1800)]

TINY = Path(__file__).parents[2] / "demo" / "models" / "tiny"
WINDOW_S = 12
SHIPPED = [recordings.flac_file(name) for name in recordings.NAMES]
OTHERS = sorted(Path(os.environ.get("WHISPERX_TEST_CONVERSATIONS", os.devnull)).glob("*.flac"))
"""Further conversations of `python -m demo.training.conversation`, which needs synthesisers that CI has not."""


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    made = SpeechEngine(ModelSettings(allowed=("tiny",), directory=TINY.parent), DeviceSettings(device="cpu"))
    made.warm_up("tiny")
    return made


@dataclass(frozen=True)
class Heard:
    """What one of the two made of a recording."""

    text: str
    speakers: int
    turns: list[tuple[float, float, str]]
    document: bytes = b""


def words(text: str) -> str:
    return re.sub(r"[^a-z0-9 ]", " ", text.lower())


def word_error_rate(truth: str, text: str) -> float:
    return float(jiwer.wer(" ".join(words(truth).split()), " ".join(words(text).split())))


class PlainWhisperx:
    """whisperx 3.8.6 as its own documentation calls it, on the whole file."""

    def __init__(self) -> None:
        import whisperx
        from whisperx.diarize import DiarizationPipeline

        self._whisperx = whisperx
        self._asr = whisperx.load_model(str(TINY / "asr"), "cpu", compute_type="int8", language="en", threads=2)
        self._diarize = DiarizationPipeline(model_name=str(TINY / "diarization"), device="cpu")

    def hear(self, samples: np.ndarray[Any, np.dtype[np.float32]]) -> Heard:
        found = self._asr.transcribe(samples, batch_size=8, chunk_size=WINDOW_S, language="en", task="transcribe")
        turns = self._diarize(samples)
        text = "".join(segment["text"] for segment in found["segments"])
        rows = [(round(t.start, 3), round(t.end, 3), t.speaker) for t in turns.itertuples()]
        return Heard(text, len(set(turns["speaker"])), sorted(rows))


Plain = Callable[[Path], Heard]


@pytest.fixture(scope="module")
def plain(engine: SpeechEngine) -> Plain:
    """What plain whisperx makes of a recording: each is heard once, however many tests compare with it.

    Made after the engine, which has set up the environment that keeps whisperx from the network.
    """
    whisperx = PlainWhisperx()
    return cache(lambda path: whisperx.hear(recordings.read(path).samples))


def ours(engine: SpeechEngine, file: bytes, chunk_s: float, policy: str, language: str = "en") -> Heard:
    made = MemorySystem(chunk_s, engine, whisperx_scorer)
    made.upload("a", file)
    made.start()
    made.submit(job_id="job", options={"language": language, "vad": {"policy": policy}})
    result = made.finish("job")["job"]
    assert result.status is JobStatus.COMPLETED, result.error
    files = {a.format: made.store.get(a.claim_check.bucket, a.claim_check.key) for a in result.artifacts}
    document = json.loads(files["json"])
    turns = [line.split() for line in files["rttm"].decode().splitlines()]
    rows = [(float(t[3]), round(float(t[3]) + float(t[4]), 3), t[7]) for t in turns]
    text = "".join(segment["text"] for segment in document["segments"])
    return Heard(text, len(result.speakers), sorted(rows), b"".join(files[name] for name in sorted(files)))


@pytest.mark.parametrize("path", [*SHIPPED, *OTHERS], ids=lambda path: path.stem)
def test_with_whisperx_windows_text_and_turns_are_those_of_plain_whisperx(
    path: Path, engine: SpeechEngine, plain: Plain
) -> None:
    recording = recordings.read(path)
    expected = plain(path)
    heard = ours(engine, path.read_bytes(), 60.0, "whisperx")
    errors, plain_errors = (word_error_rate(recording.truth["text"], each.text) for each in (heard, expected))
    print(f"{path.stem}: words wrong {errors:.2%}, plain whisperx {plain_errors:.2%}, turns {len(heard.turns)}")
    assert words(heard.text).split() == words(expected.text).split()
    assert errors <= plain_errors + 0.005
    assert [turn[2] for turn in heard.turns] == [turn[2] for turn in expected.turns]
    assert np.allclose([t[:2] for t in heard.turns], [t[:2] for t in expected.turns], atol=0.002)


@pytest.mark.parametrize("path", [*SHIPPED, *OTHERS], ids=lambda path: path.stem)
def test_with_our_windows_few_more_words_are_wrong_and_the_speakers_are_as_many(
    path: Path, engine: SpeechEngine, plain: Plain
) -> None:
    recording = recordings.read(path)
    expected = plain(path)
    heard = ours(engine, path.read_bytes(), 60.0, "silero")
    truth = recording.truth
    errors, plain_errors = (word_error_rate(truth["text"], each.text) for each in (heard, expected))
    print(f"{path.stem}: words wrong {errors:.2%}, plain whisperx {plain_errors:.2%}, speakers {heard.speakers}")
    assert errors <= plain_errors + 0.01
    if expected.speakers == len(truth["speakers"]):
        assert heard.speakers == expected.speakers


def test_the_transcript_does_not_depend_on_the_chunk_length(engine: SpeechEngine, tmp_path: Path) -> None:
    """P4 on ten minutes: 60 s, 300 s, and the whole file as one chunk give the same bytes in every result file."""
    recording = recordings.long_recording(10)
    assert recording.duration_s >= 600
    file = tmp_path / "long.flac"
    flac.write(file, recording.samples)
    heard = {chunk_s: ours(engine, file.read_bytes(), chunk_s, "silero", "auto") for chunk_s in (60.0, 300.0, 36_000.0)}
    assert heard[60.0].document == heard[300.0].document == heard[36_000.0].document
    assert len(words(heard[60.0].text).split()) > 1000
    assert SAMPLE_RATE_HZ == 16_000
