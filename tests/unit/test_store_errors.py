"""What each answer of a store means for the loop, without a store."""

from __future__ import annotations

import pytest
import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from consumer.adapters.store_errors import Place, from_response, of_code, translated
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

PLACE = Place("store:9000", "calls", "a.wav")
VERSION = Place("store:9000", "calls", "a.wav", "v1")
SIGNED = "/calls/a.wav?X-Amz-Credential=KEY&X-Amz-Signature=abc"


def s3_error(code: str, status: int) -> S3Error:
    return S3Error(urllib3.HTTPResponse(status=status), code, f"about {SIGNED}", SIGNED, "request", "host")


def told(place: Place, error: Exception) -> WhisperXError:
    with pytest.raises(WhisperXError) as caught, translated(place):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "meaning"),
    [
        ("NoSuchBucket", 404, MissingBucket),
        ("InvalidBucketName", 400, MissingBucket),
        ("NoSuchKey", 404, MissingObject),
        ("NoSuchVersion", 404, MissingObject),
        ("KeyTooLongError", 400, MissingObject),
        ("XMinioInvalidObjectName", 400, MissingObject),
        ("AccessDenied", 403, AccessDenied),
        ("InvalidAccessKeyId", 403, RefusedCredentials),
        ("SignatureDoesNotMatch", 403, RefusedCredentials),
        ("ExpiredToken", 400, RefusedCredentials),
        ("RequestTimeTooSkewed", 403, RefusedCredentials),
        ("AccountProblem", 403, AccessDenied),
        ("PreconditionFailed", 412, ChangedObject),
        ("SlowDown", 503, StoreUnavailable),
        ("InternalError", 500, StoreUnavailable),
        ("XMinioStorageFull", 507, StoreUnavailable),
        ("RequestTimeout", 400, StoreUnavailable),
        ("OperationAborted", 409, StoreUnavailable),
        ("ANewCode", 418, StoreUnavailable),
    ],
)
def test_a_code_means_one_thing(code: str, status: int, meaning: type[WhisperXError]) -> None:
    error = told(PLACE, s3_error(code, status))
    assert type(error) is meaning
    assert "calls" in error.message
    assert "X-Amz" not in error.message


def test_a_request_is_invalid_for_many_reasons_of_which_one_is_a_key() -> None:
    answer = urllib3.HTTPResponse(status=400)
    texts = {
        "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to "
        "retrieve the object.": EncryptedObject,
        "The encryption parameters are not applicable to this object.": EncryptedObject,
        "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure "
        "connection.": RefusedEncryption,
        "Invalid Request": StoreUnavailable,
    }
    for text, meaning in texts.items():
        assert type(told(PLACE, S3Error(answer, "InvalidRequest", text, SIGNED, "", ""))) is meaning


@pytest.mark.parametrize(
    ("code", "text", "meaning"),
    [
        ("kms:KeyNotFound", "key with given key ID does not exist", RefusedEncryption),
        ("KMS.NotFoundException", "Invalid keyId", RefusedEncryption),
        ("NotImplemented", "Server side encryption specified but KMS is not configured", RefusedEncryption),
        ("NotImplemented", "A header you provided implies functionality that is not implemented", StoreUnavailable),
    ],
)
def test_a_store_that_cannot_encrypt_is_not_a_store_that_is_away(
    code: str, text: str, meaning: type[WhisperXError]
) -> None:
    error = told(PLACE, S3Error(urllib3.HTTPResponse(status=501), code, text, SIGNED, "", ""))
    assert type(error) is meaning
    assert "X-Amz" not in error.message


def test_where_a_key_went_along_a_denial_may_be_about_the_key() -> None:
    denied = s3_error("AccessDenied", 403)
    assert "SSE_C_KEY" in told(Place("store:9000", "calls", "a", with_key=True), denied).message
    assert "SSE_C_KEY" not in told(PLACE, denied).message


@pytest.mark.parametrize(
    ("status", "meaning"), [(401, AccessDenied), (403, AccessDenied), (412, ChangedObject), (503, StoreUnavailable)]
)
def test_an_answer_without_a_code_is_judged_by_its_status(status: int, meaning: type[WhisperXError]) -> None:
    assert type(told(PLACE, ServerError("no body", status))) is meaning
    assert type(from_response(PLACE, urllib3.HTTPResponse(b"<html>", status=status))) is meaning


def test_a_version_that_a_store_cannot_make_sense_of_is_missing() -> None:
    for status in (400, 404, 405):
        assert type(told(VERSION, ServerError("no body", status))) is MissingObject
        assert type(told(PLACE, ServerError("no body", status))) is StoreUnavailable


@pytest.mark.parametrize(
    "error",
    [
        urllib3.exceptions.MaxRetryError(urllib3.HTTPConnectionPool("store"), SIGNED, OSError("refused")),
        urllib3.exceptions.ReadTimeoutError(urllib3.HTTPConnectionPool("store"), SIGNED, "timed out"),
        urllib3.exceptions.ProtocolError("connection broken", SIGNED),
        InvalidResponseError(502, "text/html", SIGNED),
    ],
)
def test_a_broken_connection_is_worth_another_try_and_tells_no_signature(error: Exception) -> None:
    translated_error = told(PLACE, error)
    assert isinstance(translated_error, StoreUnavailable)
    assert translated_error.retryable
    assert "store:9000" in translated_error.message
    assert "X-Amz" not in translated_error.message


def test_our_own_errors_and_bugs_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated(PLACE):
        raise ZeroDivisionError


def test_the_error_of_one_object_among_many_names_it() -> None:
    error = of_code(PLACE, "AccessDenied")
    assert isinstance(error, AccessDenied)
    assert error.facts == {"bucket": "calls", "key": "a.wav"}


def test_a_key_with_control_characters_is_escaped() -> None:
    assert "\n" not in told(Place("store:9000", "calls", "a\nlevel=ERROR"), s3_error("NoSuchKey", 404)).message
