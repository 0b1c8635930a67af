"""Cases are the same for the same seed, know the files that they spoil, and are kept whole."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from consumer.events import JobControl, JobRequested
from tests.fuzz.case import read_case
from tests.fuzz.events import CONTROLS, REQUESTS, event_case
from tests.fuzz.pieces import pieces_of
from tests.fuzz.recordings import media_case
from tests.fuzz.spoiling import MOST_BYTES, RECORDING_WAYS, spoiled, with_true_checksums
from tests.odd_media import RECORDINGS

FORMATS = (
    *("WAV pcm_s16le", "W64", "RF64", "AIFF pcm_s16be", "CAF pcm_s16be", "AU pcm_s16be", "FLAC 16", "MP3 CBR", "ADTS"),
    *("M4A with its index at the end", "MP4 in fragments", "Ogg Opus", "WebM Opus", "Matroska ALAC"),
)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_known_from_one_end_to_the_other(name: str) -> None:
    data = RECORDINGS[name].make()
    pieces = pieces_of(data)
    assert len(pieces) > 1 or name.startswith("AU")
    assert max(piece.end for piece in pieces) == len(data) or name.startswith("AU")
    for number in (number for piece in pieces for number in piece.numbers):
        assert number.written(number.value(data)) == data[number.at : number.at + number.width]


def test_checksums_of_an_unspoiled_file_are_true_already() -> None:
    data = RECORDINGS["Ogg Opus"].make()
    assert with_true_checksums(data) == data
    assert with_true_checksums(data[:50] + b"x" + data[51:]) != data[:50] + b"x" + data[51:]


def test_each_way_changes_something_and_bounds_the_length() -> None:
    data = RECORDINGS["M4A with its index in front"].make()
    for way in set(RECORDING_WAYS):
        changed = [spoiled(Random(seed), data, [data[::-1]], [way])[0] for seed in range(30)]
        assert sum(one != data for one in changed) > 20, way.__name__
        assert max(map(len, changed)) <= MOST_BYTES


def test_the_same_seed_and_number_make_the_same_case() -> None:
    assert event_case(3, 17) == event_case(3, 17) != event_case(3, 18)
    assert media_case(3, 17).story == media_case(3, 17).story


def test_what_is_spoiled_was_right_before() -> None:
    for fields in REQUESTS:
        JobRequested.model_validate(fields)
    for fields in CONTROLS:
        JobControl.model_validate(fields)


def test_a_kept_case_is_read_as_it_was(tmp_path: Path) -> None:
    for number in range(40):
        case = event_case(3, number)
        path = tmp_path / "case.json"
        path.write_text(case.written(), encoding="utf-8")
        assert read_case(path) == case
