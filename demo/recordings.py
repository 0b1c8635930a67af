"""The recordings that we ship, with their truth, and a longer one made of them.

They lie in the folder `recordings`; `demo.training.conversation` made them. Nothing here needs a synthesiser.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from demo.training import flac
from demo.training.speech import SAMPLE_RATE_HZ, Samples

FOLDER = Path(__file__).parent / "recordings"
NAMES = ("conversation-90s", "conversation-5min")

Truth = dict[str, Any]
"""The contents of a `.truth.json`: text, speakers, and turns, segments and words with start_s, end_s, speaker."""


@dataclass(frozen=True)
class Recording:
    samples: Samples
    truth: Truth

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def flac_file(name: str) -> Path:
    return FOLDER / f"{name}.flac"


def truth_file(name: str) -> Path:
    return FOLDER / f"{name}.truth.json"


def shipped(name: str) -> Recording:
    """One of NAMES."""
    return read(flac_file(name))


def read(path: Path) -> Recording:
    """A FLAC file, and its truth beside it, as `write` leaves them."""
    return Recording(flac.read(path), json.loads(path.with_suffix(".truth.json").read_text()))


def long_recording(minutes: float, name: str = "conversation-5min", seed: int = 0) -> Recording:
    """A longer conversation, of at least so many minutes: the turns of a shipped one in ever new order.

    The same arguments give the same samples. Turns are cut apart in the middle of the pauses between them, so
    every join lies in the background noise.
    """
    recording = shipped(name)
    turns = _turns(recording)
    r = random.Random(seed)  # noqa: S311  (an order that repeats, no secret)
    played: list[_Turn] = []
    while sum(turn.duration_s for turn in played) < minutes * 60:
        played += r.sample(turns, len(turns))
    return _joined(played)


def write(recording: Recording, path: Path) -> None:
    """The FLAC file, and its truth beside it."""
    flac.write(path, recording.samples)
    path.with_suffix(".truth.json").write_text(json.dumps(recording.truth, indent=1) + "\n")


@dataclass(frozen=True)
class _Turn:
    """A turn cut out of a recording, with half the pauses around it. Times begin with the cut."""

    samples: Samples
    turn: Truth
    segments: tuple[Truth, ...]
    words: tuple[Truth, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def _turns(recording: Recording) -> list[_Turn]:
    turns, truth = recording.truth["turns"], recording.truth
    pauses_s = [(before["end_s"] + after["start_s"]) / 2 for before, after in pairwise(turns)]
    cuts = [0, *(round(pause_s * SAMPLE_RATE_HZ) for pause_s in pauses_s), len(recording.samples)]
    return [
        _Turn(
            samples=recording.samples[first:end],
            turn=_shifted([turn], -first)[0],
            segments=tuple(_shifted(_inside(truth["segments"], turn), -first)),
            words=tuple(_shifted(_inside(truth["words"], turn), -first)),
        )
        for turn, (first, end) in zip(turns, pairwise(cuts), strict=True)
    ]


def _inside(spans: Sequence[Truth], turn: Truth) -> list[Truth]:
    return [span for span in spans if turn["start_s"] <= span["start_s"] < turn["end_s"]]


def _shifted(spans: Sequence[Truth], by_samples: int) -> list[Truth]:
    by_s = by_samples / SAMPLE_RATE_HZ
    return [
        span | {"start_s": round(span["start_s"] + by_s, 3), "end_s": round(span["end_s"] + by_s, 3)} for span in spans
    ]


def _joined(played: Sequence[_Turn]) -> Recording:
    """The turns one after the other. Two of one speaker may meet, and stay two turns."""
    samples = np.concatenate([turn.samples for turn in played])
    starts = np.cumsum([0, *(len(turn.samples) for turn in played)])
    segments, words, turns = [], [], []
    for turn, start in zip(played, starts[:-1], strict=True):
        turns += _shifted([turn.turn], int(start))
        segments += _shifted(turn.segments, int(start))
        words += _shifted(turn.words, int(start))
    truth = {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "duration_s": round(len(samples) / SAMPLE_RATE_HZ, 4),
        "speakers": sorted({turn["speaker"] for turn in turns}),
        "text": " ".join(segment["text"] for segment in segments),
        "turns": turns,
        "segments": segments,
        "words": words,
    }
    return Recording(samples, truth)
