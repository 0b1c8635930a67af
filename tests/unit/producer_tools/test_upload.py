from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.adapters.object_store import PART_BYTES
from consumer.errors import MissingBucket
from producer_tools.faults import ChangedFile, NotFound
from producer_tools.parser import RECORDINGS_BUCKET
from producer_tools.upload import content_key, digest_of, upload
from tests.unit.producer_tools.installation import Installation


def silent(_done: int) -> None:
    pass


def test_the_key_depends_on_the_content_and_the_suffix_only() -> None:
    assert content_key("in/", "ab12", Path("/tmp/My Meeting.MP3")) == "in/ab12.mp3"  # noqa: S108 - a name only
    assert content_key("", "ab12", Path("noname")) == "ab12"
    assert content_key("", "ab12", Path("odd.w/../v")) == "ab12"
    assert content_key("", "ab12", Path("odd.wäv")) == "ab12"


def test_the_digest_is_that_of_the_content_and_progress_ends_at_the_size(tmp_path: Path) -> None:
    path, reports = tmp_path / "a.wav", list[int]()
    path.write_bytes(b"x" * 2_500_000)
    assert digest_of(path, reports.append) == hashlib.sha256(b"x" * 2_500_000).hexdigest()
    assert reports == [1 << 20, 2 << 20, 2_500_000]


def test_a_file_that_cannot_be_read_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"a\.wav"):
        digest_of(tmp_path / "a.wav", silent)


def test_the_same_content_is_sent_once(tmp_path: Path) -> None:
    store, path = MemoryStore("calls"), tmp_path / "a.wav"
    path.write_bytes(b"sound")
    digest = digest_of(path, silent)
    assert upload(store, "calls", digest, path, digest, silent)
    assert store.get("calls", digest) == b"sound"
    assert not upload(store, "calls", digest, path, digest, silent)


def test_a_bucket_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    with pytest.raises(MissingBucket, match="nowhere"):
        upload(MemoryStore(), "nowhere", "key", tmp_path / "a.wav", "digest", silent)


@pytest.mark.parametrize("size_bytes", [10, PART_BYTES, PART_BYTES + 1])
def test_a_file_that_changes_under_our_hands_leaves_no_object(
    embedded: Installation, tmp_path: Path, size_bytes: int
) -> None:
    """Against a real client, because it must give the upload up when its source raises; in one part and in more."""
    path, key = tmp_path / "a.wav", f"changed-{size_bytes}"
    path.write_bytes(b"a" * size_bytes)
    digest = digest_of(path, silent)
    path.write_bytes(b"b" * size_bytes)
    with pytest.raises(ChangedFile, match="changed"):
        upload(embedded.store, RECORDINGS_BUCKET, key, path, digest, silent)
    assert list(embedded.store.list_keys(RECORDINGS_BUCKET, key)) == []
