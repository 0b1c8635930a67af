"""Fetch a result file by its path in the store; no topic is read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from consumer.core.layout import RunKeys
from consumer.core.results import ResultManifest
from consumer.errors import MissingObject, UnreadableDocument
from consumer.events import JOB_ID_PATTERN, ClaimCheck
from consumer.ports import ObjectStore
from consumer.results_lookup import find_result
from producer_tools.faults import DamagedResult, NotFound, WrongUsage

MANIFEST = "manifest"


def fetch_result(store: ObjectStore, bucket: str, job_id: str, run: int | None, form: str, target: BinaryIO) -> None:
    """Write one file of a run to `target`, the newest run where none is named.

    Raises WrongUsage, NotFound, DamagedResult (after all bytes are written) and the errors of the store.
    """
    require_job_id(job_id)
    manifest = _manifest(store, bucket, job_id, run)
    if form == MANIFEST:
        target.write(store.get(bucket, RunKeys(job_id, manifest.run).manifest))
        return
    artifact = manifest.artifact(form)
    if artifact is None:
        there = ", ".join(one.format for one in manifest.artifacts)
        raise NotFound(
            f"run {manifest.run} of {job_id} has no {form}, it has {there}; ask for it with submit --formats"
        )
    _copy_checked(store, artifact.claim_check, target)


def require_job_id(job_id: str) -> str:
    """A job id becomes part of a path, so it must not look like one. Raises WrongUsage."""
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise WrongUsage(f"{job_id!r} is no job id: letters, digits, dots, colons and dashes, 128 at most")
    return job_id


def _manifest(store: ObjectStore, bucket: str, job_id: str, run: int | None) -> ResultManifest:
    try:
        if run is None:
            found = find_result(store, bucket, job_id)
        else:
            found = ResultManifest.from_bytes(store.get(bucket, RunKeys(job_id, run).manifest))
    except MissingObject:
        found = None
    except UnreadableDocument as exc:
        raise DamagedResult(
            f"the manifest of {job_id} in {bucket} cannot be read: {exc.facts['faults']} faults"
        ) from exc
    if found is None:
        which = f"run {run} of {job_id}" if run is not None else f"job {job_id}"
        raise NotFound(
            f"{which} has no result in {bucket}; it may still run, have failed or been cancelled: "
            f"`whisperx-jobs watch {job_id}` tells"
        )
    return found


def _copy_checked(store: ObjectStore, check: ClaimCheck, target: BinaryIO) -> None:
    digest, written = hashlib.sha256(), 0
    for block in store.stream(check.bucket, check.key):
        target.write(block)
        digest.update(block)
        written += len(block)
    if digest.hexdigest() != check.sha256:
        raise DamagedResult(
            f"s3://{check.bucket}/{check.key} is not what the manifest promises ({written} bytes instead of "
            f"{check.size_bytes}, or other bytes); what was written cannot be trusted"
        )


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as exc:
        raise WrongUsage(f"{path} cannot be written: {exc.strerror}") from exc
    finally:
        part.unlink(missing_ok=True)
