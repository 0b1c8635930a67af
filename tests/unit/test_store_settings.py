"""Which encryption can work is known before anything is asked, and no key is told."""

from __future__ import annotations

import argparse
import base64
from typing import Any

import pytest
from pydantic import ValidationError

from consumer.adapters.store_encryption import Encryption
from consumer.errors import Misconfigured
from consumer.settings import Settings, StoreSettings
from consumer.settings_reference import effective_text, secrets
from producer_tools.connection import settings_from

KEY = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"encryption": "sse-c", "sse_c_key": KEY, "secure": False}, "secure=true"),
        ({"encryption": "sse-kms", "kms_key_id": "a", "secure": False}, "secure=true"),
        ({"encryption": "sse-kms"}, "kms_key_id"),
        ({"encryption": "sse-c"}, "openssl rand -base64 32"),
        ({"encryption": "sse-c", "sse_c_key": "0123456789abcdef0123456789abcdef"}, "32 bytes"),
        ({"encryption": "sse-c", "sse_c_key": KEY[:-4]}, "32 bytes"),
        ({"encryption": "sse-c", "sse_c_key": "not base64 at all!"}, "32 bytes"),
        ({"encryption": "rot13"}, "encryption"),
    ],
)
def test_encryption_that_cannot_work_is_refused_without_telling_the_key(given: dict[str, Any], words: str) -> None:
    for read in (StoreSettings.model_validate, lambda store: Settings.model_validate({"store": store})):
        with pytest.raises(ValidationError, match=words) as refusal:
            read(given)
        assert given.get("sse_c_key", "unset") not in str(refusal.value)


@pytest.mark.parametrize(
    "given",
    [
        {"encryption": "none", "sse_c_key": "half a setting"},
        {"encryption": "sse-s3", "secure": False},
        {"encryption": "sse-kms", "kms_key_id": "a"},
        {"encryption": "sse-c", "sse_c_key": KEY},
    ],
)
def test_encryption_that_can_work_is_taken(given: dict[str, Any]) -> None:
    assert StoreSettings.model_validate(given).encryption == given["encryption"]


def test_a_flag_cannot_turn_tls_off_under_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPERX_STORE__ENCRYPTION", "sse-c")
    monkeypatch.setenv("WHISPERX_STORE__SSE_C_KEY", KEY)
    assert settings_from(argparse.Namespace(endpoint="store:1")).store.endpoint == "store:1"
    with pytest.raises(Misconfigured, match="secure=true") as refusal:
        settings_from(argparse.Namespace(secure=False))
    assert KEY not in str(refusal.value)


def test_the_key_is_a_secret_everywhere() -> None:
    settings = Settings.model_validate({"store": {"encryption": "sse-c", "sse_c_key": KEY}})
    assert KEY in secrets(settings)
    assert KEY not in effective_text(settings)
    assert KEY not in repr(settings) + repr(Encryption.of(settings.store))


def test_only_our_own_buckets_are_encrypted_with_our_key() -> None:
    encryption = Encryption.of(
        StoreSettings.model_validate(
            {"encryption": "sse-c", "sse_c_key": KEY, "work_bucket": "work", "results_bucket": "results"}
        )
    )
    assert encryption.key_of("work") is encryption.key_of("results") is not None
    assert encryption.key_of("recordings") is None
    assert encryption.of_new("recordings") is None
    assert encryption.headers("recordings") == {}
