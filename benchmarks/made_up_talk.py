"""A talk of many speakers as diarization's map step would have left it, without any sound: for hours of material.

Who speaks when is drawn first and is the truth. Scores are what a segmentation model makes of it (five-second windows
every second, at most three local speakers, borders a few frames off). Embeddings have the spread that the demo's model
shows on the shipped conversations: a voice's own mean, and noise drawn per second of its speech, so that windows that
share four of five seconds are alike (cosine 0.95), windows far apart less so (0.77), and short ones are the noisiest.
Some windows are wrong as real ones are: two voices taken for one. The same arguments give the same talk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumer.core.speech import Activity, Turn

WINDOW_S, STEP_S, FRAMES, LOCAL_SPEAKERS, DIMENSION = 5, 1, 293, 3, 64
"""The grid and the shapes of the demo model."""
FRAME_S = WINDOW_S / FRAMES
SHARE = 0.8
"""Each speaker has this much of the speech of the one before: of twenty the last has 0.3 %, 100 s in ten hours."""
TURN_S, PAUSE_S = 6.0, 0.6
"""Mean lengths; both are drawn from exponential distributions."""
INTERRUPTED = 0.12
"""Share of turns that begin before the one before has ended."""
NOISE = 1.0
"""Variance of an embedding of one second around its voice's mean, which has length 1."""
TAKEN_FOR_ONE = 0.02
"""Share of windows with two voices in which the model hears one."""
CLEAN_FRAMES = 20
"""With fewer frames of a voice alone than this, what it says together with others is embedded too."""

Masks = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Voices:
    """(speakers, DIMENSION) each: where a voice lies, and how its noise is spread over the dimensions."""

    means: Floats
    spread: Floats

    @classmethod
    def draw(cls, speakers: int, noise: float, random: np.random.Generator) -> Voices:
        """Pairs of voices are of one family, so that some are hard to tell apart (cosine about 0.4)."""
        families = random.normal(size=(-(-speakers // 2), DIMENSION)).repeat(2, axis=0)[:speakers]
        means = random.normal(size=(speakers, DIMENSION)) + 0.8 * families
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        spread = np.exp(random.normal(0, 1, size=(1, DIMENSION)))
        return cls(means.astype(np.float32), np.sqrt(noise * spread / spread.sum()).astype(np.float32))


def turns(hours: float, speakers: int, seed: int) -> list[Turn]:
    """Who speaks when. Everyone speaks once at least, if the talk is long enough."""
    random = np.random.default_rng([seed, 1])
    shares = SHARE ** np.arange(speakers)
    order = list(random.permutation(speakers))
    said: list[Turn] = []
    at_s, before = 1.0, -1
    while at_s < hours * 3600 - 1:
        speaker = before
        while speaker == before:
            wanted = order.pop() if order and len(said) % 5 == 4 else random.choice(speakers, p=shares / shares.sum())
            speaker = int(wanted)
        length_s = 0.8 + random.exponential(TURN_S)
        end_s = min(at_s + length_s, hours * 3600 - 1)
        said.append(Turn(round(at_s, 3), round(end_s, 3), f"VOICE_{speaker:02d}"))
        interrupts = random.random() < INTERRUPTED
        at_s = (
            end_s - min(random.exponential(1.0), 0.5 * length_s) if interrupts else end_s + random.exponential(PAUSE_S)
        )
        before = speaker
    return said


def activities(
    said: list[Turn], hours: float, speakers: int, seed: int, *, windows_each: int = 600, noise: float = NOISE
) -> Iterator[Activity]:
    """What chunks of so many windows store, one after the other."""
    random = np.random.default_rng([seed, 2])
    voices = Voices.draw(speakers, noise, random)
    noises = _Noises(voices, seed)
    windows = int((hours * 3600 - WINDOW_S) / STEP_S) + 1
    first_turn = 0
    for first in range(0, windows, windows_each):
        count = min(windows_each, windows - first)
        scores = np.zeros((count, FRAMES, LOCAL_SPEAKERS), dtype=np.float32)
        embeddings = np.full((count, LOCAL_SPEAKERS, DIMENSION), np.nan, dtype=np.float32)
        for row in range(count):
            start_s = float((first + row) * STEP_S)
            while first_turn < len(said) and said[first_turn].end_s < start_s - 60:
                first_turn += 1
            masks, who = _heard(said, first_turn, start_s, random)
            for local in range(len(who)):
                scores[row, :, local] = _scores(masks[local], random)
                embeddings[row, local] = _embedding(masks, local, who, int(start_s), voices, noises)
            silent = LOCAL_SPEAKERS - len(who)
            scores[row, :, len(who) :] = random.uniform(0.0, 0.05, size=(FRAMES, silent))
        yield Activity(first, scores, embeddings)


def _heard(said: list[Turn], first: int, start_s: float, random: np.random.Generator) -> tuple[Masks, list[list[int]]]:
    """Masks of the local speakers, (local speakers, FRAMES), in order of appearance, and the voices each one is."""
    masks: dict[int, Masks] = {}
    for turn in said[first:]:
        if turn.start_s >= start_s + WINDOW_S:
            break
        begin, end = ((at_s - start_s) / FRAME_S + random.normal(0, 2) for at_s in (turn.start_s, turn.end_s))
        frames = slice(max(0, round(begin)), max(0, round(end)))
        if turn.end_s > start_s and frames.start < min(frames.stop, FRAMES):
            masks.setdefault(int(turn.speaker[-2:]), np.zeros(FRAMES, dtype=np.bool_))[frames] = True
    loudest = sorted(masks, key=lambda voice: -int(masks[voice].sum()))[:LOCAL_SPEAKERS]
    chosen = [voice for voice in masks if voice in loudest]
    if len(chosen) > 1 and random.random() < TAKEN_FOR_ONE:
        one, other = chosen[:2]
        merged = [masks[one] | masks[other], *(masks[voice] for voice in chosen[2:])]
        return np.array(merged), [[one, other], *([voice] for voice in chosen[2:])]
    return np.array([masks[voice] for voice in chosen]).reshape(-1, FRAMES), [[voice] for voice in chosen]


def _scores(mask: Masks, random: np.random.Generator) -> Floats:
    certain = random.beta(30, 1, size=FRAMES).astype(np.float32)
    return np.where(mask, certain, 1 - certain)


def _embedding(masks: Masks, local: int, who: list[list[int]], second: int, voices: Voices, noises: _Noises) -> Floats:
    clean = masks[local] & (masks.sum(axis=0) < 2)
    alone = int(clean.sum()) > CLEAN_FRAMES
    heard = clean if alone else masks[local]
    total = max(int(heard.sum()), 1)
    speaking = who[local] if alone else [voice for row in who for voice in row]
    embedding = np.zeros(DIMENSION, dtype=np.float32)
    for voice in speaking:
        embedding += voices.means[voice] / len(speaking)
        for cell in range(WINDOW_S):
            frames = slice(cell * FRAMES // WINDOW_S, (cell + 1) * FRAMES // WINDOW_S)
            share = float(heard[frames].sum()) / total / len(speaking)
            if share:
                embedding += share * noises.of(voice, second + cell)
    return 6 * embedding


class _Noises:
    """What a voice adds to its mean in a second of the recording; the last few are kept."""

    def __init__(self, voices: Voices, seed: int) -> None:
        self._voices, self._seed = voices, seed
        self._kept: dict[tuple[int, int], Floats] = {}

    def of(self, voice: int, second: int) -> Floats:
        if (voice, second) not in self._kept:
            if len(self._kept) > 1_000:
                self._kept.clear()
            normal = np.random.default_rng([self._seed, 3, voice, second]).normal(size=DIMENSION).astype(np.float32)
            self._kept[voice, second] = normal * self._voices.spread[0]
        return self._kept[voice, second]
