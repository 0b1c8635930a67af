"""Encryption at rest: what is asked of the store for the objects in our own buckets.

The senders' buckets are theirs: what the store encrypts with its own keys (SSE-S3, SSE-KMS) it also decrypts for us;
what a sender encrypted with a key that travels with the request (SSE-C) is EncryptedObject.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Self

from minio.sse import Sse, SseCustomerKey, SseKMS, SseS3

from consumer.settings import StoreSettings

CustomerKey = SseCustomerKey


@dataclass(frozen=True, slots=True)
class Encryption:
    """How objects in `buckets` are encrypted; None: as the bucket's own default says."""

    sse: Sse | None = field(default=None, repr=False)
    buckets: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: StoreSettings) -> Self:
        return cls(_sse(settings), frozenset((settings.work_bucket, settings.results_bucket)))

    def of_new(self, bucket: str) -> Sse | None:
        """For an object that is written to this bucket."""
        return self.sse if bucket in self.buckets else None

    def headers(self, bucket: str) -> dict[str, str]:
        """The same as request headers."""
        sse = self.of_new(bucket)
        return sse.headers() if sse else {}

    def key_of(self, bucket: str) -> CustomerKey | None:
        """The key without which objects of this bucket cannot be read."""
        sse = self.of_new(bucket)
        return sse if isinstance(sse, SseCustomerKey) else None


NO_ENCRYPTION = Encryption()


def _sse(settings: StoreSettings) -> Sse | None:
    match settings.encryption:
        case "sse-s3":
            return SseS3()
        case "sse-kms":
            return SseKMS(settings.kms_key_id, {})
        case "sse-c":
            return SseCustomerKey(base64.b64decode(settings.sse_c_key.get_secret_value()))
        case _:
            return None
