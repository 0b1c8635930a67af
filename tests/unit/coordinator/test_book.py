"""The lists of the book say what a look at every job would say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consumer.coordinator.book import Book
from consumer.coordinator.state import JobState, Status
from consumer.events import JobRequested, Priority, RecordingRef

JOBS = ("a", "b", "c", "d", "e")


def state_of(job_id: str, priority: Priority, admitted_as: int, **fields: Any) -> JobState:
    request = JobRequested(recording=RecordingRef(bucket="bucket", key="k"), priority=priority)
    return JobState(
        job_id=job_id, request=request, request_digest="d", received_at_s=0.0, admitted_as=admitted_as, **fields
    )


def states() -> st.SearchStrategy[JobState]:
    """The order of admission is that of the jobs, so that it is unique."""
    return st.builds(
        lambda place, priority, status, due: state_of(
            JOBS[place], priority, place, status=status, cleanup_due_at_s=due
        ),
        st.integers(0, len(JOBS) - 1),
        st.sampled_from(Priority),
        st.sampled_from(Status),
        st.none() | st.integers(0, 9).map(float),
    )


@given(st.lists(st.tuples(states(), st.booleans()), max_size=40))
def test_whatever_comes_and_goes_the_lists_are_right(changes: list[tuple[JobState, bool]]) -> None:
    book = Book(lambda state: state.cleanup_due_at_s)
    known: dict[str, JobState] = {}
    for state, stays in changes:
        book.put(state)
        known[state.job_id] = state
        if not stays:
            book.remove(state.job_id)
            del known[state.job_id]

        open_jobs = [one for one in known.values() if one.is_open]
        assert dict(book.jobs) == known
        assert {one.job_id for one in book.running()} == {
            one.job_id for one in open_jobs if one.status is not Status.WAITING
        }
        assert [one.job_id for one in book.waiting()] == [
            one.job_id
            for priority in Priority
            for one in sorted(open_jobs, key=lambda one: one.admitted_as)
            if one.request.priority is priority and one.status is Status.WAITING
        ]
        for one in open_jobs:
            before = [o for o in open_jobs if o.request.priority is one.request.priority]
            place = sum(o.admitted_as <= one.admitted_as for o in before)
            queued = one.status in (Status.WAITING, Status.PLANNING)
            assert book.place_in_lane(one) == (place if queued else None)
    due = {one.job_id for one in known.values() if one.cleanup_due_at_s is not None and one.cleanup_due_at_s <= 5}
    found = book.due(5.0)
    assert sorted(found) == sorted(due)
    assert book.due(5.0) == []
