"""What a store's answers mean for the loop: every foreign error is translated here, once.

Nothing of the foreign message is passed on: it can hold a presigned URL, and so a signature.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from consumer.errors import (
    AccessDenied,
    ChangedObject,
    EncryptedObject,
    MissingBucket,
    MissingObject,
    RefusedCredentials,
    RefusedEncryption,
    StoreUnavailable,
    WhisperXError,
)

_DENIED = 401, 403
_MISSING_VERSION = 400, 404, 405
"""Answers to a version that is malformed, unknown or a delete marker."""

_OTHER_NAME = 62, 64
"""OpenSSL's numbers for a certificate of another host name, of another IP address."""

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
    with_key: bool = False
    """Whether the request carried the key of SSE-C."""

    def __str__(self) -> str:
        version = f" in version {self.version_id!r}" if self.version_id else ""
        return f"{f'{self.bucket}/{self.key}'.rstrip('/')!r}{version}"


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Raise our errors instead of those of minio and urllib3."""
    try:
        yield
    except S3Error as exc:
        raise _by_code(place, exc.code or "", exc.response.status, exc.message or "") from exc
    except ServerError as exc:
        raise _by_status(place, exc.status_code) from exc
    except InvalidResponseError as exc:
        raise unavailable(place, _not_a_store(exc)) from exc
    except urllib3.exceptions.MaxRetryError as exc:
        if isinstance(exc.reason, urllib3.exceptions.SSLError):
            raise no_tls(place, exc.reason) from exc
        raise unavailable(place, type(exc.reason).__name__) from exc
    except (urllib3.exceptions.HTTPError, MinioException, ElementTree.ParseError) as exc:
        raise unavailable(place, type(exc).__name__) from exc


def from_response(place: Place, response: urllib3.BaseHTTPResponse) -> WhisperXError:
    """The error in an answer that did not come through minio's client."""
    try:
        answer = S3Error.fromxml(response)
    except (ElementTree.ParseError, ValueError):
        return _by_status(place, response.status)
    return _by_code(place, answer.code or "", response.status, answer.message or "")


def of_code(place: Place, code: str) -> WhisperXError:
    """The error of one object within an answer that succeeded as a whole."""
    return _by_code(place, code, 200)


def unavailable(place: Place, reason: str) -> StoreUnavailable:
    message = f"The store at {place.endpoint} does not serve {place}: {reason}. Try again; see the store's own log."
    return StoreUnavailable(message, bucket=place.bucket, key=place.key)


def no_tls(place: Place, error: urllib3.exceptions.SSLError) -> StoreUnavailable:
    """No trusted connection: it may be a certificate that is about to be renewed, or a setting, which is named."""
    message = (
        f"No TLS connection to the store at {place.endpoint}: {_tls_fault(error.args[0] if error.args else error)}."
    )
    return StoreUnavailable(message, bucket=place.bucket, key=place.key)


def _tls_fault(cause: object) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_NAME:
            return "its certificate is for another name. Correct WHISPERX_STORE__ENDPOINT, or the certificate"
        trust = "Set WHISPERX_STORE__CA_FILE to the authority that signed it, or renew it"
        return f"its certificate is not trusted ({cause.verify_message}). {trust}"
    if isinstance(cause, ssl.SSLError):
        if cause.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS. Set WHISPERX_STORE__SECURE=false, or give it a certificate"
        return f"{cause.reason or type(cause).__name__}. See the store's own log"
    if isinstance(cause, OSError):
        return f"the file of WHISPERX_STORE__CA_FILE cannot be used ({cause.strerror})"
    return f"{type(cause).__name__}. See the store's own log"


def _not_a_store(error: InvalidResponseError) -> str:
    if "HTTP request to an HTTPS server" in str(error):
        return "it speaks TLS only, set WHISPERX_STORE__SECURE=true"
    return "its answer is not that of an S3 store"


def encrypted_object(place: Place) -> EncryptedObject:
    message = (
        f"The object {place} is encrypted with a key that we do not have (SSE-C). Store recordings with SSE-S3 or "
        "SSE-KMS; to read results, set WHISPERX_STORE__ENCRYPTION=sse-c and WHISPERX_STORE__SSE_C_KEY."
    )
    return EncryptedObject(message, bucket=place.bucket, key=place.key)


def refused_encryption(place: Place, code: str) -> RefusedEncryption:
    """Not about the object: every write would end so, and no job is to blame."""
    message = (
        f"The store at {place.endpoint} cannot encrypt {place} as asked ({code}). Give it a KMS with that key, or "
        "correct WHISPERX_STORE__ENCRYPTION or KMS_KEY_ID, and restart."
    )
    return RefusedEncryption(message, bucket=place.bucket, key=place.key)


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
    keys = "the store's keys and their policy" + (", and WHISPERX_STORE__SSE_C_KEY" if place.with_key else "")
    message = f"The store refuses our credentials for {place} ({code}). Check {keys}."
    return AccessDenied(message, bucket=place.bucket, key=place.key)


def refused_credentials(place: Place, code: str) -> RefusedCredentials:
    """Not about the object: every request would end so, and no job is to blame."""
    message = (
        f"The store at {place.endpoint} refuses our credentials ({code}), asked for {place}. Correct "
        "WHISPERX_STORE__ACCESS_KEY, SECRET_KEY or SESSION_TOKEN, or the clock of this machine, and restart."
    )
    return RefusedCredentials(message, bucket=place.bucket, key=place.key)


def _by_code(place: Place, code: str, status: int, message: str = "") -> WhisperXError:
    known = _ERRORS_BY_CODE.get(code)
    if code == "InvalidRequest" and "encryption" in message.lower():  # the code alone says nothing
        if "secure connection" in message:
            return refused_encryption(place, "what ends TLS stands before the store, which wants it for SSE-C")
        return encrypted_object(place)
    if code.lower().startswith(("kms:", "kms.")) or (code == "NotImplemented" and "KMS" in message):
        return refused_encryption(place, code)
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
