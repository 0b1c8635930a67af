"""Training windows: utterances joined with pauses, some cut as a voice-activity detector cuts, in noise.

A few hold no speech at all: their transcript is empty.
"""

import random
from dataclasses import dataclass

import numpy as np

from demo.training.corpus import Corpus, Utterance
from demo.training.speech import SAMPLE_RATE_HZ, Samples, Word


@dataclass(frozen=True)
class Mix:
    """Shares between 0 and 1: how often a window, or an utterance in it, is of that kind."""

    german: float = 0.08
    no_speech: float = 0.03
    cut: float = 0.2
    """Utterances that begin or end inside the sentence."""
    demo: float = 0.0
    """Utterances of the demo voices."""
    stop: float = 0.06
    """After each utterance: the rest of the window stays empty."""
    long_pause: float = 0.0
    """Pauses of 1 to 3.5 s instead of at most 1.5 s."""
    late_start: float = 0.0
    """Windows that begin with silence of up to 70 %."""


@dataclass(frozen=True)
class Window:
    samples: Samples
    text: str
    language: str
    words: tuple[Word, ...] | None
    """None when the times of some words are not known (flite)."""


def compose(corpus: Corpus, length_s: float, r: random.Random, mix: Mix) -> Window:
    """One window of `length_s` seconds."""
    n = int(length_s * SAMPLE_RATE_HZ)
    language = "de" if r.random() < mix.german else "en"
    if r.random() < mix.no_speech:
        return Window(_clipped(without_speech(n, r)), "", language, ())
    pool = _pool(corpus, language, r, mix)
    samples, texts, words, known = np.zeros(n, np.float32), [], [], True
    position = int(_start_s(length_s, r, mix) * SAMPLE_RATE_HZ)
    misfits = 0
    while misfits < 4:
        utterance = r.choice(pool)
        said, text, its_words = _perhaps_cut(corpus.samples(utterance), utterance, r, mix)
        if position + len(said) > n:
            misfits += 1
            continue
        samples[position : position + len(said)] = said * r.uniform(0.6, 1.4)
        texts.append(text)
        known = known and bool(its_words)
        words += [word.shifted(position / SAMPLE_RATE_HZ) for word in its_words]
        position += len(said) + int(_pause_s(r, mix) * SAMPLE_RATE_HZ)
        if r.random() < mix.stop:
            break
    if r.random() < 0.6 or not texts:
        samples = samples + noise(n, r) * 10 ** r.uniform(-4.2, -2.2)
    samples = _clipped(samples * 10 ** r.uniform(-0.5, 0.4))
    return Window(samples, " ".join(texts), language, tuple(words) if known else None)


def noise(n: int, r: random.Random) -> Samples:
    """White or low noise of level 1, (n,)."""
    samples = np.random.default_rng(r.getrandbits(32)).standard_normal(n).astype(np.float32)
    if r.random() < 0.5:
        mean = np.ones(r.randint(2, 8), np.float32) / 3
        return np.convolve(samples, mean, "same").astype(np.float32)
    return samples


def without_speech(n: int, r: random.Random) -> Samples:
    """Silence, noise, tones, beeps, hum or clicks, (n,): a window whose transcript is empty."""
    kind = r.random()
    if kind < 0.25:
        silence = np.zeros(n, np.float32)
        return silence if r.random() < 0.6 else noise(n, r) * 10 ** r.uniform(-5, -4)
    samples = np.zeros(n, np.float32)
    if kind >= 0.6:
        samples = _tones(n, r)
        if r.random() < 0.4:
            return samples
    return samples + noise(n, r) * 10 ** r.uniform(-4.2, -1)


def _tones(n: int, r: random.Random) -> Samples:
    """One to three tones, sometimes as beeps, or hum with overtones; sometimes with clicks."""
    t = np.arange(n, dtype=np.float32) / SAMPLE_RATE_HZ
    samples = np.zeros(n, np.float32)
    hum_hz = r.choice([50, 60, 100, 120]) if r.random() < 0.3 else 0
    for overtone in range(r.randint(1, 3)):
        tone_hz = hum_hz * (overtone + 1) if hum_hz else 60 * (4000 / 60) ** r.random()
        samples += 10 ** r.uniform(-2.3, -0.6) * np.sin(2 * np.pi * tone_hz * t + r.uniform(0, 6)).astype(np.float32)
    if not hum_hz and r.random() < 0.5:
        samples *= (t * r.uniform(0.3, 4)) % 1 < r.uniform(0.1, 0.9)
    if r.random() < 0.3:
        samples[[r.randrange(n) for _ in range(r.randint(1, 40))]] += r.uniform(0.1, 0.8)
    return samples


def _pool(corpus: Corpus, language: str, r: random.Random, mix: Mix) -> list[Utterance]:
    if language == "de":
        return corpus.german
    return corpus.demo if r.random() < mix.demo else corpus.english


def _start_s(length_s: float, r: random.Random, mix: Mix) -> float:
    return r.uniform(0, 0.35) if r.random() >= mix.late_start else r.uniform(0, 0.7 * length_s)


def _pause_s(r: random.Random, mix: Mix) -> float:
    if r.random() < mix.long_pause:
        return r.uniform(1, 3.5)
    return r.choice([r.uniform(0.05, 0.3), r.uniform(0.15, 0.9), r.uniform(0.3, 1.5)])


def _perhaps_cut(
    samples: Samples, utterance: Utterance, r: random.Random, mix: Mix
) -> tuple[Samples, str, tuple[Word, ...]]:
    """Begin or end inside the sentence, 20 ms from a word, as a voice-activity detector does."""
    words = utterance.words
    if not words or r.random() >= mix.cut or len(words) <= 3:
        return samples, utterance.text, words
    k = r.randint(1, len(words) - 2)
    if r.random() < 0.5:
        first = max(0, int((words[k].start_s - 0.02) * SAMPLE_RATE_HZ))
        samples = samples[first:]
        words = tuple(word.shifted(-first / SAMPLE_RATE_HZ) for word in words[k:])
    else:
        samples = samples[: int((words[k - 1].end_s + 0.02) * SAMPLE_RATE_HZ)]
        words = words[:k]
    return samples, " ".join(word.text for word in words), words


def _clipped(samples: Samples) -> Samples:
    return np.clip(samples, -1, 1).astype(np.float32)
