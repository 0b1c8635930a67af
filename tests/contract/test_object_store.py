"""The fake, the demo's store and a real MinIO give the same answers; what only a real one can do is asked apart."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from consumer.adapters.memory_store import MemoryStore
from consumer.adapters.object_store import S3Store
from consumer.errors import AccessDenied, ChangedObject, RefusedCredentials, StoreUnavailable
from consumer.ports import ObjectStore, PutOutcome
from demo.embedded.store import EmbeddedStore
from tests.contract.store_contract import MIB, StoreContract, VersionContract
from tests.servers.minio import Minio
from tests.servers.toxiproxy import Proxy, Toxiproxy

Ask = Callable[[S3Store, str], object]

REQUESTS: dict[str, Ask] = {
    "stat": lambda store, bucket: store.stat(bucket, "k"),
    "read_range": lambda store, bucket: store.read_range(bucket, "k", 0, 1),
    "get": lambda store, bucket: store.get(bucket, "k"),
    "stream": lambda store, bucket: list(store.stream(bucket, "k")),
    "list_keys": lambda store, bucket: list(store.list_keys(bucket, "")),
    "bucket_exists": lambda store, bucket: store.bucket_exists(bucket),
    "put": lambda store, bucket: store.put(bucket, "k", b"x"),
    "put_new": lambda store, bucket: store.put_new(bucket, "new", b"x"),
    "upload": lambda store, bucket: store.upload(bucket, "k", io.BytesIO(b"x")),
    "delete": lambda store, bucket: store.delete(bucket, ["k"]),
    "make_bucket": lambda store, bucket: store.make_bucket(f"{bucket}2"),
}
every_request = pytest.mark.parametrize("ask", REQUESTS.values(), ids=REQUESTS.keys())


def at_once(_: float) -> None:
    """Tries follow each other without a wait."""


def s3_store(
    server: Minio | EmbeddedStore,
    endpoint: str | None = None,
    sleep: Callable[[float], None] = at_once,
    request_timeout_s: float = 30.0,
) -> S3Store:
    return S3Store(
        endpoint or server.endpoint,
        server.access_key,
        server.secret_key,
        secure=server.secure,
        sleep=sleep,
        request_timeout_s=request_timeout_s,
    )


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


class TestMemoryVersions(VersionContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore("versioned", versioned=True)

    @pytest.fixture
    def versioned_bucket(self) -> str:
        return "versioned"


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedStore]:
    with EmbeddedStore() as server:
        yield server


class TestEmbeddedStore(StoreContract):
    @pytest.fixture
    def store(self, embedded: EmbeddedStore) -> Iterator[ObjectStore]:
        store = s3_store(embedded)
        yield store
        store.close()


@pytest.mark.servers
class TestMinioStore(StoreContract, VersionContract):
    @pytest.fixture
    def store(self, minio: Minio) -> Iterator[ObjectStore]:
        store = s3_store(minio)
        yield store
        store.close()

    @pytest.fixture
    def versioned_bucket(self, minio: Minio, bucket_prefix: str) -> str:
        bucket = f"{bucket_prefix}v"
        minio.client().make_bucket(bucket)
        minio.client().set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        return bucket


@pytest.fixture
def bucket(minio: Minio, bucket_prefix: str) -> str:
    """A bucket that holds `k`, one byte."""
    store = s3_store(minio)
    store.make_bucket(f"{bucket_prefix}b")
    store.put(f"{bucket_prefix}b", "k", b"x")
    return f"{bucket_prefix}b"


@pytest.mark.servers
class TestRefusals:
    @every_request
    @pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
    def test_wrong_keys_are_refused_and_nothing_of_them_is_told(
        self, minio: Minio, bucket: str, wrong: str, ask: Ask
    ) -> None:
        keys = {"access_key": minio.access_key, "secret_key": minio.secret_key} | {wrong: "a-wrong-one"}
        store = S3Store(minio.endpoint, keys["access_key"], keys["secret_key"], secure=False, sleep=at_once)
        with pytest.raises(RefusedCredentials, match=bucket) as caught:
            ask(store, bucket)
        told = str(caught.value)
        assert "a-wrong-one" not in told
        assert "Signature=" not in told

    @every_request
    def test_no_keys_are_denied(self, minio: Minio, bucket: str, ask: Ask) -> None:
        with pytest.raises(AccessDenied):
            ask(S3Store(minio.endpoint, "", "", secure=False, sleep=at_once), bucket)

    @pytest.mark.parametrize("name", sorted(REQUESTS.keys() - {"bucket_exists"}))  # which says truly that there is none
    def test_a_server_that_is_no_store_is_unavailable(self, toxiproxy: Toxiproxy, name: str) -> None:
        endpoint = toxiproxy.url.removeprefix("http://")  # it speaks HTTP, and knows nothing of buckets
        with pytest.raises(StoreUnavailable, match=endpoint):
            REQUESTS[name](S3Store(endpoint, "key", "secret-key", secure=False, sleep=at_once), "bucket")


@pytest.mark.servers
class TestBadNetwork:
    @pytest.fixture
    def way(self, minio: Minio, toxiproxy: Toxiproxy, bucket_prefix: str) -> Iterator[Proxy]:
        with toxiproxy.proxy(bucket_prefix, minio.endpoint) as proxy:
            yield proxy

    @every_request
    def test_a_store_that_is_away_is_unavailable(self, minio: Minio, way: Proxy, bucket: str, ask: Ask) -> None:
        way.cut()
        waits_s: list[float] = []
        with pytest.raises(StoreUnavailable, match=way.address):
            ask(s3_store(minio, way.address, waits_s.append), bucket)
        assert waits_s == [] if ask is REQUESTS["upload"] else len(waits_s) == 3
        assert all(0.1 <= wait_s <= 0.8 for wait_s in waits_s)

    @pytest.mark.parametrize("name", sorted(REQUESTS.keys() - {"upload"}))
    def test_a_store_that_comes_back_in_time_serves(self, minio: Minio, way: Proxy, bucket: str, name: str) -> None:
        way.cut()
        REQUESTS[name](s3_store(minio, way.address, lambda _: way.mend()), bucket)

    @every_request
    def test_a_store_that_is_silent_is_unavailable(self, minio: Minio, way: Proxy, bucket: str, ask: Ask) -> None:
        way.spoil("timeout", {"timeout": 0})
        with pytest.raises(StoreUnavailable, match="Timeout"):
            ask(s3_store(minio, way.address, request_timeout_s=0.2), bucket)

    def test_a_stream_goes_on_where_its_connection_broke_off(self, minio: Minio, way: Proxy, bucket: str) -> None:
        data = bytes(range(256)) * (8 * MIB // 256)
        s3_store(minio).put(bucket, "large", data)
        way.spoil("limit_data", {"bytes": MIB})  # of each connection
        blocks = s3_store(minio, way.address).stream(bucket, "large", block_bytes=100_000)
        assert b"".join(blocks) == data

    def test_a_stream_does_not_go_on_with_another_object(self, minio: Minio, way: Proxy, bucket: str) -> None:
        s3_store(minio).put(bucket, "large", bytes(4 * MIB))
        way.spoil("limit_data", {"bytes": MIB})
        stream = s3_store(minio, way.address).stream(bucket, "large", block_bytes=100_000)
        next(stream)
        s3_store(minio).put(bucket, "large", b"\1" * (4 * MIB))
        with pytest.raises(ChangedObject):
            list(stream)

    def test_a_read_that_breaks_off_every_time_is_unavailable(self, minio: Minio, way: Proxy, bucket: str) -> None:
        s3_store(minio).put(bucket, "large", bytes(4 * MIB))
        way.spoil("limit_data", {"bytes": MIB})
        with pytest.raises(StoreUnavailable):
            s3_store(minio, way.address).read_range(bucket, "large", 0, 3 * MIB)

    def test_a_lost_answer_to_a_conditional_write_leaves_one_object(
        self, minio: Minio, way: Proxy, bucket: str
    ) -> None:
        way.spoil("limit_data", {"bytes": 10})  # the object arrives, the answer does not
        store = s3_store(minio, way.address, lambda _: way.heal("limit_data") if way_is_bad.pop() else None)
        way_is_bad = [False, False, True]
        assert store.put_new(bucket, "new", b"x") == PutOutcome(created=False, etag=store.stat(bucket, "new").etag)
        assert store.get(bucket, "new") == b"x"

    def test_a_store_that_restarts_serves_again(self, minio: Minio, bucket: str) -> None:
        store = s3_store(minio)
        assert store.get(bucket, "k") == b"x"
        minio.stop()
        try:
            with pytest.raises(StoreUnavailable):
                store.get(bucket, "k")
        finally:
            minio.start()
        assert store.get(bucket, "k") == b"x"


@pytest.mark.servers
class TestMemory:
    """P5: memory does not grow with the object."""

    SIZE_BYTES = 120 * MIB

    def test_an_upload_and_a_stream_hold_a_few_parts(self, minio: Minio, bucket: str) -> None:
        store, seen = s3_store(minio), 0
        told: list[int] = []
        tracemalloc.start()
        try:
            stat = store.upload(bucket, "big", io.BufferedReader(Zeros(self.SIZE_BYTES)), progress=told.append)
            _, upload_peak = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for block in store.stream(bucket, "big"):
                seen += len(block)
            _, stream_peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert stat.size_bytes == seen == told[-1] == self.SIZE_BYTES
        assert told == sorted(told)
        assert upload_peak < 80 * MIB
        assert stream_peak < 10 * MIB


class Zeros(io.RawIOBase):
    """So many bytes, made while they are read."""

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), self._left_bytes)
        self._left_bytes -= count
        return count
