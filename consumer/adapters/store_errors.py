"""What a store's answers mean for the loop: every foreign error is translated here, once.

Nothing of the foreign message is passed on: it can hold a presigned URL, and so a signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from consumer.errors import (
    AccessDenied,
    ChangedObject,
    MissingBucket,
    MissingObject,
    RefusedCredentials,
    StoreUnavailable,
    WhisperXError,
)

_DENIED = 401, 403
_MISSING_VERSION = 400, 404, 405
"""Answers to a version that is malformed, unknown or a delete marker."""

_ERRORS_BY_CODE: dict[str, type[WhisperXError]] = {
    "NoSuchBucket": MissingBucket,
    "InvalidBucketName": MissingBucket,
    "NoSuchKey": MissingObject,
    "NoSuchVersion": MissingObject,
    "KeyTooLongError": MissingObject,
    "XMinioInvalidObjectName": MissingObject,
    "AccessDenied": AccessDenied,
    "InvalidAccessKeyId": RefusedCredentials,
    "SignatureDoesNotMatch": RefusedCredentials,
    "ExpiredToken": RefusedCredentials,
    "InvalidToken": RefusedCredentials,
    "InvalidTokenId": RefusedCredentials,
    "RequestTimeTooSkewed": RefusedCredentials,
    "PreconditionFailed": ChangedObject,
}
"""Any other code is worth another try: what is left are overload, quotas, conflicts and faults of the server."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a request was about."""

    endpoint: str
    bucket: str
    key: str = ""
    version_id: str | None = None

    def __str__(self) -> str:
        version = f" in version {self.version_id!r}" if self.version_id else ""
        return f"{f'{self.bucket}/{self.key}'.rstrip('/')!r}{version}"


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Raise our errors instead of those of minio and urllib3."""
    try:
        yield
    except S3Error as exc:
        raise _by_code(place, exc.code or "", exc.response.status) from exc
    except ServerError as exc:
        raise _by_status(place, exc.status_code) from exc
    except InvalidResponseError as exc:
        raise unavailable(place, "its answer is not that of an S3 store") from exc
    except urllib3.exceptions.MaxRetryError as exc:
        raise unavailable(place, type(exc.reason).__name__) from exc
    except (urllib3.exceptions.HTTPError, MinioException, ElementTree.ParseError) as exc:
        raise unavailable(place, type(exc).__name__) from exc


def from_response(place: Place, response: urllib3.BaseHTTPResponse) -> WhisperXError:
    """The error in an answer that did not come through minio's client."""
    try:
        code = S3Error.fromxml(response).code or ""
    except (ElementTree.ParseError, ValueError):
        return _by_status(place, response.status)
    return _by_code(place, code, response.status)


def of_code(place: Place, code: str) -> WhisperXError:
    """The error of one object within an answer that succeeded as a whole."""
    return _by_code(place, code, 200)


def unavailable(place: Place, reason: str) -> StoreUnavailable:
    message = f"The store at {place.endpoint} does not serve {place}: {reason}. Try again; see the store's own log."
    return StoreUnavailable(message, bucket=place.bucket, key=place.key)


def missing_object(place: Place) -> MissingObject:
    message = f"The store has no object {place}. Check the key, and that the upload came before the job."
    return MissingObject(message, bucket=place.bucket, key=place.key)


def missing_bucket(place: Place) -> MissingBucket:
    message = f"The store has no bucket {place.bucket!r}. Create it, or correct the name."
    return MissingBucket(message, bucket=place.bucket)


def changed_object(place: Place) -> ChangedObject:
    message = f"The object {place} is no longer the one that was asked for: its etag differs. Submit a new job."
    return ChangedObject(message, bucket=place.bucket, key=place.key)


def access_denied(place: Place, code: str) -> AccessDenied:
    message = f"The store refuses our credentials for {place} ({code}). Check the store's keys and their policy."
    return AccessDenied(message, bucket=place.bucket, key=place.key)


def refused_credentials(place: Place, code: str) -> RefusedCredentials:
    """Not about the object: every request would end so, and no job is to blame."""
    message = (
        f"The store at {place.endpoint} refuses our credentials ({code}), asked for {place}. Correct "
        "WHISPERX_STORE__ACCESS_KEY, SECRET_KEY or SESSION_TOKEN, or the clock of this machine, and restart."
    )
    return RefusedCredentials(message, bucket=place.bucket, key=place.key)


def _by_code(place: Place, code: str, status: int) -> WhisperXError:
    known = _ERRORS_BY_CODE.get(code)
    if known is MissingBucket:
        return missing_bucket(place)
    if known is MissingObject:
        return missing_object(place)
    if known is ChangedObject:
        return changed_object(place)
    if known is RefusedCredentials:
        return refused_credentials(place, code)
    if known is AccessDenied or status in _DENIED:
        return access_denied(place, code)
    return _by_status(place, status, code)


def _by_status(place: Place, status: int, code: str = "") -> WhisperXError:
    """For answers without a code that we know, such as those to HEAD, which have no body."""
    if status == 412:
        return changed_object(place)
    if status in _DENIED:
        return access_denied(place, code or str(status))
    if place.version_id and status in _MISSING_VERSION:
        return missing_object(place)
    return unavailable(place, f"{code} (status {status})".strip())
