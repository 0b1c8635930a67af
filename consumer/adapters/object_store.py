"""MinIO, or any other S3 store, as the functions see it.

Requests are tried again in place, with growing, jittered waits: one lost connection should not cost a chunk its
attempt. What lasts is StoreUnavailable, and the loop decides. Writes are safe to repeat because a key always gets
the same bytes.
"""

from __future__ import annotations

import http
import io
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import BinaryIO, Self, TypeVar, cast
from urllib.parse import urlencode

import minio
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import S3Error, ServerError
from minio.helpers import check_bucket_name, check_object_name

from consumer.adapters.signing import Signer
from consumer.adapters.store_encryption import NO_ENCRYPTION, CustomerKey, Encryption
from consumer.adapters.store_errors import (
    Place,
    changed_object,
    from_response,
    missing_bucket,
    missing_object,
    of_code,
    translated,
    unavailable,
)
from consumer.errors import ChangedObject, EncryptedObject, MissingObject, StoreUnavailable
from consumer.ports import ObjectStat, PutOutcome
from consumer.settings import StoreSettings

PART_BYTES = 10 << 20
"""Size of an upload's parts; 10,000 of them, the most that S3 takes, are 100 GB."""
PARALLEL_PARTS = 3
"""Parts on their way at once; an upload holds one more in memory."""
BATCH_KEYS = 1_000
"""The most keys that one S3 request lists or deletes."""
CONNECT_TIMEOUT_S = 5.0
TRIES = 4
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0

BINARY = "application/octet-stream"
T = TypeVar("T")
Conditions = dict[str, str | list[str] | tuple[str]]
Progress = Callable[[int], None]
"""Told the bytes so far."""


class S3Store:
    """An `ObjectStore` on an S3 server. `tries` counts the requests for one thing, including the first."""

    @classmethod
    def of(cls, settings: StoreSettings, tries: int = TRIES) -> Self:
        """The store that the settings name."""
        return cls(
            settings.endpoint,
            settings.access_key.get_secret_value(),
            settings.secret_key.get_secret_value(),
            session_token=settings.session_token.get_secret_value(),
            secure=settings.secure,
            region=settings.region,
            request_timeout_s=settings.request_timeout_s,
            ca_file=settings.ca_file,
            encryption=Encryption.of(settings),
            tries=tries,
        )

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        *,
        session_token: str = "",
        secure: bool = True,
        region: str = "us-east-1",
        request_timeout_s: float = 30.0,
        ca_file: str = "",
        encryption: Encryption = NO_ENCRYPTION,
        connections: int = 16,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        self.encryption = encryption
        self._tries = tries
        self._sleep = sleep
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, request_timeout_s), read=request_timeout_s),
            maxsize=connections,
            retries=urllib3.Retry(0, redirect=False),
            cert_reqs="CERT_REQUIRED",
            ca_certs=ca_file or None,
        )
        self.client = minio.Minio(
            endpoint,
            access_key=access_key or None,
            secret_key=secret_key or None,
            session_token=session_token or None,
            secure=secure,
            region=region,
            http_client=self._pool,
        )
        self._signer = Signer(self.client, region, access_key, secret_key, session_token)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.clear()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat:
        place = self._place(bucket, key, version_id)
        return self._repeated(lambda: self._stat(place))

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        place = self._place(bucket, key, version_id)
        if length <= 0:
            return b""  # to minio, a length of 0 is everything
        return self._repeated(lambda: self._read(place, start, length, etag))

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        place = self._place(bucket, key, version_id)
        return self._repeated(lambda: self._read(place, 0, 0, etag))

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        """A connection that breaks off is taken up again where it was, if the object is still the same one."""
        place, position, etag, failures = self._place(bucket, key), 0, None, 0
        while True:
            try:
                with self._opened(place, position, 0, etag) as response:
                    etag = _etag_of(response)
                    while block := _next_block(place, response, block_bytes):
                        yield block
                        position, failures = position + len(block), 0
                return
            except StoreUnavailable as exc:
                failures += 1
                self._wait_after(exc, failures)

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]:
        place, page = self._place(bucket), [""]
        while page:
            page = self._repeated(partial(self._list, place, prefix, page[-1]))
            yield from page
            page = page if len(page) == BATCH_KEYS else []

    def bucket_exists(self, bucket: str) -> bool:
        place = self._place(bucket)
        return self._repeated(lambda: self._bucket_exists(place))

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        """Write unless there is one already.

        Where the first answer is lost although the object was stored, the next try finds it: `created` is False.
        """
        place = self._place(bucket, key)
        return self._repeated(lambda: self._put_new(place, data, content_type))

    def put(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        place = self._place(bucket, key)
        return self._repeated(lambda: self._put(place, data, {"Content-Type": content_type}))

    def upload(
        self, bucket: str, key: str, source: BinaryIO, content_type: str = BINARY, progress: Progress | None = None
    ) -> ObjectStat:
        """Not tried again, because the source can be read only once. An upload that breaks off leaves no object."""
        place, counted = self._place(bucket, key), _Counted(source, progress)
        with translated(place):
            stored = self.client.put_object(
                bucket,
                key,
                cast("BinaryIO", counted),  # of which minio wants read() only
                -1,
                content_type,
                sse=self.encryption.of_new(bucket),
                part_size=PART_BYTES,
                num_parallel_uploads=PARALLEL_PARTS,
            )
        return ObjectStat(
            bucket, key, counted.total_bytes, stored.etag or "", _version(stored.version_id), content_type
        )

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        place, pending, asked = self._place(bucket), iter(keys), 0
        while batch := list(itertools.islice(pending, BATCH_KEYS)):
            self._repeated(partial(self._delete, place, batch))
            asked += len(batch)
        return asked

    def delete_exactly(self, pinned: ObjectStat) -> None:
        """A store that knows conditions on DELETE is given one; with others the look before it has to do."""
        place = self._place(pinned.bucket, pinned.key, pinned.version_id)
        self._repeated(lambda: self._delete_exactly(place, pinned.etag))

    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectStat]:
        """As `list_keys`, with size, etag and age."""
        place, after = self._place(bucket), ""
        while page := self._repeated(partial(self._list_objects, place, prefix, after)):
            yield from page
            after = page[-1].key

    def make_bucket(self, bucket: str) -> None:
        place = self._place(bucket)
        self._repeated(lambda: self._make_bucket(place))

    # ── one request each ────────────────────────────────────────────────────────────────────────────────────────────

    def _stat(self, place: Place) -> ObjectStat:
        found = self._with_key(place, partial(self._head, place))
        return ObjectStat(
            place.bucket,
            place.key,
            found.size or 0,
            found.etag or "",
            _version(found.version_id),
            found.content_type,
            found.last_modified,
        )

    def _head(self, place: Place, key: CustomerKey | None) -> minio.datatypes.Object:
        with translated(place):
            try:
                return self.client.stat_object(place.bucket, place.key, key, version_id=place.version_id)
            except (S3Error, ServerError):
                # An answer to HEAD has no body: whether bucket or object is missing, it does not say; GET's does.
                self.client.get_object(place.bucket, place.key, 0, 1, ssec=key, version_id=place.version_id).close()
                raise

    def _read(self, place: Place, start: int, length: int, etag: str | None) -> bytes:
        with self._opened(place, start, length, etag) as response, translated(place):
            content: bytes = response.read()
            return content

    @contextmanager
    def _opened(
        self, place: Place, start: int, length: int, etag: str | None
    ) -> Iterator[urllib3.BaseHTTPResponse | io.BytesIO]:
        """The bytes from `start` on; a length of 0 is all that follows, a start behind the end gives none."""
        conditions: Conditions = {"If-Match": f'"{etag}"'} if etag else {}
        response = self._with_key(place, partial(self._ask_for_bytes, place, start, length, conditions))
        if response is None:
            yield io.BytesIO()
            return
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    def _ask_for_bytes(
        self,
        place: Place,
        start: int,
        length: int,
        conditions: Conditions,
        key: CustomerKey | None,
    ) -> urllib3.BaseHTTPResponse | None:
        with translated(place):
            try:
                return self.client.get_object(
                    place.bucket, place.key, start, length, conditions, key, version_id=place.version_id
                )
            except S3Error as exc:
                if exc.code != "InvalidRange":
                    raise
                return None

    def _list(self, place: Place, prefix: str, after: str) -> list[str]:
        with translated(place):
            found = self.client.list_objects(place.bucket, prefix=prefix, recursive=True, start_after=after or None)
            return [str(one.object_name) for one in itertools.islice(found, BATCH_KEYS)]

    def _bucket_exists(self, place: Place) -> bool:
        with translated(place):
            try:
                return bool(self.client.bucket_exists(place.bucket))
            except (S3Error, ServerError):
                # As above: whether the bucket is closed to us or our keys are refused, only a body says.
                next(iter(self.client.list_objects(place.bucket)), None)
                raise

    def _put(self, place: Place, data: bytes, headers: dict[str, str]) -> PutOutcome:
        """One PUT that we sign: minio's own has no place for a condition, and cuts large bodies into parts."""
        response = self.send("PUT", place, data, headers | self.encryption.headers(place.bucket))
        if response.status != http.HTTPStatus.OK:
            raise from_response(place, response)
        return PutOutcome(created=True, etag=_etag_of(response) or "")

    def send(
        self, method: str, place: Place, data: bytes = b"", headers: dict[str, str] | None = None, query: str = ""
    ) -> urllib3.BaseHTTPResponse:
        """One request, signed, whatever the answer is."""
        with translated(place):
            signed = self._signer.sign(method, place.bucket, place.key, query=query, data=data, headers=headers or {})
            return self._pool.request(method, signed[0], body=data, headers=signed[1])

    def _put_new(self, place: Place, data: bytes, content_type: str) -> PutOutcome:
        try:
            return self._put(place, data, {"Content-Type": content_type, "If-None-Match": "*"})
        except (ChangedObject, EncryptedObject) as exc:
            # The second: before its condition, MinIO asks whether our key fits what is there.
            return self._stored(place, unavailable(place, "another writer's object was there and is gone again"), exc)
        except StoreUnavailable as exc:
            # The refusal of a large body can arrive as a lost connection, because the server does not read to its
            # end; and two writers at once can get a conflict (409).
            return self._stored(place, exc, exc)

    def _stored(self, place: Place, otherwise: StoreUnavailable, cause: Exception) -> PutOutcome:
        """Another writer's object, or the error `otherwise` when there is none."""
        try:
            return PutOutcome(created=False, etag=self._stat(place).etag)
        except MissingObject:
            raise otherwise from cause

    def _delete(self, place: Place, keys: list[str]) -> None:
        with translated(place):
            faults = list(self.client.remove_objects(place.bucket, [DeleteObject(key) for key in keys]))
        for fault in faults:
            raise of_code(Place(place.endpoint, place.bucket, fault.name or ""), fault.code or "")

    def _delete_exactly(self, place: Place, etag: str) -> None:
        if self._stat(place).etag != etag:
            raise changed_object(place)
        query = urlencode({"versionId": place.version_id}) if place.version_id else ""
        headers = {} if query else {"If-Match": f'"{etag}"'}
        response = self.send("DELETE", place, headers=headers, query=query)
        if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.NO_CONTENT):
            raise from_response(place, response)

    def _list_objects(self, place: Place, prefix: str, after: str) -> list[ObjectStat]:
        with translated(place):
            found = self.client.list_objects(place.bucket, prefix=prefix, recursive=True, start_after=after or None)
            return [
                ObjectStat(
                    place.bucket, str(one.object_name), one.size or 0, one.etag or "", modified_at=one.last_modified
                )
                for one in itertools.islice(found, BATCH_KEYS)
            ]

    def _make_bucket(self, place: Place) -> None:
        with translated(place):
            try:
                self.client.make_bucket(place.bucket)
            except S3Error as exc:
                if exc.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    # ── names and tries ─────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, bucket: str, key: str | None = None, version_id: str | None = None) -> Place:
        """Refuses names that no object can have, among them those with `..`, which a URL would lead elsewhere."""
        place = Place(self.endpoint, bucket, key or "", version_id, self.encryption.key_of(bucket) is not None)
        try:
            check_bucket_name(bucket, s3_check=True)
        except ValueError as exc:
            raise missing_bucket(place) from exc
        try:
            check_object_name("any" if key is None else key)
        except ValueError as exc:
            raise missing_object(place) from exc
        return place

    def _with_key(self, place: Place, ask: Callable[[CustomerKey | None], T]) -> T:
        """With the key of our buckets. What was written to them before there was one is read without."""
        if key := self.encryption.key_of(place.bucket):
            with suppress(EncryptedObject):
                return ask(key)
        return ask(None)

    def _repeated(self, ask: Callable[[], T]) -> T:
        for failures in itertools.count(1):
            try:
                return ask()
            except StoreUnavailable as exc:
                self._wait_after(exc, failures)
        raise AssertionError("unreachable: counting never ends")

    def _wait_after(self, error: StoreUnavailable, failures: int) -> None:
        """Raises the error when there were enough tries."""
        if failures >= self._tries:
            raise error
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1))
        self._sleep(longest_s * random.uniform(0.5, 1))  # noqa: S311 - spreads the workers' tries, guards nothing


class _Counted:
    """A source that counts what is read from it."""

    def __init__(self, source: BinaryIO, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self.total_bytes = 0

    def read(self, size: int) -> bytes:
        block = self._source.read(size)
        self.total_bytes += len(block)
        if self._progress and block:
            self._progress(self.total_bytes)
        return block


def _etag_of(response: urllib3.BaseHTTPResponse | io.BytesIO) -> str | None:
    headers = getattr(response, "headers", {})
    return headers.get("etag", "").strip('"') or None


def _version(version_id: str | None) -> str | None:
    """A bucket that keeps no versions says so by silence, or by the word null."""
    return None if version_id == "null" else version_id


def _next_block(place: Place, response: urllib3.BaseHTTPResponse | io.BytesIO, size: int) -> bytes:
    with translated(place):
        block: bytes = response.read(size)
        return block
