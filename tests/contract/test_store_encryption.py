"""Encryption at rest and TLS on a real MinIO with a KMS: the same store contract, and proof that nothing lies open."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from minio.commonconfig import ENABLED
from minio.sse import SseCustomerKey, SseKMS, SseS3
from minio.versioningconfig import VersioningConfig

from consumer import buckets, doctor
from consumer.adapters.object_store import S3Store
from consumer.adapters.s3_buckets import S3Buckets
from consumer.errors import AccessDenied, EncryptedObject, RefusedEncryption, StoreUnavailable
from consumer.findings import Level, report
from consumer.ports import ObjectStore
from consumer.settings import Settings, StoreSettings
from tests.contract.store_contract import MIB, StoreContract, VersionContract
from tests.servers.certificates import certificates
from tests.servers.minio import Minio, own_minio

pytestmark = pytest.mark.servers

KMS_KEY = "our-key"
KEY, OTHER_KEY = bytes(range(32)), bytes(32)
MARK = b"the customer said that nobody may hear this"
MODES = ("sse-s3", "sse-kms", "sse-c")
every_mode = pytest.mark.parametrize("mode", MODES)


@dataclass(frozen=True)
class SafeMinio:
    """A store with TLS and a KMS, and the folder where its disk is."""

    server: Minio
    folder: Path

    def settings(self, prefix: str, **given: object) -> StoreSettings:
        return StoreSettings.model_validate(
            {
                "endpoint": self.server.endpoint,
                "access_key": self.server.access_key,
                "secret_key": self.server.secret_key,
                "ca_file": self.server.ca_file,
                "work_bucket": f"{prefix}a",
                "results_bucket": f"{prefix}v",
                "kms_key_id": KMS_KEY,
                "sse_c_key": base64.b64encode(KEY).decode(),
                **given,
            }
        )

    def store(self, prefix: str, **given: object) -> S3Store:
        return S3Store.of(self.settings(prefix, **given))

    def lies_open(self, mark: bytes, bucket: str) -> bool:
        """Whether the bytes are in any file of this bucket, as somebody with the disk in his hands sees them."""
        files = [file for file in (self.folder / "data" / bucket).rglob("*") if file.is_file()]
        assert files
        return any(mark in file.read_bytes() for file in files)


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeMinio]:
    folder = tmp_path_factory.mktemp("safe-minio")
    kms = {"MINIO_KMS_SECRET_KEY": f"{KMS_KEY}:{base64.b64encode(os.urandom(32)).decode()}"}
    with own_minio(folder, kms, certificates(folder / "made")) as server:
        yield SafeMinio(server, folder)


class EncryptedContract(StoreContract, VersionContract):
    """Every question that any store has to answer, with our buckets encrypted."""

    mode: ClassVar[str]

    @pytest.fixture
    def store(self, safe: SafeMinio, bucket_prefix: str) -> Iterator[ObjectStore]:
        store = safe.store(bucket_prefix, encryption=self.mode)
        yield store
        store.close()

    @pytest.fixture
    def versioned_bucket(self, safe: SafeMinio, bucket_prefix: str) -> str:
        bucket = f"{bucket_prefix}v"
        safe.server.client().make_bucket(bucket)
        safe.server.client().set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        return bucket


class EtagsSayNothing:
    def test_equal_bytes_have_equal_etags(self, store: ObjectStore, bucket: str) -> None:
        """Not under these keys: there an etag does not tell what the content is."""
        first, second = store.put(bucket, "a", b"same").etag, store.put_new(bucket, "b", b"same").etag
        assert len({first, second, hashlib.md5(b"same", usedforsecurity=False).hexdigest()}) == 3


class TestSseS3(EncryptedContract):
    mode = "sse-s3"


class TestSseKms(EtagsSayNothing, EncryptedContract):
    mode = "sse-kms"


class TestSseC(EtagsSayNothing, EncryptedContract):
    mode = "sse-c"


def write_in_every_way(store: S3Store, bucket: str) -> tuple[str, ...]:
    """The keys of objects that hold MARK."""
    store.make_bucket(bucket)
    store.put(bucket, "put", MARK)
    store.put_new(bucket, "put-new", MARK + bytes(2 * MIB))
    store.upload(bucket, "upload", io.BytesIO(MARK))
    store.upload(bucket, "parts", io.BytesIO(os.urandom(11 * MIB) + MARK))
    return "put", "put-new", "upload", "parts"


@every_mode
def test_whatever_way_an_object_is_written_it_is_encrypted(safe: SafeMinio, bucket_prefix: str, mode: str) -> None:
    store, bucket = safe.store(bucket_prefix, encryption=mode), f"{bucket_prefix}a"
    wanted = {
        "sse-s3": SseS3().headers(),
        "sse-kms": SseKMS(f"arn:aws:kms:{KMS_KEY}", {}).headers(),
        "sse-c": {"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"},
    }[mode]
    for key in write_in_every_way(store, bucket):
        found = safe.server.client().stat_object(bucket, key, SseCustomerKey(KEY) if mode == "sse-c" else None)
        assert wanted.items() <= dict(found.metadata or {}).items(), key
        assert MARK in store.get(bucket, key)
    assert not safe.lies_open(MARK, bucket)


@every_mode
def test_doctor_sees_that_what_we_write_is_encrypted(safe: SafeMinio, bucket_prefix: str, mode: str) -> None:
    settings = Settings(store=safe.settings(bucket_prefix, encryption=mode))
    store = S3Store.of(settings.store)
    buckets.create(S3Buckets(store), buckets.table(settings.store))
    found = doctor.run(doctor.store_checks(store, settings, "test", S3Buckets(store)))
    assert {finding.level for finding in found} == {Level.OK}, report(found)
    assert sum(f"encrypts what we write ({mode})" in finding.what for finding in found) == 2
    store.put(settings.store.work_bucket, "k", b"x")
    assert S3Buckets(store).encryption(settings.store.work_bucket, "k") == mode


def test_without_encryption_it_lies_open(safe: SafeMinio, bucket_prefix: str) -> None:
    """So that the test above can fail."""
    write_in_every_way(safe.store(bucket_prefix), f"{bucket_prefix}a")
    assert safe.lies_open(MARK, f"{bucket_prefix}a")
    assert S3Buckets(safe.store(bucket_prefix)).encryption(f"{bucket_prefix}a", "put") == "none"


class TestKeysOfSseC:
    def test_without_the_key_or_with_another_one_nothing_is_read(self, safe: SafeMinio, bucket_prefix: str) -> None:
        bucket = f"{bucket_prefix}a"
        write_in_every_way(safe.store(bucket_prefix, encryption="sse-c"), bucket)
        other = base64.b64encode(OTHER_KEY).decode()
        strangers: dict[S3Store, tuple[type[Exception], str]] = {
            safe.store(bucket_prefix): (EncryptedObject, "SSE_C_KEY"),
            safe.store(bucket_prefix, encryption="sse-s3"): (EncryptedObject, "SSE_C_KEY"),
            safe.store(bucket_prefix, encryption="sse-c", sse_c_key=other): (AccessDenied, "SSE_C_KEY"),
        }
        for stranger, (error, words) in strangers.items():
            for ask in (
                lambda s=stranger: s.stat(bucket, "put"),
                lambda s=stranger: s.get(bucket, "put"),
                lambda s=stranger: s.read_range(bucket, "parts", 5, 5),
                lambda s=stranger: list(s.stream(bucket, "parts")),
            ):
                with pytest.raises(error, match=words) as caught:
                    ask()
                assert other not in str(caught.value)

    def test_what_was_there_before_the_key_is_still_read(self, safe: SafeMinio, bucket_prefix: str) -> None:
        bucket = f"{bucket_prefix}a"
        keys = write_in_every_way(safe.store(bucket_prefix), bucket)
        store = safe.store(bucket_prefix, encryption="sse-c")
        assert all(MARK in store.get(bucket, key) for key in keys)
        assert store.stat(bucket, "put").size_bytes == len(MARK)
        assert MARK in b"".join(store.stream(bucket, "parts"))
        assert not store.put_new(bucket, "put", b"other").created
        with pytest.raises(EncryptedObject):  # as before there was a key, and there is one for this object
            safe.store(bucket_prefix).get(bucket, _written(store, bucket))

    @every_mode
    def test_a_senders_own_key_is_said_to_be_missing(self, safe: SafeMinio, bucket_prefix: str, mode: str) -> None:
        senders = f"{bucket_prefix}senders"
        client = safe.server.client()
        client.make_bucket(senders)
        client.put_object(senders, "a.wav", io.BytesIO(MARK), len(MARK), sse=SseCustomerKey(OTHER_KEY))
        store = safe.store(bucket_prefix, encryption=mode)
        for ask in (lambda: store.stat(senders, "a.wav"), lambda: store.read_range(senders, "a.wav", 0, 4)):
            with pytest.raises(EncryptedObject, match="SSE-S3 or SSE-KMS"):
                ask()

    @every_mode
    def test_a_recording_that_the_store_can_decrypt_is_read(
        self, safe: SafeMinio, bucket_prefix: str, mode: str
    ) -> None:
        senders = f"{bucket_prefix}senders"
        client = safe.server.client()
        client.make_bucket(senders)
        for key, sse in (("s3", SseS3()), ("kms", SseKMS(KMS_KEY, {})), ("plain", None)):
            client.put_object(senders, key, io.BytesIO(MARK), len(MARK), sse=sse)
            assert safe.store(bucket_prefix, encryption=mode).read_range(senders, key, 4, 8) == MARK[4:12]


def _written(store: S3Store, bucket: str) -> str:
    store.put(bucket, "new", MARK)
    return "new"


WRITES = {
    "put": lambda store, bucket: store.put(bucket, "k", b"x"),
    "put_new": lambda store, bucket: store.put_new(bucket, "k", b"x"),
    "upload": lambda store, bucket: store.upload(bucket, "k", io.BytesIO(b"x")),
}


@pytest.mark.parametrize("name", WRITES)
class TestRefusedEncryption:
    def test_a_key_that_the_kms_does_not_know_is_refused(self, safe: SafeMinio, bucket_prefix: str, name: str) -> None:
        store = safe.store(bucket_prefix, encryption="sse-kms", kms_key_id="no-such-key")
        store.make_bucket(f"{bucket_prefix}a")
        with pytest.raises(RefusedEncryption, match="KMS_KEY_ID"):
            WRITES[name](store, f"{bucket_prefix}a")
        assert list(store.list_keys(f"{bucket_prefix}a", "")) == []

    def test_a_store_without_a_kms_is_said_to_have_none(
        self, tmp_path_factory: pytest.TempPathFactory, bare: S3Store, name: str
    ) -> None:
        with pytest.raises(RefusedEncryption, match="KMS"):
            WRITES[name](bare, "wxtest-bare")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """Asks a store that has no keys of its own to encrypt."""
    with own_minio(tmp_path_factory.mktemp("bare-minio")) as server:
        settings = StoreSettings.model_validate(
            {
                "endpoint": server.endpoint,
                "access_key": server.access_key,
                "secret_key": server.secret_key,
                "secure": False,
                "work_bucket": "wxtest-bare",
                "encryption": "sse-s3",
            }
        )
        store = S3Store.of(settings)
        store.make_bucket("wxtest-bare")
        yield store
        store.close()


class TestTls:
    """What stands between us and a trusted connection is said by the name of its setting."""

    def test_an_authority_that_we_do_not_know_is_named(
        self, safe: SafeMinio, bucket_prefix: str, tmp_path: Path
    ) -> None:
        other = str(certificates(tmp_path / "other").authority)
        self.assert_fault(safe.settings(bucket_prefix, ca_file=other), "not trusted.*WHISPERX_STORE__CA_FILE")
        self.assert_fault(safe.settings(bucket_prefix, ca_file=""), "not trusted.*WHISPERX_STORE__CA_FILE")

    def test_a_file_of_authorities_that_is_not_there_is_named(self, safe: SafeMinio, bucket_prefix: str) -> None:
        settings = safe.settings(bucket_prefix, ca_file="/no/such/file")
        self.assert_fault(settings, "WHISPERX_STORE__CA_FILE cannot be used")

    def test_a_certificate_for_another_name_is_named(self, safe: SafeMinio, bucket_prefix: str) -> None:
        port = safe.server.endpoint.rpartition(":")[2]
        settings = safe.settings(bucket_prefix, endpoint=f"127.1:{port}")  # the same server by another name
        self.assert_fault(settings, "for another name.*WHISPERX_STORE__ENDPOINT")

    def test_a_store_without_tls_is_said_to_have_none(self, safe: SafeMinio, bucket_prefix: str, bare: S3Store) -> None:
        settings = safe.settings(bucket_prefix, endpoint=bare.endpoint)
        self.assert_fault(settings, "does not speak TLS.*WHISPERX_STORE__SECURE")

    def test_a_store_with_tls_is_not_asked_without(self, safe: SafeMinio, bucket_prefix: str) -> None:
        self.assert_fault(safe.settings(bucket_prefix, secure=False), "TLS only.*WHISPERX_STORE__SECURE=true")

    @staticmethod
    def assert_fault(settings: StoreSettings, words: str) -> None:
        store = S3Store.of(settings)
        store._sleep = lambda _: None
        with pytest.raises(StoreUnavailable, match=words):
            store.get("transcription-work", "k")
        store.close()
