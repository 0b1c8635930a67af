from __future__ import annotations

from pathlib import Path

import pytest

from producer_tools.faults import NotFound, WrongUsage
from producer_tools.recordings import LocalFile, Skipped, StoredObject, recordings_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.MP3", "a.wav", "notes.txt", ".hidden.wav", "inner/c.ogg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.wav").touch()
    return tmp_path


def found(*places: object, recursive: bool = False) -> list[object]:
    return list(recordings_in(map(str, places), recursive=recursive))


def test_a_folder_means_the_media_files_in_it_and_the_rest_is_named(folder: Path) -> None:
    assert found(folder) == [
        Skipped(folder / ".hidden.wav", "hidden"),
        LocalFile(folder / "a.wav"),
        LocalFile(folder / "b.MP3"),
        Skipped(folder / "empty.wav", "empty"),
        Skipped(folder / "inner", "a folder; --recursive goes into it"),
        Skipped(folder / "notes.txt", "not a media file by its name"),
    ]


def test_recursive_goes_into_folders(folder: Path) -> None:
    assert LocalFile(folder / "inner" / "c.ogg") in found(folder, recursive=True)


def test_a_file_that_is_named_by_itself_is_taken_whatever_its_name(folder: Path) -> None:
    assert found(folder / "notes.txt") == [LocalFile(folder / "notes.txt")]


def test_a_recording_that_is_named_twice_is_taken_once(folder: Path) -> None:
    assert found(folder / "a.wav", folder / "a.wav", "s3://calls/1", "s3://calls/1") == [
        LocalFile(folder / "a.wav"),
        StoredObject("calls", "1"),
    ]


def test_a_key_may_hold_slashes() -> None:
    assert found("s3://calls/2024/one.wav") == [StoredObject("calls", "2024/one.wav")]


@pytest.mark.parametrize("url", ["s3://", "s3://calls", "s3://calls/", "s3:///key"])
def test_an_url_without_bucket_or_key_is_wrong_usage(url: str) -> None:
    with pytest.raises(WrongUsage, match="s3://bucket/key"):
        found(url)


def test_a_place_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.wav"):
        found(tmp_path / "gone.wav")


def test_an_empty_file_is_refused_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(WrongUsage, match="empty"):
        found(folder / "empty.wav")


def test_a_name_that_is_too_long_for_a_file_is_not_found() -> None:
    with pytest.raises(NotFound, match="neither a file nor a folder"):
        found("a" * 300)
