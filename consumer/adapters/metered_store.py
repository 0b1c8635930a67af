"""An object store whose requests are timed and whose errors are counted; it adds nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

from consumer.errors import WhisperXError
from consumer.metrics import Metrics
from consumer.ports import ObjectStat, ObjectStore, PutOutcome

T = TypeVar("T")


class MeteredStore:
    """`ObjectStore` around another one. `timer` counts seconds and never goes back."""

    def __init__(self, store: ObjectStore, metrics: Metrics, timer: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._timer = timer

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        with self._metered("stat"):
            return self._store.stat(bucket, key, version_id)

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        with self._metered("read_range"):
            return self._store.read_range(bucket, key, start, length, etag=etag, version_id=version_id)

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        with self._metered("get"):
            return self._store.get(bucket, key, etag=etag, version_id=version_id)

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        return self._walk("stream", lambda: self._store.stream(bucket, key, block_bytes=block_bytes))

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        with self._metered("put_new"):
            return self._store.put_new(bucket, key, data, content_type)

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        with self._metered("put"):
            return self._store.put(bucket, key, data, content_type)

    def upload(
        self, bucket: str, key: str, source: BinaryIO, content_type: str = "application/octet-stream"
    ) -> ObjectStat:
        with self._metered("upload"):
            return self._store.upload(bucket, key, source, content_type)

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        return self._walk("list_keys", lambda: self._store.list_keys(bucket, prefix))

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        with self._metered("delete"):
            return self._store.delete(bucket, keys)

    def delete_exactly(self, pinned: ObjectStat) -> None:
        with self._metered("delete_exactly"):
            self._store.delete_exactly(pinned)

    def bucket_exists(self, bucket: str) -> bool:
        with self._metered("bucket_exists"):
            return self._store.bucket_exists(bucket)

    def make_bucket(self, bucket: str) -> None:
        with self._metered("make_bucket"):
            self._store.make_bucket(bucket)

    @contextmanager
    def _metered(self, operation: str) -> Iterator[None]:
        started_s = self._timer()
        try:
            with self._counting_errors(operation):
                yield
        finally:
            self._observe(operation, self._timer() - started_s)

    def _walk(self, operation: str, start: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Counts the time in which the caller waits for the store, not the time in which the store waits for it."""
        spent_s, items = 0.0, None
        try:
            while True:
                started_s = self._timer()
                try:
                    with self._counting_errors(operation):
                        items = items or start()
                        item = next(items)
                except StopIteration:
                    return
                finally:
                    spent_s += self._timer() - started_s
                yield item
        finally:
            self._observe(operation, spent_s)

    @contextmanager
    def _counting_errors(self, operation: str) -> Iterator[None]:
        try:
            yield
        except WhisperXError as error:
            self._metrics.store_errors.labels(operation, error.code).inc()
            raise

    def _observe(self, operation: str, seconds: float) -> None:
        self._metrics.store_request_seconds.labels(operation).observe(seconds)
