from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.core.layout import RunKeys
from consumer.core.results import ResultManifest
from producer_tools.faults import DamagedResult, NotFound, WrongUsage
from producer_tools.result import fetch_result, whole_file
from tests.unit.producer_tools.results import store_result

BUCKET = "results"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(BUCKET)


def fetched(store: MemoryStore, form: str, run: int | None = None, job_id: str = "a") -> bytes:
    target = io.BytesIO()
    fetch_result(store, BUCKET, job_id, run, form, target)
    return target.getvalue()


def test_the_newest_run_is_fetched_unless_another_is_named(store: MemoryStore) -> None:
    for run in (1, 2, 10):
        store_result(store, BUCKET, "a", run, txt=f"run {run}".encode())
    assert fetched(store, "txt") == b"run 10"
    assert fetched(store, "txt", run=2) == b"run 2"


def test_the_manifest_is_given_as_it_is_stored(store: MemoryStore) -> None:
    manifest = store_result(store, BUCKET, "a", 1, txt=b"")
    assert ResultManifest.from_bytes(fetched(store, "manifest")) == manifest


def test_a_format_that_was_not_asked_for_is_not_found_and_those_that_are_there_are_named(store: MemoryStore) -> None:
    store_result(store, BUCKET, "a", 1, txt=b"x", json=b"{}")
    with pytest.raises(NotFound, match="no srt, it has txt, json"):
        fetched(store, "srt")


@pytest.mark.parametrize("run", [None, 3])
def test_a_job_without_a_result_is_not_found_and_it_says_how_to_go_on(store: MemoryStore, run: int | None) -> None:
    with pytest.raises(NotFound, match="whisperx-jobs watch a"):
        fetched(store, "txt", run)


def test_bytes_that_the_manifest_does_not_promise_are_damaged(store: MemoryStore) -> None:
    store_result(store, BUCKET, "a", 1, txt=b"right")
    store.put(BUCKET, RunKeys("a", 1).artifact("txt"), b"wrong")
    with pytest.raises(DamagedResult, match="cannot be trusted"):
        fetched(store, "txt")


@pytest.mark.parametrize("run", [None, 1])
def test_a_manifest_that_is_none_is_damaged(store: MemoryStore, run: int | None) -> None:
    store.put(BUCKET, RunKeys("a", 1).manifest, b'{"version": 2}')
    with pytest.raises(DamagedResult, match="manifest of a"):
        fetched(store, "txt", run)


@pytest.mark.parametrize("job_id", ["../a", "a/b", "", "a\n", "a" * 129])
def test_a_job_id_cannot_lead_elsewhere_in_the_bucket(store: MemoryStore, job_id: str) -> None:
    with pytest.raises(WrongUsage, match="no job id"):
        fetched(store, "txt", job_id=job_id)


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(b"before")
    with suppress(DamagedResult), whole_file(path) as target:
        target.write(b"half")
        raise DamagedResult("x")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with whole_file(path) as target:
        target.write(b"all")
    assert path.read_bytes() == b"all"


def test_a_file_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="cannot be written"), whole_file(tmp_path / "gone" / "a.srt"):
        pass
