"""Conversations of the demo voices with their truth; the same seed and length give the same conversation.

    python -m demo.training.conversation demo/recordings/conversation-90s.flac --seed 1 --seconds 90 --speakers 2

writes the recording and, beside it, conversation-90s.truth.json. espeak-ng keeps state from call to call, so a seed
repeats itself to the sample only in a fresh process; one process makes one conversation.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo.training import flac, grammar, voices
from demo.training.espeak import Espeak
from demo.training.speech import SAMPLE_RATE_HZ, Samples, Word

NOISE = 10**-3.2
"""Level of the background, 41 dB below the speech: the samples are not silent between the turns."""
WITHIN_TURN_S = 0.6
"""Pauses up to this long, of one speaker, belong to the turn. The longest one between two sentences is 0.5 s."""


@dataclass(frozen=True)
class Segment:
    """One sentence of one speaker, with the times of its words in the recording."""

    start_s: float
    end_s: float
    speaker: str
    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Conversation:
    samples: Samples
    segments: tuple[Segment, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def cast(r: random.Random, speakers: int) -> list[voices.EspeakVoice]:
    """Demo voices of different families ("steph" and "steph2" are one), up to seven."""
    variants = list(range(len(voices.DEMO_VARIANTS)))
    r.shuffle(variants)
    chosen: dict[str, voices.EspeakVoice] = {}
    for variant in variants:
        family = voices.DEMO_VARIANTS[variant][:3]
        if family not in chosen and len(chosen) < speakers:
            seed = variant + len(voices.DEMO_VARIANTS) * r.randint(20_000, 90_000)
            chosen[family] = voices.demo_voice(seed)
    if len(chosen) < speakers:
        raise ValueError(f"There are {len(chosen)} families of demo voices, not {speakers}")
    return list(chosen.values())


def converse(seed: int, seconds: float, speakers: int, espeak: Espeak) -> Conversation:
    """Speakers take turns of one to four sentences until `seconds` are reached; a few seconds more come out."""
    r = random.Random(seed * 104_729 + 11)
    scene = _Scene(r, cast(r, speakers), espeak)
    while scene.duration_s < seconds:
        scene.take_turn(seconds)
    samples = np.concatenate(scene.pieces)
    background = np.random.default_rng(seed).standard_normal(len(samples)).astype(np.float32) * NOISE
    return Conversation(np.clip(samples + background, -1, 1).astype(np.float32), tuple(scene.segments))


class _Scene:
    def __init__(self, r: random.Random, cast: Sequence[voices.EspeakVoice], espeak: Espeak) -> None:
        self._r, self._cast, self._espeak = r, cast, espeak
        self._levels = [r.uniform(0.7, 1.3) for _ in cast]
        self._speaking = -1
        self.pieces: list[Samples] = []
        self.segments: list[Segment] = []
        self._n = 0
        self._pause(0.3)

    @property
    def duration_s(self) -> float:
        return self._n / SAMPLE_RATE_HZ

    def take_turn(self, until_s: float) -> None:
        r = self._r
        others = [k for k in range(len(self._cast)) if k != self._speaking or len(self._cast) == 1]
        self._speaking = r.choice(others)
        for _ in range(r.choice([1, 1, 2, 2, 3, 4])):
            self._say_sentence()
            self._pause(r.uniform(0.2, 0.5))
            if self.duration_s > until_s:
                break
        self._pause(r.uniform(0.1, 0.7) if r.random() > 0.05 else r.uniform(1, 3))

    def _say_sentence(self) -> None:
        voice, start_s = self._cast[self._speaking], self.duration_s
        text = grammar.english(self._r)
        speech = voices.say(self._espeak, text, voice, self._r)
        if not speech.words:
            raise RuntimeError(f"espeak-ng gave no word times for {text!r}; take another seed")
        self._add(speech.samples * self._levels[self._speaking])
        words = tuple(
            Word(word.text, round(float(word.start_s + start_s), 3), round(float(word.end_s + start_s), 3))
            for word in speech.words
        )
        speaker = f"S{self._speaking}"
        self.segments.append(Segment(round(start_s, 3), round(self.duration_s, 3), speaker, text, words))

    def _pause(self, length_s: float) -> None:
        self._add(np.zeros(int(length_s * SAMPLE_RATE_HZ), np.float32))

    def _add(self, samples: Samples) -> None:
        self.pieces.append(samples)
        self._n += len(samples)


def truth(conversation: Conversation, **facts: Any) -> dict[str, Any]:
    """What was said, by whom and when, as it is written beside the recording."""
    segments = conversation.segments
    return facts | {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "duration_s": round(conversation.duration_s, 4),
        "speakers": sorted({segment.speaker for segment in segments}),
        "text": " ".join(segment.text for segment in segments),
        "turns": list(turns(segments)),
        "segments": [{"start_s": s.start_s, "end_s": s.end_s, "speaker": s.speaker, "text": s.text} for s in segments],
        "words": [asdict(word) | {"speaker": segment.speaker} for segment in segments for word in segment.words],
    }


def turns(segments: Sequence[Segment]) -> Iterator[dict[str, Any]]:
    """Sentences of one speaker with pauses up to WITHIN_TURN_S, as one span."""
    started = segments[0]
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        goes_on = (
            following is not None
            and following.speaker == segment.speaker
            and following.start_s - segment.end_s <= WITHIN_TURN_S
        )
        if not goes_on:
            yield {"start_s": started.start_s, "end_s": segment.end_s, "speaker": segment.speaker}
            started = following if following is not None else started


def truth_file(recording: Path) -> Path:
    return recording.with_suffix(".truth.json")


def write(recording: Path, seed: int, seconds: float, speakers: int, espeak: Espeak) -> None:
    """The FLAC file, then its truth: where the truth is, both are whole."""
    made = converse(seed, seconds, speakers, espeak)
    flac.write(recording, made.samples)
    truth_file(recording).write_text(json.dumps(truth(made, seed=seed), indent=1) + "\n")


def write_in_fresh_process(recording: Path, seed: int, seconds: float, speakers: int) -> None:
    command = [sys.executable, "-m", __name__, str(recording)]
    subprocess.run([*command, f"--seed={seed}", f"--seconds={seconds}", f"--speakers={speakers}"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recording", type=Path, help="the FLAC file to write")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--speakers", type=int, required=True)
    chosen = parser.parse_args()
    write(chosen.recording, chosen.seed, chosen.seconds, chosen.speakers, Espeak())


if __name__ == "__main__":
    main()
