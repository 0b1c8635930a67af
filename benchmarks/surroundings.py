"""What a function needs around it when it is measured: a store that holds nothing in memory, and nobody who asks."""

# ruff: noqa: ARG002  (the store has the shape of the port, and needs less)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from consumer.errors import MissingObject
from consumer.events import Event
from consumer.ports import ObjectStat, PutOutcome


class Alone:
    """An attempt of which nobody wants to know anything."""

    number = 1

    def announce(self, *events: Event) -> None:
        pass

    def report(self, event: Event) -> None:
        pass

    def check(self) -> None:
        pass


class FolderStore:
    """Objects as files in a folder, so that nothing of them is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        path = self._path(bucket, key)
        if not path.is_file():
            raise MissingObject(f"no object {bucket}/{key}")
        return ObjectStat(bucket, key, path.stat().st_size, "the-only-one", version_id)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        with self._path(bucket, key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        return self._path(bucket, key).read_bytes()

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "") -> PutOutcome:
        path = self._path(bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
        return PutOutcome(True, "new")

    put = put_new

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        raise NotImplementedError("nothing here reads streams")

    def upload(self, bucket: str, key: str, source: BinaryIO, content_type: str = "") -> ObjectStat:
        raise NotImplementedError("nothing here uploads")

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        raise NotImplementedError("nothing here lists")

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        raise NotImplementedError("nothing here deletes")

    def delete_exactly(self, pinned: ObjectStat) -> None:
        raise NotImplementedError("nothing here deletes")

    def bucket_exists(self, bucket: str) -> bool:
        return True

    def make_bucket(self, bucket: str) -> None:
        raise NotImplementedError("folders come with their files")

    def _path(self, bucket: str, key: str) -> Path:
        return self._folder / bucket / key
