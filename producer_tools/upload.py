"""Put a file into the store under the digest of its content, in parts and at constant memory."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

from consumer.errors import AccessDenied, MissingObject
from consumer.ports import ObjectStore
from producer_tools.faults import ChangedFile, NotFound

BLOCK_BYTES = 1 << 20

Report = Callable[[int], None]
"""Told how many bytes are done."""


def digest_of(path: Path, report: Report) -> str:
    """SHA-256 of the file in hexadecimal. Raises NotFound when it cannot be read."""
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                report(done)
    except OSError as exc:
        raise NotFound(f"{path} cannot be read: {exc.strerror}") from exc
    return digest.hexdigest()


def content_key(prefix: str, digest: str, path: Path) -> str:
    """content_key("calls/", "9f86d0...", Path("One.WAV")) -> 'calls/9f86d0....wav'

    Nothing of the name but its suffix: the same content has the same key, whatever the file is called.
    """
    suffix = path.suffix.lower() if path.suffix[1:].isascii() and path.suffix[1:].isalnum() else ""
    return f"{prefix}{digest}{suffix}"


def upload(store: ObjectStore, bucket: str, key: str, path: Path, digest: str, report: Report) -> bool:
    """Put the file there unless it is there; whether bytes were sent.

    Raises ChangedFile when the content is not that of `digest` any more (then nothing is stored), and the errors of
    the store.
    """
    if _is_there(store, bucket, key, path.stat().st_size):
        return False
    with path.open("rb") as file:
        store.upload(bucket, key, cast(BinaryIO, _Checked(file, path, digest, report)))
    return True


def _is_there(store: ObjectStore, bucket: str, key: str, size_bytes: int) -> bool:
    try:
        return store.stat(bucket, key).size_bytes == size_bytes
    except (MissingObject, AccessDenied):  # who may only write is denied, and writes
        return False


class _Checked(io.RawIOBase):
    """Reads a file and checks the digest at its end: an upload whose source raises is never completed."""

    def __init__(self, file: IO[bytes], path: Path, digest: str, report: Report) -> None:
        self._file = file
        self._path = path
        self._expected = digest
        self._report = report
        self._digest = hashlib.sha256()
        self._done = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self._file.read(size)
        self._digest.update(block)
        self._done += len(block)
        self._report(self._done)
        if (not block or size < 0) and size != 0 and self._digest.hexdigest() != self._expected:
            raise ChangedFile(f"{self._path} changed while it was uploaded; submit it again when it is finished")
        return block
