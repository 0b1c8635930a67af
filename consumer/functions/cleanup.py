"""Remove what a run left in the work bucket. Sent with the result, never before it; safe to repeat."""

from __future__ import annotations

from consumer.core.layout import RunKeys
from consumer.events import JobStatus
from consumer.ports import Attempt, ObjectStore
from consumer.work import CleanupFinished, CleanupWork

BATCH = 1_000
"""Most keys that S3 deletes in one request."""

ENDED_FOR_GOOD = frozenset({JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.CANCELLED})


class CleanUp:
    """`CleanupWork` to `CleanupFinished`. The results bucket and the sender's recording are never touched."""

    def __init__(self, store: ObjectStore, work_bucket: str, keep_work_on_failure: bool) -> None:
        self._store = store
        self._work_bucket = work_bucket
        self._keep_work_on_failure = keep_work_on_failure

    def __call__(self, work: CleanupWork, attempt: Attempt) -> CleanupFinished:  # noqa: ARG002
        # The attempt is not asked: a cancelled job is exactly one whose work must be removed.
        removed = 0 if self._is_kept(work.status) else self._remove(RunKeys(work.job_id, work.run).work_prefix)
        return CleanupFinished(job_id=work.job_id, run=work.run, removed=removed)

    def _is_kept(self, status: JobStatus) -> bool:
        """A status that this version does not know counts as a failure: keeping too much can be put right."""
        return status not in ENDED_FOR_GOOD and self._keep_work_on_failure

    def _remove(self, prefix: str) -> int:
        """Listed to the end before the first delete, so that deleting cannot disturb the listing."""
        keys = list(self._store.list_keys(self._work_bucket, prefix))
        batches = (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
        return sum(self._store.delete(self._work_bucket, batch) for batch in batches)
