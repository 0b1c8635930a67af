"""Requests that minio's client cannot make, signed here.

A presigned URL would not do: it covers no header, and S3 refuses those that ask for encryption unless they are signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast
from urllib.parse import urlsplit

import minio
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from minio.time import to_amz_date

UNSIGNED = "UNSIGNED-PAYLOAD"
_ANY_KEY = "k"


class Signer:
    """Signs requests (AWS signature version 4); without keys they stay as they are."""

    def __init__(
        self, client: minio.Minio, region: str, access_key: str, secret_key: str, session_token: str = ""
    ) -> None:
        self._client = client
        self._region = region
        known = access_key and secret_key
        self._credentials = Credentials(access_key, secret_key, session_token or None) if known else None

    def sign(
        self, method: str, bucket: str, key: str, *, query: str = "", data: bytes = b"", headers: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        """The URL and the headers of a request with `data` as its body. Without a key it is about the bucket."""
        url = urlsplit(self._client.presigned_put_object(bucket, key or _ANY_KEY))._replace(query=query)
        if not key:
            url = url._replace(path=url.path.removesuffix(_ANY_KEY))
        sent = dict(headers)
        if self._credentials:
            now = datetime.now(UTC)
            # Over TLS the body needs no digest of its own; without, a byte that changed on the way must not pass.
            digest = UNSIGNED if url.scheme == "https" else hashlib.sha256(data).hexdigest()
            sent |= {"Host": url.netloc, "x-amz-content-sha256": digest, "x-amz-date": to_amz_date(now)}
            if token := self._credentials.session_token:
                sent["x-amz-security-token"] = token
            sign_v4_s3(
                method=method,
                url=url,
                region=self._region,
                headers=cast("dict[str, str | list[str] | tuple[str]]", sent),
                credentials=self._credentials,
                content_sha256=digest,
                date=now,
            )
        return url.geturl(), sent
