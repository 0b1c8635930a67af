"""Synthetic speakers, and what they say.

espeak-ng speaks with 56 variants in 6 accents; a speaker is one of them with pitch, speed and a resampling factor of
its own. flite adds four voices of another kind. Ten variants are the *demo voices*: the conversations that we ship and
measure speak with them, and the speaker embedding never hears them in its training.
"""

import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from demo.training.espeak import Espeak, MissingSynthesiser
from demo.training.grammar import listed
from demo.training.speech import SAMPLE_RATE_HZ, Samples, Speech, Word

VARIANTS = listed(
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 adam Alex Alicia Andrea Andy Annie aunty "
    "belinda benjamin boris caleb david Denis ed edward edward2 Gene Gene2 gustave Jacky john Lee linda marcelo Marco "
    "Mario max Michael michel Mike norbert paul quincy rob robert steph steph2 steph3 travis victor zac shelby sandro"
)
DEMO_VARIANTS = VARIANTS[-10:]
ACCENTS = listed(
    "gmw/en-US gmw/en-US gmw/en-US gmw/en gmw/en gmw/en-GB-x-rp gmw/en-GB-scotland gmw/en-US-nyc gmw/en-029"
)
FLITE_VOICES = ["kal16", "slt", "rms", "awb"]
FIRST_FLITE_ID, FIRST_DEMO_ID = 1000, 5000
"""Ids below the first are espeak-ng speakers; their number modulo the number of variants is the variant."""

RMS = 0.07
"""Every utterance is brought to this level, so that the gain is decided where utterances are joined."""


@dataclass(frozen=True)
class EspeakVoice:
    id: int
    variant: str
    accent: str
    speed_wpm: int
    pitch: int
    pitch_range: int
    resample: float
    """Above 1 raises pitch and formants together: another vocal tract."""


@dataclass(frozen=True)
class FliteVoice:
    id: int
    name: str


Voice = EspeakVoice | FliteVoice


def espeak_voice(seed: int) -> EspeakVoice:
    """The speaker of this number, of all variants and accents."""
    r = random.Random(seed * 7919 + 13)
    return EspeakVoice(
        id=seed,
        variant=VARIANTS[seed % len(VARIANTS)],
        accent=r.choice(ACCENTS),
        speed_wpm=r.randint(135, 185),
        pitch=r.randint(20, 80),
        pitch_range=r.randint(30, 70),
        resample=r.choice([0.92, 0.95, 0.98, 1.0, 1.02, 1.05, 1.08]),
    )


def demo_voice(seed: int) -> EspeakVoice:
    """A speaker of the demo voices: ten variants, two accents, narrower pitch and speed."""
    r = random.Random(seed * 6151 + 7)
    variant = seed % len(DEMO_VARIANTS)
    return EspeakVoice(
        id=FIRST_DEMO_ID + variant,
        variant=DEMO_VARIANTS[variant],
        accent=r.choice(["gmw/en-US", "gmw/en"]),
        speed_wpm=r.randint(140, 172),
        pitch=r.randint(25, 75),
        pitch_range=r.randint(40, 60),
        resample=r.choice([0.95, 0.98, 1.0, 1.02, 1.05]),
    )


def flite_voice(seed: int) -> FliteVoice:
    number = seed % len(FLITE_VOICES)
    return FliteVoice(FIRST_FLITE_ID + number, FLITE_VOICES[number])


def require_synthesisers() -> None:
    """Raises MissingSynthesiser unless espeak-ng's library and flite are installed."""
    Espeak()
    if shutil.which("flite") is None:
        raise MissingSynthesiser("The command flite")


def say(espeak: Espeak, text: str, voice: Voice, r: random.Random, language: str = "en") -> Speech:
    """Speech at 16 kHz without silence around it, at the level RMS; flite's has no word times."""
    if isinstance(voice, FliteVoice):
        return _trimmed(_flite(text, voice, r), [])
    name = ("gmw/de" if language == "de" else voice.accent) + "+" + voice.variant
    samples, words = espeak.speak(
        text,
        name,
        speed_wpm=voice.speed_wpm + r.randint(-8, 8),
        pitch=min(99, max(0, voice.pitch + r.randint(-4, 4))),
        pitch_range=voice.pitch_range,
    )
    down = round(441 * voice.resample)  # 22,050 Hz to 16,000 Hz is 320 to 441
    resampled = resample_poly(samples, 320, down).astype(np.float32)
    f = voice.resample
    return _trimmed(resampled, [Word(word.text, word.start_s / f, word.end_s / f) for word in words])


def _flite(text: str, voice: FliteVoice, r: random.Random) -> Samples:
    stretch = f"duration_stretch={r.uniform(0.9, 1.15):.2f}"
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice.name, "--setf", stretch, "-t", text, "-o", file.name]
        subprocess.run(command, check=True)
        rate_hz, pcm = wavfile.read(file.name)
    samples: Samples = pcm.astype(np.float32) / np.float32(32768)
    return resample_poly(samples, 2, 1).astype(np.float32) if rate_hz == 8000 else samples


def _trimmed(samples: Samples, words: list[Word]) -> Speech:
    """Without the silence before and after (10 ms of it stay), at the level RMS."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max() + 1e-6)
    if len(loud) == 0:
        return Speech(np.zeros(0, np.float32), ())
    first, last = max(0, loud[0] - 160), min(len(samples), loud[-1] + 160)
    samples = samples[first:last]
    start_s, duration_s = first / SAMPLE_RATE_HZ, len(samples) / SAMPLE_RATE_HZ
    inside = tuple(
        Word(word.text, max(0.0, word.start_s - start_s), min(duration_s, word.end_s - start_s)) for word in words
    )
    level = RMS / (np.sqrt(np.mean(samples**2)) + 1e-9)
    return Speech(np.clip(samples * level, -0.99, 0.99).astype(np.float32), inside)
