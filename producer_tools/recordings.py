"""What a sender names on the command line, as recordings: files, folders of files, objects in the store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from producer_tools.faults import NotFound, WrongUsage

_SUFFIXES = (
    "3gp aac ac3 aif aiff amr avi caf flac flv m2ts m4a m4b m4v mka mkv mov mp2 mp3 mp4 mpeg mpg mts oga ogg ogv opus "
    "ts wav webm wma wmv"
)
MEDIA_SUFFIXES = frozenset("." + suffix for suffix in _SUFFIXES.split(" "))
"""What we take from a folder. A file that is named by itself is sent whatever its name: the service looks inside."""

_SCHEME = "s3://"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to be uploaded."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A recording that is in the store already."""

    bucket: str
    key: str

    @property
    def name(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"


Recording = LocalFile | StoredObject


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a folder that we leave alone."""

    path: Path
    why: Literal["not a media file by its name", "a folder; --recursive goes into it", "hidden", "empty"]


def recordings_in(places: Iterable[str], *, recursive: bool) -> Iterator[Recording | Skipped]:
    """Each recording once, in the order of the command line and of names. Raises NotFound and WrongUsage."""
    seen: set[str] = set()
    for place in places:
        for found in _in_place(place, recursive):
            if isinstance(found, Skipped) or found.name not in seen:
                yield found
            if not isinstance(found, Skipped):
                seen.add(found.name)


def _in_place(place: str, recursive: bool) -> Iterator[Recording | Skipped]:
    if place.startswith(_SCHEME):
        yield stored_object(place)
        return
    path = Path(place)
    # os.path says no as well of a name that is too long, where Path raises.
    if os.path.isdir(path):
        yield from _in_folder(path, recursive)
    elif os.path.isfile(path):
        if path.stat().st_size == 0:
            raise WrongUsage(f"{path} is empty; there is nothing to transcribe")
        yield LocalFile(path)
    else:
        raise NotFound(f"{path} is neither a file nor a folder; objects in the store are named s3://bucket/key")


def stored_object(url: str) -> StoredObject:
    """stored_object("s3://calls/2024/one.wav") -> StoredObject("calls", "2024/one.wav")"""
    bucket, _, key = url.removeprefix(_SCHEME).partition("/")
    if not bucket or not key:
        raise WrongUsage(f"{url} names no object; write s3://bucket/key")
    return StoredObject(bucket, key)


def _in_folder(folder: Path, recursive: bool) -> Iterator[Recording | Skipped]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            yield Skipped(path, "hidden")
        elif path.is_dir():
            if recursive:
                yield from _in_folder(path, recursive)
            else:
                yield Skipped(path, "a folder; --recursive goes into it")
        else:
            yield _file(path)


def _file(path: Path) -> Recording | Skipped:
    if path.suffix.lower() not in MEDIA_SUFFIXES:
        return Skipped(path, "not a media file by its name")
    return LocalFile(path) if path.stat().st_size else Skipped(path, "empty")
