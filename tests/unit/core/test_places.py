"""No name that a job may use means another object to anybody between us and the store."""

from __future__ import annotations

from urllib.parse import unquote

import minio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from consumer.core.places import bucket_of, fault_of, may_be_read
from consumer.events import RecordingRef
from consumer.settings import LimitSettings
from tests.strategies import recording_refs

KEYS = {
    "..": "path",
    "../secret": "path",
    "allowed/../secret": "path",
    "allowed/..": "path",
    "./a": "path",
    "a/./b": "path",
    "a//b": "path",
    "/a": "path",
    "a/": "path",
    "a\x00b": "control",
    "a\nb": "control",
    "a\r\nHost: evil": "control",
    "\x1b[31ma": "control",
    "a\x9b31m": "control",
    "a\u2028b": "control",
    "\ud800": "control",
    "é" * 513: "1024 bytes",
    "https://store/bucket/key?X-Amz-Signature=0123": "URL",
    "s3://bucket/key": "URL",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_somebody_may_read_otherwise_is_refused_without_being_repeated(key: str) -> None:
    fault = fault_of(RecordingRef.model_construct(bucket="calls", key=key))
    assert fault is not None
    assert KEYS[key] in fault
    assert key not in fault or len(key) < 3


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "2024/07/talk.mp3",
        "...",
        "..a",
        "a..",
        "a%2e%2e/b",
        "%2e%2e%2fb",
        "a b+c?d#e&f=g",
        "~/a",
        "é" * 512,
        "話/😀\u200d",
    ],
)
def test_a_key_that_only_looks_odd_is_a_key(key: str) -> None:
    assert fault_of(RecordingRef(bucket="calls", key=key)) is None


@pytest.mark.parametrize(
    "bucket", ["a/b", "../b", "calls?x", "calls\n", "a b", "-ab", "calls#", "abc:80", "0..0", "a.-b", "%2e%2e"]
)
def test_a_bucket_that_is_no_name_is_refused(bucket: str) -> None:
    assert "recording.bucket" in str(fault_of(RecordingRef(bucket=bucket, key="a")))


@pytest.mark.parametrize("tag", ["", "x" * 1025, "a\r\nX-Amz-Acl: public-read", "a b", "\x00", "é"])
def test_a_version_or_an_etag_that_could_be_a_header_is_refused(tag: str) -> None:
    assert "recording.version_id" in str(fault_of(RecordingRef(bucket="calls", key="a", version_id=tag)))
    assert "recording.etag" in str(fault_of(RecordingRef(bucket="calls", key="a", etag=tag)))


CLIENT = minio.Minio("store:9000", access_key="a", secret_key="b", secure=False, region="us-east-1")


@given(recording_refs())
def test_what_is_let_in_is_what_the_client_asks_for(recording: RecordingRef) -> None:
    """The path that minio signs and that urllib3 sends, as it normalises it."""
    assert fault_of(recording) is None
    sent = parse_url(CLIENT.presigned_get_object(recording.bucket, recording.key))
    assert unquote(sent.path or "") == f"/{recording.bucket}/{recording.key}"
    assert sent.host == "store"


def test_the_client_would_ask_for_another_object_under_a_key_with_dots() -> None:
    """Why they are refused."""
    assert parse_url("http://store/calls/allowed/../secret").path == "/calls/secret"


names = st.text("ab/", max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), names), max_size=3), st.sampled_from(["a", "b"]), names)
def test_an_entry_opens_its_bucket_or_its_prefix_and_nothing_else(
    entries: list[tuple[str, str]], bucket: str, key: str
) -> None:
    allowed = [f"{one}/{prefix}/" if prefix else one for one, prefix in entries]
    expected = any(one == bucket and (not prefix or key.startswith(f"{prefix}/")) for one, prefix in entries)
    assert may_be_read(allowed, bucket, key) is expected
    assert {bucket_of(entry) for entry in allowed} == {one for one, _ in entries}


@pytest.mark.parametrize("entry", ["calls/2024", "/calls", "", "/", "calls//x"])
def test_an_entry_that_could_open_more_than_it_says_is_a_wrong_setting(entry: str) -> None:
    with pytest.raises(ValueError, match="slash at the end"):
        LimitSettings(allowed_buckets=("calls", entry))


def test_an_entry_is_a_bucket_or_a_prefix() -> None:
    assert LimitSettings(allowed_buckets=("calls", "calls/2024/", "a/b/c/")).allowed_buckets[1] == "calls/2024/"
