"""What the functions and the loop ask of the outside: the shapes that real adapters and fakes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from consumer.events import AuditRecorded, Event

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Received:
    """One record as the broker gave it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to publish. `partition` is set only where the partition carries meaning (job state)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    audit: AuditRecorded | None = field(default=None, compare=False)
    """What the record says, if it is a line of the audit trail: it is logged when the record is published."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What the store knows of an object without reading it. `etag` has no quotes."""

    bucket: str
    key: str
    size_bytes: int
    etag: str
    version_id: str | None = None
    content_type: str | None = None
    modified_at: datetime | None = field(default=None, compare=False)
    """When it was written (UTC, by the store's clock)."""


@dataclass(frozen=True, slots=True)
class PutOutcome:
    """`created` is False when another writer was first: then the stored object stands and ours is dropped."""

    created: bool
    etag: str


class ObjectStore(Protocol):
    """An S3-compatible store.

    Every method raises MissingBucket, MissingObject, AccessDenied, ChangedObject (an `etag` that no longer
    matches), EncryptedObject (under a key that we do not have), StoreUnavailable (network, 5xx, time-out; worth another
    try), RefusedCredentials (whatever is asked for) or RefusedEncryption (whatever is written), and nothing else on
    purpose.
    """

    def stat(self, bucket: str, key: str, version_id: str | None = None) -> ObjectStat: ...

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        """Bytes `start` to `start + length` (fewer at the end of the object), only if the etag still matches."""
        ...

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        """The whole object; for objects that we wrote and whose size is bounded."""
        ...

    def stream(self, bucket: str, key: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The object in blocks, at constant memory."""
        ...

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        """Write unless there is one already (`If-None-Match: *`), in one request."""
        ...

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> PutOutcome:
        """Write, replacing what is there."""
        ...

    def upload(
        self, bucket: str, key: str, source: BinaryIO, content_type: str = "application/octet-stream"
    ) -> ObjectStat:
        """Write a stream of unknown length in parts, at constant memory."""
        ...

    def list_keys(self, bucket: str, prefix: str) -> Iterator[str]: ...

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        """Delete these keys (missing ones are no error); the number asked for."""
        ...

    def delete_exactly(self, pinned: ObjectStat) -> None:
        """Delete this very version; where the bucket keeps none, the object if it still has the etag.

        Raises ChangedObject or MissingObject when there is no such thing to delete.
        """
        ...

    def bucket_exists(self, bucket: str) -> bool: ...

    def make_bucket(self, bucket: str) -> None:
        """Make the bucket unless it is there."""
        ...


class Attempt(Protocol):
    """What a function may ask while it works on one event. Its calls are the only way out before the function ends."""

    @property
    def number(self) -> int:
        """Tries including this one, from 1."""
        ...

    def announce(self, *events: Event) -> None:
        """Publish now, fenced like the final answer; the work's own offset does not move.

        Blocks while the hand-off is full. Raises Abandoned when the work belongs to somebody else by now.
        """
        ...

    def report(self, event: Event) -> None:
        """Publish when there is time: best effort, never blocks, may be dropped."""
        ...

    def check(self) -> None:
        """Raise Cancelled or Abandoned when going on is pointless. Called between batches."""
        ...
