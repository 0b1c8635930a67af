"""Speech and its word times from espeak-ng; skipped where it is not installed."""

import ctypes
import random

import numpy as np
import pytest

from demo.training import conversation, voices
from demo.training.espeak import Espeak, MissingSynthesiser
from demo.training.speech import SAMPLE_RATE_HZ, Speech


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    try:
        return Espeak()
    except MissingSynthesiser as missing:
        pytest.skip(str(missing))


def say(espeak: Espeak, text: str) -> Speech:
    return voices.say(espeak, text, voices.demo_voice(7), random.Random(0))


def test_every_word_has_its_time(espeak: Espeak) -> None:
    speech = say(espeak, "Please check the old invoice.")
    assert [word.text for word in speech.words] == ["Please", "check", "the", "old", "invoice."]
    starts = [word.start_s for word in speech.words]
    assert starts == sorted(starts)
    assert speech.words[-1].end_s <= len(speech.samples) / SAMPLE_RATE_HZ


def test_merged_words_share_their_time(espeak: Espeak) -> None:
    """espeak-ng speaks "of the" as one word, with one event."""
    speech = say(espeak, "The end of the story.")
    assert [word.text for word in speech.words] == ["The", "end", "of", "the", "story."]
    assert all(word.end_s > word.start_s for word in speech.words)


def test_speech_has_one_level_and_no_silence_around_it(espeak: Espeak) -> None:
    speech = say(espeak, "The number is seven.")
    assert float(np.sqrt(np.mean(speech.samples**2))) == pytest.approx(voices.RMS, rel=0.02)
    assert np.abs(speech.samples[:400]).max() > 0.001


def test_an_unknown_voice_is_an_error(espeak: Espeak) -> None:
    with pytest.raises(ValueError, match="no voice"):
        espeak.speak("Hello.", "nowhere/nobody", speed_wpm=160, pitch=50, pitch_range=50)


def test_two_neighbouring_turns_have_two_speakers(espeak: Espeak) -> None:
    made = conversation.converse(seed=5, seconds=25, speakers=3, espeak=espeak)
    speakers = [segment.speaker for segment in made.segments]
    assert 25 <= made.duration_s < 35
    assert set(speakers) <= {"S0", "S1", "S2"}
    assert len(set(speakers)) > 1


def test_a_cast_has_voices_of_different_families() -> None:
    for seed in range(50):
        cast = conversation.cast(random.Random(seed), 5)
        assert len({voice.variant[:3] for voice in cast}) == 5


def test_a_cast_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="families"):
        conversation.cast(random.Random(0), 9)


def test_a_missing_library_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", not_there)
    with pytest.raises(MissingSynthesiser, match="apt-get install"):
        Espeak()
