"""What earlier runs of a job left to be removed: their work, if the cleanup has not answered yet, and their result
files once their retention is over. The state of the newest run keeps the list, so that a new run forgets nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from consumer.coordinator.policy import Command, Policy, Send
from consumer.coordinator.state import JobState, Leftover, Status
from consumer.coordinator.steps import Step, audit, audit_of_recording
from consumer.core.audit import Action
from consumer.core.layout import Topic
from consumer.core.retries import next_try_at
from consumer.events import Event
from consumer.work import CleanupFailed, CleanupFinished, CleanupWork

MAX_LEFTOVERS = 16
"""Of more runs than these the oldest are cleaned up at once, so that the state stays small."""

STRAGGLERS_S = 60.0
"""After a run that ended early the cleanup is repeated once, so much later: a worker leaves its chunk between two
batches, and what it was writing then has to go as well."""


def inherited(previous: JobState, heir: JobState) -> Step:
    """The heir with what the runs before it left. Its own work folder is not among it."""
    left = [*previous.leftovers, *(one for one in _left_by(previous) if one.results or heir.work_run is None)]
    surplus, kept = left[:-MAX_LEFTOVERS], left[-MAX_LEFTOVERS:]
    asked = tuple(_work(heir, _asked(one)) for one in surplus)
    return Step(heir.changed(leftovers=tuple(kept)), asked)


def _left_by(state: JobState) -> Iterator[Leftover]:
    """Of the run itself: the cleanup that has not answered, the result files that are to go later."""
    assert state.outcome is not None
    one = Leftover(run=state.run, status=state.outcome, work_run=state.work_run)
    if state.status in (Status.FINISHED, Status.EXPIRING):
        yield one.changed(
            results=state.status is Status.EXPIRING,
            attempt=state.cleanup_attempt,
            due_at_s=state.cleanup_due_at_s,
            stragglers=state.stragglers,
        )
    if state.expires_at_s is not None and state.status is not Status.EXPIRING:
        yield one.changed(results=True, due_at_s=state.expires_at_s)


def due_at_s(state: JobState) -> float | None:
    """When the next of them has to be asked for; None when all wait for answers, or there are none."""
    return min((one.due_at_s for one in state.leftovers if one.due_at_s is not None), default=None)


def ask(state: JobState, now_s: float) -> Step:
    """Have removed what is due."""
    asked: list[Command] = []
    after: list[Leftover] = []
    for one in state.leftovers:
        if one.due_at_s is not None and one.due_at_s <= now_s:
            one = _asked(one)
            asked.append(_work(state, one))
        after.append(one)
    return Step(state.changed(leftovers=tuple(after)), tuple(asked))


def answered(state: JobState, event: Event, now_s: float, policy: Policy) -> Step:
    """An answer about an earlier run. Only cleanups can still matter; everything else comes too late."""
    if not isinstance(event, CleanupFinished | CleanupFailed):
        return Step(state)
    one = next((one for one in state.leftovers if (one.run, one.results) == (event.run, event.results)), None)
    if one is None or one.due_at_s is not None:
        return Step(state)
    if isinstance(event, CleanupFinished):
        again = (one.changed(stragglers=False, attempt=0, due_at_s=now_s + STRAGGLERS_S),) if one.stragglers else ()
        step = _done(state, one, f"{event.removed} objects", "ok", now_s, *again)
        return Step(step.state, (*step.commands, *audit_of_recording(state, event.recording, now_s, one.run)))
    if event.attempt != one.attempt:
        return Step(state)
    due = next_try_at(now_s, one.attempt, policy.cleanup, f"{state.job_id}/{one.run}/cleanup")
    if due is None:
        return _done(state, one, state.job_id, event.error.code, now_s)
    return Step(_replaced(state, one, one.changed(due_at_s=due)))


def _done(state: JobState, one: Leftover, target: str, outcome: str, now_s: float, *then: Leftover) -> Step:
    """Removed, or given up: then the bucket's lifecycle rules are the second net."""
    noted = audit(state, "cleanup", removal(one.results), target, now_s, outcome, run=one.run)
    return Step(_replaced(state, one, *then), (noted,))


def removal(results: bool) -> Action:
    return Action.RESULTS_EXPIRED if results else Action.DATA_REMOVED


def _replaced(state: JobState, old: Leftover, *new: Leftover) -> JobState:
    return state.changed(leftovers=(*(one for one in state.leftovers if one != old), *new))


def _asked(one: Leftover) -> Leftover:
    return one.changed(attempt=one.attempt + 1, due_at_s=None)


def _work(state: JobState, one: Leftover) -> Send:
    """Never with the recording: a later run of the same job reads it, and that run's request says what is to become
    of it."""
    work = CleanupWork(
        job_id=state.job_id,
        run=one.run,
        attempt=one.attempt,
        status=one.status,
        results=one.results,
        work_run=one.work_run,
    )
    return Send(Topic.CLEANUP_WORK, work, state.traceparent)
