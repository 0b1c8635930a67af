"""Find the result of a job by its id alone: how a late duplicate is recognised, and how readers come to their files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from consumer.core.layout import RunKeys, results_of, work_of
from consumer.core.results import ResultManifest
from consumer.errors import MissingObject, UnreadableDocument
from consumer.ports import ObjectStore

log = logging.getLogger(__name__)


def find_result(store: ObjectStore, bucket: str, job_id: str) -> ResultManifest | None:
    """The manifest of the job's newest run that has one; None when no run has ended with a result.

    Raises UnreadableDocument.
    """
    run = _newest_run(job_id, store.list_keys(bucket, results_of(job_id)))
    return None if run is None else _read(store, bucket, RunKeys(job_id, run).manifest)


def known_digest(store: ObjectStore, bucket: str, job_id: str) -> str | None:
    """Of the request that led to the newest manifest: it tells a late duplicate from a conflict. None where there is no
    manifest, or none that can be read: then a duplicate is transcribed once more, and other jobs do not wait for it."""
    try:
        found = find_result(store, bucket, job_id)
    except UnreadableDocument as error:
        log.warning("A manifest cannot be read, its job counts as new", extra={"reason": error.message})
        return None
    return found.request_digest if found else None


def last_run(store: ObjectStore, work_bucket: str, results_bucket: str, job_id: str) -> int:
    """The highest run of a job that left anything in either bucket; 0 when there is none.

    A new run under an old id must not meet the objects of an earlier one: they are never overwritten.
    """
    places = ((work_bucket, work_of(job_id)), (results_bucket, results_of(job_id)))
    runs = (_run_of(key, prefix) for bucket, prefix in places for key in store.list_keys(bucket, prefix))
    return max(runs, default=0)


def _run_of(key: str, prefix: str) -> int:
    number = key.removeprefix(prefix).partition("/")[0]
    return int(number) if number.isdecimal() else 0


def _newest_run(job_id: str, keys: Iterable[str]) -> int | None:
    pattern = re.compile(re.escape(results_of(job_id)) + r"(\d+)/manifest\.json")
    runs = (int(match[1]) for match in map(pattern.fullmatch, keys) if match)
    return max(runs, default=None)


def _read(store: ObjectStore, bucket: str, key: str) -> ResultManifest | None:
    """None also when the manifest was removed between listing and reading."""
    try:
        return ResultManifest.from_bytes(store.get(bucket, key), f"{bucket}/{key}")
    except MissingObject:
        return None
