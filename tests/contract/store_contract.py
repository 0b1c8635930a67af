"""The questions that every object store has to answer in the same way. A subclass brings the fixture `store`."""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from consumer.errors import ChangedObject, MissingBucket, MissingObject
from consumer.ports import ObjectStore, PutOutcome

MIB = 1 << 20
AWKWARD_KEYS = (
    "a b+c&d=e?f#g%20h.wav",
    "grüße/日本/🎧.wav",
    "deep/er/and/deeper.bin",
    "trailing/",
    "(1) [2] 'x' \"y\"~!*",
)
IMPOSSIBLE_KEYS = ("", ".", "..", "../other-bucket/secret", "a/../../secret", "a/./b")


class BreaksOff(io.RawIOBase):
    """A source that fails when so many bytes were read."""

    def __init__(self, after_bytes: int) -> None:
        self._left_bytes = after_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._left_bytes <= 0:
            raise OSError("the disk is gone")
        count = min(len(buffer), self._left_bytes)
        self._left_bytes -= count
        return count


class StoreContract:
    @pytest.fixture
    def bucket(self, store: ObjectStore, bucket_prefix: str) -> str:
        name = f"{bucket_prefix}a"
        store.make_bucket(name)
        return name

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_what_was_put_is_what_is_read(self, store: ObjectStore, bucket: str) -> None:
        put = store.put(bucket, "k", b"some bytes", "audio/wav")
        stat = store.stat(bucket, "k")
        assert store.get(bucket, "k") == b"some bytes"
        assert (stat.bucket, stat.key, stat.size_bytes, stat.content_type) == (bucket, "k", 10, "audio/wav")
        assert stat.etag == put.etag
        assert '"' not in stat.etag

    def test_an_empty_object_is_an_object(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, "empty", b"")
        assert store.stat(bucket, "empty").size_bytes == 0
        assert store.get(bucket, "empty") == b""
        assert store.read_range(bucket, "empty", 0, 10) == b""
        assert list(store.stream(bucket, "empty")) == []

    @pytest.mark.parametrize(
        ("start", "length", "found"),
        [
            (0, 3, b"012"),
            (4, 3, b"456"),
            (7, 100, b"789"),
            (9, 1, b"9"),
            (0, 0, b""),
            (5, 0, b""),
            (10, 5, b""),
            (999, 5, b""),
        ],
    )
    def test_a_range_is_that_part_and_less_at_the_end(
        self, store: ObjectStore, bucket: str, start: int, length: int, found: bytes
    ) -> None:
        store.put(bucket, "k", b"0123456789")
        assert store.read_range(bucket, "k", start, length) == found

    def test_a_stream_is_the_object_in_blocks(self, store: ObjectStore, bucket: str) -> None:
        data = os.urandom(3 * MIB + 5)
        store.put(bucket, "k", data)
        blocks = list(store.stream(bucket, "k", block_bytes=MIB))
        assert [len(block) for block in blocks] == [MIB, MIB, MIB, 5]
        assert b"".join(blocks) == data

    def test_a_stream_may_be_left_early(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, "k", bytes(3 * MIB))
        assert len(next(iter(store.stream(bucket, "k", block_bytes=MIB)))) == MIB
        assert store.stat(bucket, "k").size_bytes == 3 * MIB

    def test_an_etag_that_matches_is_no_hindrance(self, store: ObjectStore, bucket: str) -> None:
        etag = store.put(bucket, "k", b"0123456789").etag
        assert store.get(bucket, "k", etag=etag) == b"0123456789"
        assert store.read_range(bucket, "k", 2, 2, etag=etag) == b"23"

    def test_an_object_that_was_replaced_is_changed(self, store: ObjectStore, bucket: str) -> None:
        etag = store.put(bucket, "k", b"before").etag
        store.put(bucket, "k", b"after")
        with pytest.raises(ChangedObject, match=f"{bucket}/k"):
            store.read_range(bucket, "k", 0, 3, etag=etag)
        with pytest.raises(ChangedObject):
            store.get(bucket, "k", etag=etag)

    def test_a_missing_object_is_missing(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(MissingObject, match=f"{bucket}/none"):
            store.stat(bucket, "none")
        with pytest.raises(MissingObject):
            store.get(bucket, "none")
        with pytest.raises(MissingObject):
            store.read_range(bucket, "none", 0, 1, etag="0" * 32)
        with pytest.raises(MissingObject):
            list(store.stream(bucket, "none"))

    @pytest.mark.parametrize("name", ["there-is-no-such-bucket", "Not A Bucket", "x", "a..b", "127.0.0.1", ""])
    def test_a_missing_bucket_is_said_to_be_the_bucket(self, store: ObjectStore, name: str) -> None:
        with pytest.raises(MissingBucket):
            store.stat(name, "k")
        with pytest.raises(MissingBucket):
            store.get(name, "k")
        with pytest.raises(MissingBucket):
            store.put(name, "k", b"")
        with pytest.raises(MissingBucket):
            store.put_new(name, "k", b"")
        with pytest.raises(MissingBucket):
            store.upload(name, "k", io.BytesIO(b"x"))
        with pytest.raises(MissingBucket):
            list(store.list_keys(name, ""))

    # ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("key", AWKWARD_KEYS)
    def test_an_awkward_key_is_a_key(self, store: ObjectStore, bucket: str, key: str) -> None:
        store.put_new(bucket, key, b"")
        store.put(bucket, key, b"0123")
        assert store.stat(bucket, key).size_bytes == 4
        assert store.read_range(bucket, key, 1, 2) == b"12"
        assert list(store.list_keys(bucket, "")) == [key]
        store.delete(bucket, [key])
        assert list(store.list_keys(bucket, "")) == []

    @pytest.mark.parametrize("key", IMPOSSIBLE_KEYS)
    def test_a_key_that_leads_out_of_its_bucket_is_missing(self, store: ObjectStore, bucket: str, key: str) -> None:
        with pytest.raises(MissingObject):
            store.stat(bucket, key)
        with pytest.raises(MissingObject):
            store.get(bucket, key)
        with pytest.raises(MissingObject):
            store.put(bucket, key, b"x")
        with pytest.raises(MissingObject):
            store.put_new(bucket, key, b"x")

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_the_first_writer_wins_and_the_second_is_told(self, store: ObjectStore, bucket: str) -> None:
        first = store.put_new(bucket, "k", b"first", "application/json")
        second = store.put_new(bucket, "k", b"second")
        assert first == PutOutcome(created=True, etag=store.stat(bucket, "k").etag)
        assert second == PutOutcome(created=False, etag=first.etag)
        assert store.get(bucket, "k") == b"first"
        assert store.stat(bucket, "k").content_type == "application/json"

    def test_of_many_writers_at_once_one_wins(self, store: ObjectStore, bucket: str) -> None:
        bodies = [bytes([n]) * 200_000 for n in range(8)]
        with ThreadPoolExecutor(len(bodies)) as writers:
            outcomes = list(writers.map(lambda body: store.put_new(bucket, "k", body), bodies))
        (winner,) = [n for n, outcome in enumerate(outcomes) if outcome.created]
        assert store.get(bucket, "k") == bodies[winner]
        assert {outcome.etag for outcome in outcomes} == {outcomes[winner].etag}

    def test_a_large_object_is_refused_as_a_small_one_is(self, store: ObjectStore, bucket: str) -> None:
        """A server may answer before it has read the whole body, and then the connection breaks off."""
        first = store.put_new(bucket, "k", b"x" * (24 * MIB))
        assert first.created
        second = store.put_new(bucket, "k", b"y" * (24 * MIB))
        assert second == PutOutcome(created=False, etag=first.etag)
        assert store.read_range(bucket, "k", 0, 2) == b"xx"

    def test_a_key_is_free_again_after_it_was_deleted(self, store: ObjectStore, bucket: str) -> None:
        store.put_new(bucket, "k", b"first")
        store.delete(bucket, ["k"])
        assert store.put_new(bucket, "k", b"second").created

    def test_equal_bytes_have_equal_etags(self, store: ObjectStore, bucket: str) -> None:
        etags = {store.put(bucket, "a", b"same").etag, store.put_new(bucket, "b", b"same").etag}
        assert etags == {hashlib.md5(b"same", usedforsecurity=False).hexdigest()}

    @pytest.mark.parametrize("size", [0, 1, 10 * MIB - 1, 10 * MIB, 10 * MIB + 1, 23 * MIB])
    def test_a_stream_of_unknown_length_is_uploaded_whole(self, store: ObjectStore, bucket: str, size: int) -> None:
        data = os.urandom(size)
        stat = store.upload(bucket, "k", io.BytesIO(data), "audio/flac")
        assert stat == store.stat(bucket, "k")
        assert (stat.size_bytes, stat.content_type) == (size, "audio/flac")
        assert store.get(bucket, "k", etag=stat.etag) == data

    def test_a_source_that_breaks_off_leaves_no_object(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(OSError, match="the disk is gone"):
            store.upload(bucket, "k", io.BufferedReader(BreaksOff(after_bytes=12 * MIB)))
        assert list(store.list_keys(bucket, "")) == []

    # ── lists, deletions, buckets ───────────────────────────────────────────────────────────────────────────────────

    def test_keys_are_listed_by_prefix_in_order(self, store: ObjectStore, bucket: str) -> None:
        for key in ("work/b/1", "work/a/2", "work/a/1", "work/ab", "x"):
            store.put(bucket, key, b"")
        assert list(store.list_keys(bucket, "work/a/")) == ["work/a/1", "work/a/2"]
        assert list(store.list_keys(bucket, "work/a")) == ["work/a/1", "work/a/2", "work/ab"]
        assert list(store.list_keys(bucket, "none/")) == []

    def test_more_keys_than_one_request_takes_are_listed_and_deleted(self, store: ObjectStore, bucket: str) -> None:
        keys = [f"many/{n:05d}" for n in range(1_001)]
        with ThreadPoolExecutor(8) as writers:
            list(writers.map(lambda key: store.put(bucket, key, b""), keys))
        assert list(store.list_keys(bucket, "many/")) == keys
        assert store.delete(bucket, iter(keys)) == 1_001
        assert list(store.list_keys(bucket, "many/")) == []

    def test_deleting_what_is_not_there_is_no_error(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, "k", b"")
        assert store.delete(bucket, ["k", "none"]) == 2
        assert store.delete(bucket, []) == 0
        with pytest.raises(MissingObject):
            store.stat(bucket, "k")

    def test_deleting_in_a_missing_bucket_is_an_error(self, store: ObjectStore) -> None:
        with pytest.raises(MissingBucket):
            store.delete("there-is-no-such-bucket", ["k"])

    def test_what_was_pinned_is_deleted_and_what_took_its_place_is_not(self, store: ObjectStore, bucket: str) -> None:
        store.put(bucket, "k", b"before")
        pinned = store.stat(bucket, "k")
        assert pinned.modified_at is not None
        store.put(bucket, "k", b"after")
        with pytest.raises(ChangedObject):
            store.delete_exactly(pinned)
        assert store.get(bucket, "k") == b"after"
        store.delete_exactly(store.stat(bucket, "k"))
        with pytest.raises(MissingObject):
            store.delete_exactly(pinned)

    def test_a_bucket_is_made_once(self, store: ObjectStore, bucket: str) -> None:
        assert store.bucket_exists(bucket)
        store.put(bucket, "k", b"kept")
        store.make_bucket(bucket)
        assert store.get(bucket, "k") == b"kept"
        assert not store.bucket_exists("there-is-no-such-bucket")


class VersionContract:
    """For buckets that keep versions. A subclass brings `store` and a `versioned_bucket`."""

    def test_a_version_stays_readable_after_it_was_replaced(self, store: ObjectStore, versioned_bucket: str) -> None:
        store.put(versioned_bucket, "k", b"before")
        before = store.stat(versioned_bucket, "k")
        store.put(versioned_bucket, "k", b"after!!")
        assert before.version_id
        assert store.stat(versioned_bucket, "k").version_id != before.version_id
        assert store.stat(versioned_bucket, "k", before.version_id) == before
        assert store.get(versioned_bucket, "k", version_id=before.version_id, etag=before.etag) == b"before"
        assert store.read_range(versioned_bucket, "k", 0, 3, version_id=before.version_id) == b"bef"
        assert store.get(versioned_bucket, "k") == b"after!!"

    def test_a_version_outlives_the_deletion_of_its_object(self, store: ObjectStore, versioned_bucket: str) -> None:
        store.put(versioned_bucket, "k", b"before")
        version_id = store.stat(versioned_bucket, "k").version_id
        store.delete(versioned_bucket, ["k"])
        with pytest.raises(MissingObject):
            store.stat(versioned_bucket, "k")
        assert store.get(versioned_bucket, "k", version_id=version_id) == b"before"
        assert store.put_new(versioned_bucket, "k", b"again").created

    def test_one_version_is_deleted_and_the_others_stay(self, store: ObjectStore, versioned_bucket: str) -> None:
        store.put(versioned_bucket, "k", b"before")
        before = store.stat(versioned_bucket, "k")
        store.put(versioned_bucket, "k", b"after!!")
        store.delete_exactly(before)
        assert store.get(versioned_bucket, "k") == b"after!!"
        with pytest.raises(MissingObject):
            store.get(versioned_bucket, "k", version_id=before.version_id)

    @pytest.mark.parametrize("version_id", ["00000000-0000-4000-8000-000000000000", "no version at all"])
    def test_an_unknown_version_is_missing(self, store: ObjectStore, versioned_bucket: str, version_id: str) -> None:
        store.put(versioned_bucket, "k", b"x")
        with pytest.raises(MissingObject, match=version_id):
            store.stat(versioned_bucket, "k", version_id)
        with pytest.raises(MissingObject):
            store.get(versioned_bucket, "k", version_id=version_id)
