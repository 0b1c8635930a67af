"""A PUT with headers of its own: signed here, because minio's presigned URLs cover no header.

S3 refuses headers that ask for encryption unless they are signed.
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


class Signer:
    """Signs requests (AWS signature version 4); without keys they stay as they are."""

    def __init__(
        self, client: minio.Minio, region: str, access_key: str, secret_key: str, session_token: str = ""
    ) -> None:
        self._client = client
        self._region = region
        known = access_key and secret_key
        self._credentials = Credentials(access_key, secret_key, session_token or None) if known else None

    def put(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The URL and the headers of a PUT of `data`."""
        url = urlsplit(self._client.presigned_put_object(bucket, key))._replace(query="")
        sent = dict(headers)
        if self._credentials:
            now = datetime.now(UTC)
            # Over TLS the body needs no digest of its own; without, a byte that changed on the way must not pass.
            digest = UNSIGNED if url.scheme == "https" else hashlib.sha256(data).hexdigest()
            sent |= {"Host": url.netloc, "x-amz-content-sha256": digest, "x-amz-date": to_amz_date(now)}
            if token := self._credentials.session_token:
                sent["x-amz-security-token"] = token
            sign_v4_s3(
                method="PUT",
                url=url,
                region=self._region,
                headers=cast("dict[str, str | list[str] | tuple[str]]", sent),
                credentials=self._credentials,
                content_sha256=digest,
                date=now,
            )
        return url.geturl(), sent
