"""Remove what a run left in the work bucket: sent with the result, never before it. Later, perhaps, the result too.

Both are safe to repeat.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from consumer.core.layout import RunKeys
from consumer.errors import (
    ChangedObject,
    ChangedRecording,
    DeletionNotAllowed,
    MissingBucket,
    MissingObject,
    MissingRecording,
)
from consumer.events import JobStatus
from consumer.ports import Attempt, ObjectStore
from consumer.work import CleanupFinished, CleanupWork, keys_of

BATCH = 1_000
"""Most keys that S3 deletes in one request."""

WIRE, STORE = timedelta(milliseconds=1), timedelta(seconds=1)
"""What instants are rounded down to in our events, and when a store says when an object was written."""

ENDED_FOR_GOOD = frozenset({JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.CANCELLED})

WITHOUT_RESULT = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})


class CleanUp:
    """`CleanupWork` to `CleanupFinished`. The sender's recording is touched only where the work names it, which it does
    after success alone, only if it still is the one that was transcribed, and only if `may_delete_recordings` says so
    now: the job was admitted when the settings were perhaps others.

    Result files go only when the retention that the job asked for is over. Their manifest stays, it has no text:
    it is how a late duplicate of the request is recognised.
    """

    def __init__(
        self,
        store: ObjectStore,
        work_bucket: str,
        results_bucket: str,
        keep_work_on_failure: bool,
        *,
        may_delete_recordings: bool = False,
    ) -> None:
        self._store = store
        self._work_bucket = work_bucket
        self._results_bucket = results_bucket
        self._keep_work_on_failure = keep_work_on_failure
        self._may_delete_recordings = may_delete_recordings
        self._ours = frozenset((work_bucket, results_bucket))

    def __call__(self, work: CleanupWork, attempt: Attempt) -> CleanupFinished:  # noqa: ARG002
        # The attempt is not asked: a cancelled job is exactly one whose work must be removed.
        removed = self._remove_results(work) if work.results else self._remove_work(work) + self._remove_orphans(work)
        recording = self._delete_recording(work)
        return CleanupFinished(
            job_id=work.job_id, run=work.run, removed=removed, results=work.results, recording=recording
        )

    def _delete_recording(self, work: CleanupWork) -> str:
        """ok, or why it stays. Raises AccessDenied and StoreUnavailable: then it is tried again later.

        A sender may upload the same bytes again, and this work may be repeated: what was written after the plan had
        looked is not the recording of the run, although the etag is the same.
        """
        ref = work.recording
        if ref is None:
            return ""
        is_allowed = self._may_delete_recordings and ref.bucket not in self._ours
        if not is_allowed or work.status is not JobStatus.COMPLETED or ref.etag is None:
            return DeletionNotAllowed.code
        try:
            stat = self._store.stat(ref.bucket, ref.key, ref.version_id)
            if stat.etag != ref.etag or (ref.version_id is None and _is_other(work, stat.modified_at)):
                return ChangedRecording.code
            self._store.delete_exactly(stat)
        except (MissingObject, MissingBucket):
            return MissingRecording.code
        except ChangedObject:
            return ChangedRecording.code
        return "ok"

    def _remove_work(self, work: CleanupWork) -> int:
        if self._is_kept(work.status):
            return 0
        folders = {keys_of(work).work_prefix, RunKeys(work.job_id, work.run).work_prefix}
        return sum(self._remove(self._work_bucket, folder) for folder in sorted(folders))

    def _remove_orphans(self, work: CleanupWork) -> int:
        """Result files that no terminal event names: written by an assembly that was overtaken by a cancel, or failed.
        Without their manifest nobody can take them for a result."""
        if work.status not in WITHOUT_RESULT:
            return 0
        return self._remove(self._results_bucket, keys_of(work).results_prefix)

    def _remove_results(self, work: CleanupWork) -> int:
        keys = RunKeys(work.job_id, work.run)
        return self._remove(self._results_bucket, keys.results_prefix, spare=keys.manifest)

    def _is_kept(self, status: JobStatus) -> bool:
        """A status that this version does not know counts as a failure: keeping too much can be put right."""
        return status not in ENDED_FOR_GOOD and self._keep_work_on_failure

    def _remove(self, bucket: str, prefix: str, spare: str | None = None) -> int:
        """Listed to the end before the first delete, so that deleting cannot disturb the listing."""
        keys = [key for key in self._store.list_keys(bucket, prefix) if key != spare]
        batches = (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
        return sum(self._store.delete(bucket, batch) for batch in batches)


def _is_other(work: CleanupWork, modified_at: datetime | None) -> bool:
    """Whether an object was written at another time than the recording; true where nobody knows.

    Both times are the store's, so neither its clock nor its whole seconds matter. A plan of an earlier version did not
    note when: then all of that second has to lie before the end of the run.
    """
    if modified_at is None:
        return True
    if work.modified_at is not None:
        return abs(modified_at - work.modified_at) >= WIRE
    return work.ended_at is None or modified_at + STORE > work.ended_at
