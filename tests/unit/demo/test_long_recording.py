"""A longer recording is the shipped one in another order."""

import numpy as np
import pytest

from demo import recordings
from demo.recordings import Recording
from demo.training.speech import SAMPLE_RATE_HZ, Samples


@pytest.fixture(scope="module")
def source() -> Recording:
    return recordings.shipped("conversation-90s")


@pytest.fixture(scope="module")
def long(source: Recording) -> Recording:
    return recordings.long_recording(4, name="conversation-90s", seed=3)


def said(recording: Recording, turn: dict[str, float]) -> str:
    words = recording.truth["words"]
    return " ".join(w["text"] for w in words if turn["start_s"] <= w["start_s"] < turn["end_s"])


def heard(recording: Recording, turn: dict[str, float]) -> Samples:
    first = round(turn["start_s"] * SAMPLE_RATE_HZ)
    return recording.samples[first + 160 : first + SAMPLE_RATE_HZ // 2]


def test_it_is_at_least_as_long_as_asked(long: Recording) -> None:
    assert 4 * 60 <= long.duration_s < 4 * 60 + 95


def test_every_turn_sounds_as_in_the_source(source: Recording, long: Recording) -> None:
    """The samples at a turn's time are those of the turn with the same words, up to the rounding of times to 1 ms."""
    sources = {said(source, turn): turn for turn in source.truth["turns"]}
    for turn in long.truth["turns"]:
        same = sources[said(long, turn)]
        assert turn["speaker"] == same["speaker"]
        assert best_match(heard(long, turn), source, same) > 0.999


def best_match(samples: Samples, source: Recording, turn: dict[str, float]) -> float:
    """Correlation at the best shift of up to 1.5 ms."""
    first = round(turn["start_s"] * SAMPLE_RATE_HZ) + 160
    shifted = [source.samples[first + shift : first + shift + len(samples)] for shift in range(-24, 25)]
    return max(float(np.corrcoef(samples, other)[0, 1]) for other in shifted)


def test_the_order_is_new_and_every_turn_comes_back(source: Recording, long: Recording) -> None:
    once = [said(source, turn) for turn in source.truth["turns"]]
    again = [said(long, turn) for turn in long.truth["turns"]]
    assert again[: len(once)] != once
    assert sorted(again[: len(once)]) == sorted(once)


def test_the_same_arguments_give_the_same_recording(long: Recording) -> None:
    again = recordings.long_recording(4, name="conversation-90s", seed=3)
    assert np.array_equal(again.samples, long.samples)
    assert again.truth == long.truth


def test_another_seed_gives_another_order(long: Recording) -> None:
    other = recordings.long_recording(4, name="conversation-90s", seed=4)
    assert other.truth["text"] != long.truth["text"]
