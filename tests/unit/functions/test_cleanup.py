from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.errors import Cancelled, MissingObject
from consumer.events import JobStatus, RecordingRef
from consumer.functions.cleanup import BATCH, CleanUp
from consumer.work import CleanupFinished, CleanupWork
from tests.unit.functions.result_fakes import FakeAttempt, WatchedStore

LEFT = {("work", f"work/job-1/1/chunks/{index:05d}.pcm"): b"x" for index in range(3)}
OTHERS = {
    ("work", "work/job-1/2/chunks/00000.pcm"): b"x",
    ("work", "work/job-10/1/chunks/00000.pcm"): b"x",
    ("results", "results/job-1/1/manifest.json"): b"x",
    ("calls", "work/job-1/1/recording.wav"): b"x",
}


def _work(status: JobStatus) -> CleanupWork:
    return CleanupWork(job_id="job-1", run=1, status=status)


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.PARTIAL])
@pytest.mark.parametrize("keep", [True, False])
def test_everything_of_a_finished_run_goes_and_nothing_else(status: JobStatus, keep: bool) -> None:
    store = WatchedStore({**LEFT, **OTHERS})
    answer = CleanUp(store, "work", "results", keep)(_work(status), FakeAttempt())
    assert answer == CleanupFinished(job_id="job-1", run=1, removed=3)
    assert store.contents() == OTHERS


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.UNKNOWN])
@pytest.mark.parametrize(("keep", "removed"), [(True, 0), (False, 3)])
def test_the_work_of_a_failed_run_is_kept_if_the_settings_say_so(status: JobStatus, keep: bool, removed: int) -> None:
    store = WatchedStore(dict(LEFT))
    assert CleanUp(store, "work", "results", keep)(_work(status), FakeAttempt()).removed == removed
    assert len(store.contents()) == len(LEFT) - removed


def test_cleaning_twice_is_no_error() -> None:
    clean_up = CleanUp(WatchedStore(dict(LEFT)), "work", "results", True)
    clean_up(_work(JobStatus.COMPLETED), FakeAttempt())
    assert clean_up(_work(JobStatus.COMPLETED), FakeAttempt()).removed == 0


def test_a_cancelled_job_is_cleaned_up_although_its_attempts_are_cancelled() -> None:
    answer = CleanUp(WatchedStore(dict(LEFT)), "work", "results", True)(
        _work(JobStatus.CANCELLED), FakeAttempt(stop=Cancelled("job-1 was cancelled"))
    )
    assert answer.removed == 3


@pytest.mark.parametrize(("status", "removed"), [(JobStatus.CANCELLED, 3 + 1), (JobStatus.FAILED, 1)])
def test_result_files_that_no_terminal_event_names_go_with_their_manifest(status: JobStatus, removed: int) -> None:
    store = WatchedStore({**LEFT, **OTHERS})
    assert CleanUp(store, "work", "results", True)(_work(status), FakeAttempt()).removed == removed
    assert ("results", "results/job-1/1/manifest.json") not in store.contents()


def test_a_run_that_went_on_in_the_folder_of_another_leaves_neither() -> None:
    store = WatchedStore({**LEFT, **OTHERS})
    work = CleanupWork(job_id="job-1", run=2, work_run=1, status=JobStatus.COMPLETED)
    assert CleanUp(store, "work", "results", True)(work, FakeAttempt()).removed == 3 + 1
    assert [key for bucket, key in store.contents() if bucket == "work"] == ["work/job-10/1/chunks/00000.pcm"]


def test_many_objects_go_in_batches() -> None:
    store = WatchedStore({("work", f"work/job-1/1/{number}"): b"" for number in range(2 * BATCH + 1)})
    assert CleanUp(store, "work", "results", True)(_work(JobStatus.COMPLETED), FakeAttempt()).removed == 2 * BATCH + 1
    assert store.deleted_together == [BATCH, BATCH, 1]


def test_expired_results_go_and_their_manifest_stays() -> None:
    kept = {("results", "results/job-1/1/manifest.json"): b"{}", ("work", "work/job-1/1/chunks/00000.pcm"): b"pcm"}
    store = WatchedStore({**kept, ("results", "results/job-1/1/transcript.json"): b"{}"})
    work = _work(JobStatus.COMPLETED).model_copy(update={"results": True})
    assert CleanUp(store, "work", "results", True)(work, FakeAttempt()).removed == 1
    assert store.contents() == kept


# ── the sender's recording ──────────────────────────────────────────────────────────────────────────────────────────

UPLOADED = datetime(2024, 5, 1, 12, tzinfo=UTC)
ENDED = UPLOADED + timedelta(minutes=5)


def _calls(*, versioned: bool = False, at: datetime = UPLOADED) -> tuple[MemoryStore, RecordingRef]:
    store = MemoryStore("work", "results", "calls", versioned=versioned, now=lambda: at)
    store.put("calls", "a.wav", b"what was said")
    stat = store.stat("calls", "a.wav")
    return store, RecordingRef(bucket="calls", key="a.wav", etag=stat.etag, version_id=stat.version_id)


def _deleting(
    ref: RecordingRef, status: JobStatus = JobStatus.COMPLETED, *, written_at: datetime | None = UPLOADED
) -> CleanupWork:
    return CleanupWork(job_id="job-1", run=1, status=status, recording=ref, ended_at=ENDED, modified_at=written_at)


def _said(store: MemoryStore, work: CleanupWork, *, may_delete: bool = True) -> str:
    clean_up = CleanUp(store, "work", "results", True, may_delete_recordings=may_delete)
    return clean_up(work, FakeAttempt()).recording


@pytest.mark.parametrize("versioned", [False, True])
def test_a_recording_goes_when_the_completed_job_asked_for_it(versioned: bool) -> None:
    store, ref = _calls(versioned=versioned)
    assert _said(store, _deleting(ref)) == "ok"
    with pytest.raises(MissingObject):
        store.stat("calls", "a.wav", ref.version_id)
    assert _said(store, _deleting(ref)) == "RECORDING_MISSING"


def test_a_recording_stays_when_the_settings_no_longer_allow_its_deletion() -> None:
    store, ref = _calls()
    assert _said(store, _deleting(ref), may_delete=False) == "DELETION_NOT_ALLOWED"
    assert store.get("calls", "a.wav") == b"what was said"


@pytest.mark.parametrize("status", [JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.UNKNOWN])
def test_p6_a_recording_stays_when_the_run_has_not_completed_whatever_the_event_says(status: JobStatus) -> None:
    store, ref = _calls()
    assert _said(store, _deleting(ref, status)) == "DELETION_NOT_ALLOWED"
    assert store.get("calls", "a.wav") == b"what was said"


def test_a_recording_that_was_overwritten_stays() -> None:
    store, ref = _calls()
    store.put("calls", "a.wav", b"something else")
    assert _said(store, _deleting(ref)) == "SOURCE_CHANGED"
    assert store.get("calls", "a.wav") == b"something else"


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("at", [UPLOADED - SECOND, UPLOADED + SECOND, ENDED - SECOND, ENDED, ENDED + SECOND])
def test_the_same_bytes_uploaded_at_another_time_stay(at: datetime) -> None:
    """Also in the second in which the run ended: stores tell whole seconds only."""
    store, ref = _calls(at=at)
    assert _said(store, _deleting(ref)) == "SOURCE_CHANGED"
    assert store.get("calls", "a.wav") == b"what was said"


def test_the_recording_of_a_run_that_took_less_than_a_second_goes() -> None:
    store, ref = _calls(at=ENDED)
    assert _said(store, _deleting(ref, written_at=ENDED)) == "ok"


def test_a_store_that_tells_more_than_our_events_hold_is_understood() -> None:
    at = UPLOADED + timedelta(microseconds=123_999)
    store, ref = _calls(at=at)
    assert _said(store, _deleting(ref, written_at=at)) == "ok"


@pytest.mark.parametrize(("before_the_end", "said"), [(SECOND, "ok"), (SECOND / 2, "SOURCE_CHANGED")])
def test_a_plan_that_did_not_say_when_deletes_what_was_surely_written_before_the_end(
    before_the_end: timedelta, said: str
) -> None:
    """It was of an earlier version, whose work may still be under way."""
    store, ref = _calls(at=ENDED - before_the_end)
    assert _said(store, _deleting(ref, written_at=None)) == said


def test_where_versions_are_kept_only_the_pinned_one_goes() -> None:
    store, ref = _calls(versioned=True)
    store.put("calls", "a.wav", b"the next one")
    assert _said(store, _deleting(ref)) == "ok"
    assert store.get("calls", "a.wav") == b"the next one"


@pytest.mark.parametrize("bucket", ["work", "results"])
def test_nothing_in_a_bucket_of_ours_is_taken_for_a_recording(bucket: str) -> None:
    store, ref = _calls()
    store.put(bucket, "a.wav", b"what was said")
    assert _said(store, _deleting(ref.model_copy(update={"bucket": bucket}))) == "DELETION_NOT_ALLOWED"
    assert store.get(bucket, "a.wav") == b"what was said"
