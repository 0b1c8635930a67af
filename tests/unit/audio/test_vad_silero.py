"""Streamed silero says what faster-whisper's own says of the whole file."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from consumer.audio.vad_silero import SileroStream, model_file, silero_windows
from consumer.core.windows import Decided
from consumer.events import VadOptions
from tests.unit.audio.sources import decode_all

HZ = 16_000
SPEECH = decode_all((Path(__file__).parents[3] / "demo/recordings/conversation-90s.flac").read_bytes()).samples
VOICE = np.concatenate(
    [SPEECH[:0], *(np.pad(SPEECH[a * HZ : b * HZ], (2 * HZ, 3 * HZ)) for a, b in ((0, 24), (24, 31)))]
)
"""Two stretches of the demo conversation, 2-26 s and 31-38 s, with silence before, between and behind."""


def probabilities(block: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    stream = SileroStream()
    parts = [stream.feed(VOICE[at : at + block]) for at in range(0, len(VOICE), block)]
    return np.concatenate([*parts, stream.finish()])


@pytest.mark.models
def test_probabilities_are_those_of_faster_whisper_on_the_whole_file() -> None:
    from faster_whisper.vad import get_vad_model

    whole = VOICE.astype(np.float32) / 32768
    theirs = get_vad_model()(np.pad(whole, (0, 512 - len(whole) % 512))).reshape(-1)
    ours = probabilities(32_768)
    assert theirs.max() > 0.5
    assert theirs.min() < 0.1
    assert np.abs(ours - theirs[: len(ours)])[:-1].max() < 1e-5


def test_the_file_is_found_without_loading_faster_whisper() -> None:
    assert model_file().name.startswith("silero_vad")
    code = "import sys; from consumer.audio.vad_silero import model_file; model_file(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "onnxruntime" in modules
    assert not {"faster_whisper", "ctranslate2", "torch"} & set(modules)


def test_not_one_bit_depends_on_the_sizes_of_the_blocks() -> None:
    whole = probabilities(len(VOICE))
    for block in (999, 8192, 131_072, 200_000):
        assert np.array_equal(probabilities(block), whole)


def windows(block: int, vad: VadOptions) -> list[Decided]:
    policy = silero_windows(vad, 12.0)
    return [*(policy.feed(VOICE[at : at + block]) for at in range(0, len(VOICE), block)), policy.finish()]


def test_windows_hold_the_voice_and_end_in_pauses() -> None:
    found = [(w.start_s, w.end_s) for part in windows(32_768, VadOptions()) for w in part.windows]
    assert all(end_s - start_s <= 12 for start_s, end_s in found)
    for second in (4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 33.0, 36.0):
        assert any(start_s < second + 1 and second < end_s for start_s, end_s in found), second
    for second in (1, 27.5, 29.5, 39.5, 40.5):
        assert not any(start_s <= second < end_s for start_s, end_s in found), second


def test_a_window_is_given_as_soon_as_it_is_final() -> None:
    decided = windows(16_000, VadOptions())
    assert [w for part in decided[:25] for w in part.windows]
    assert all(a.upto <= b.upto for a, b in pairwise(decided))
    assert decided[-1].upto == len(VOICE)


def test_a_higher_onset_hears_less() -> None:
    def seconds(onset: float) -> float:
        parts = windows(32_768, VadOptions(onset=onset))
        return math.fsum(w.end_s - w.start_s for part in parts for w in part.windows)

    assert seconds(0.95) < seconds(0.2)
