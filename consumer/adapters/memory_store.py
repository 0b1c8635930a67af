"""An object store in memory: the fake of the tests, held to the real ones by `tests/contract/store_contract.py`."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock
from typing import BinaryIO

from consumer.adapters.store_errors import Place, changed_object, missing_bucket, missing_object
from consumer.errors import MissingObject
from consumer.ports import ObjectStat, PutOutcome

BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class _Version:
    data: bytes
    etag: str
    content_type: str
    id: str | None
    modified_at: datetime


@dataclass(slots=True)
class _Bucket:
    """Objects by key, each with its versions, the newest last; None is the mark of a deletion."""

    versioned: bool
    objects: dict[str, list[_Version | None]] = field(default_factory=dict)


class MemoryStore:
    """An `ObjectStore` for threads of one process. Buckets made here keep versions if `versioned` says so."""

    def __init__(
        self, *buckets: str, versioned: bool = False, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._now = now
        self._lock = RLock()
        self._versioned = versioned
        self._numbers = itertools.count(1)
        self._buckets = {name: _Bucket(versioned) for name in buckets}

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        found = self._find(bucket, key, version_id)
        return ObjectStat(bucket, key, len(found.data), found.etag, found.id, found.content_type, found.modified_at)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        return self.get(bucket, key, etag=etag, version_id=version_id)[start : start + max(length, 0)]

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        found = self._find(bucket, key, version_id)
        if etag is not None and etag != found.etag:
            raise changed_object(_place(bucket, key, version_id))
        return found.data

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        data = self.get(bucket, key)
        for start in range(0, len(data), block_bytes):
            yield data[start : start + block_bytes]

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        with self._lock:
            versions = self._bucket(bucket).objects.get(key)
            if versions and versions[-1] is not None:
                return PutOutcome(created=False, etag=versions[-1].etag)
            return self.put(bucket, key, data, content_type)

    def put(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        _require_object_name(bucket, key)
        with self._lock:
            into = self._bucket(bucket)
            version_id = f"v{next(self._numbers)}" if into.versioned else None
            stored = _Version(bytes(data), _etag(data), content_type, version_id, self._now())
            kept = into.objects.get(key, []) if into.versioned else []
            into.objects[key] = [*kept, stored]
            return PutOutcome(created=True, etag=stored.etag)

    def upload(self, bucket: str, key: str, source: BinaryIO, content_type: str = BINARY) -> ObjectStat:
        with self._lock:
            self.put(bucket, key, source.read(), content_type)
            return self.stat(bucket, key)

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        with self._lock:
            objects = self._bucket(bucket).objects
            keys = sorted(key for key, versions in objects.items() if versions[-1] is not None)
        return (key for key in keys if key.startswith(prefix))

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        with self._lock:
            within, asked = self._bucket(bucket), list(keys)
            for key in asked:
                if within.versioned and key in within.objects:
                    within.objects[key].append(None)
                else:
                    within.objects.pop(key, None)
            return len(asked)

    def delete_exactly(self, pinned: ObjectStat) -> None:
        with self._lock:
            found = self._find(pinned.bucket, pinned.key, pinned.version_id)
            if found.etag != pinned.etag:
                raise changed_object(_place(pinned.bucket, pinned.key, pinned.version_id))
            versions = self._bucket(pinned.bucket).objects
            left = [version for version in versions[pinned.key] if version is not found]
            if left:
                versions[pinned.key] = left
            else:
                del versions[pinned.key]

    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectStat]:
        for key in self.list_keys(bucket, prefix):
            with suppress(MissingObject):  # gone meanwhile
                yield self.stat(bucket, key)

    def bucket_exists(self, bucket: str) -> bool:
        return bucket in self._buckets

    def make_bucket(self, bucket: str) -> None:
        with self._lock:
            self._buckets.setdefault(bucket, _Bucket(self._versioned))

    def _bucket(self, bucket: str) -> _Bucket:
        if bucket not in self._buckets:
            raise missing_bucket(_place(bucket))
        return self._buckets[bucket]

    def _find(self, bucket: str, key: str, version_id: str | None) -> _Version:
        with self._lock:
            versions = self._bucket(bucket).objects.get(key, [])
            wanted = versions[-1:] if version_id is None else [v for v in versions if v and v.id == version_id]
            if not wanted or wanted[0] is None:
                raise missing_object(_place(bucket, key, version_id))
            return wanted[0]


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _place(bucket: str, key: str = "", version_id: str | None = None) -> Place:
    return Place("memory", bucket, key, version_id)


def _require_object_name(bucket: str, key: str) -> None:
    """As the real stores do: no empty name, and no way out of a bucket."""
    if not key or not {".", ".."}.isdisjoint(key.split("/")):
        raise missing_object(_place(bucket, key))
