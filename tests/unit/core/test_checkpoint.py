"""A checkpoint keeps everything, and equal work gives equal bytes."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from consumer.core.checkpoint import DOCUMENT, UnreadableCheckpoint, decode, encode
from consumer.core.speech import Activity, ChunkSpeech, Segment, Word
from consumer.errors import LostIntermediate
from consumer.events import ChunkTimings, ModelUsed, Problem
from tests.unit.core.speech_strategies import segments
from tests.unit.functions.spoilt import with_more

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe_finite = st.none() | finite
words = st.builds(Word, st.text(max_size=8), maybe_finite, maybe_finite, maybe_finite, st.none() | st.text(max_size=4))
wild_segments = st.builds(
    Segment,
    start_s=finite,
    end_s=finite,
    text=st.text(max_size=30),
    words=st.lists(words, max_size=4).map(tuple),
    timing=st.sampled_from(["aligned", "interpolated", "segment"]),
    avg_logprob=maybe_finite,
    flags=st.lists(st.text(max_size=5), max_size=2).map(tuple),
)


@st.composite
def activities(draw: st.DrawFn) -> Activity:
    """Any floats, NaN too, in arrays of agreeing shapes; also no window at all."""
    windows, frames, speakers, dimension = (draw(st.integers(least, 4)) for least in (0, 1, 1, 1))
    any_float = st.floats(width=32)
    return Activity(
        first=draw(st.integers(0, 10**6)),
        scores=draw(arrays.arrays(np.float32, (windows, frames, speakers), elements=any_float)),
        embeddings=draw(arrays.arrays(np.float32, (windows, speakers, dimension), elements=any_float)),
    )


speeches = st.builds(
    ChunkSpeech,
    segments=st.lists(segments() | wild_segments, max_size=3).map(tuple),
    activity=st.none() | activities(),
    language=st.none() | st.just("en"),
    language_probability=maybe_finite,
    timings=st.builds(ChunkTimings, transcribe_s=finite),
    warnings=st.lists(st.builds(Problem, code=st.just("A"), message=st.text(max_size=9)), max_size=2).map(tuple),
    fingerprint=st.text(max_size=8),
    device=st.sampled_from(["", "cpu/int8"]),
    models=st.lists(st.builds(ModelUsed, role=st.just("align"), name=st.just("x"), digest=st.just("y"))).map(tuple),
)


def without_arrays(speech: ChunkSpeech) -> ChunkSpeech:
    return replace(speech, activity=None)


@given(speeches)
def test_what_is_written_is_read_again(speech: ChunkSpeech) -> None:
    """Arrays are compared by their bytes: NaN is not equal to itself."""
    read = decode(encode(speech))
    assert without_arrays(read) == without_arrays(speech)
    assert (read.activity is None) == (speech.activity is None)
    if speech.activity is not None and read.activity is not None:
        assert read.activity.first == speech.activity.first
        assert read.activity.scores.tobytes() == speech.activity.scores.tobytes()
        assert read.activity.scores.shape == speech.activity.scores.shape
        assert read.activity.embeddings.tobytes() == speech.activity.embeddings.tobytes()
        assert read.activity.embeddings.shape == speech.activity.embeddings.shape


@given(speeches)
def test_equal_work_gives_equal_bytes(speech: ChunkSpeech) -> None:
    assert encode(speech) == encode(decode(encode(speech)))


SPEECH = ChunkSpeech(
    (), Activity(3, np.ones((2, 5, 3), np.float32), np.ones((2, 3, 4), np.float32)), None, None, ChunkTimings()
)


def test_a_checkpoint_carries_no_time_stamp() -> None:
    with zipfile.ZipFile(io.BytesIO(encode(SPEECH))) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_checkpoint_opens_as_an_npz_without_pickles() -> None:
    with np.load(io.BytesIO(encode(SPEECH)), allow_pickle=False) as stored:
        assert stored["scores"].shape == (2, 5, 3)


@pytest.mark.parametrize("lie", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_is_refused(lie: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        encode(replace(SPEECH, segments=(Segment(0.0, 1.0, "hi", (Word("hi", lie, 1.0),)),)))


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 torn", encode(SPEECH)[:-30], encode(SPEECH)[:40], encode(SPEECH).replace(b"scores", b"scorez")],
)
def test_what_is_no_checkpoint_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(UnreadableCheckpoint) as caught:
        decode(data)
    assert isinstance(caught.value, LostIntermediate)


def test_what_a_later_version_adds_to_a_checkpoint_is_skipped() -> None:
    """Else it would be computed and written once more, and the work of a finished chunk lost (P3)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(encode(SPEECH))) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            more = with_more(old.read(name)) if name == DOCUMENT else old.read(name)
            new.writestr(name, more)
    assert encode(decode(buffer.getvalue())) == encode(SPEECH)


def test_a_checkpoint_with_a_spoilt_byte_is_one_or_is_said_to_be_none() -> None:
    whole = encode(SPEECH)
    for at in range(len(whole)):
        for spoilt in (whole[at] ^ 1, whole[at] ^ 0xFF):
            with suppress(UnreadableCheckpoint):
                decode(whole[:at] + bytes([spoilt]) + whole[at + 1 :])


def test_a_checkpoint_of_another_version_is_not_guessed_at() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(encode(SPEECH))) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"version":1', b'"version":2'))
    with pytest.raises(UnreadableCheckpoint):
        decode(buffer.getvalue())
