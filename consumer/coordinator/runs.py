"""The runs of one job: how a request or a retry becomes a run, and what a run takes over from the one before it."""

from __future__ import annotations

import hashlib

from consumer.coordinator import leftovers
from consumer.coordinator.policy import Policy
from consumer.coordinator.state import JobState
from consumer.coordinator.steps import Step
from consumer.errors import ChangedObject, ChangedRecording, UnreadableDocument
from consumer.events import JobRequested, JobStatus
from consumer.work import JobReceived, RetryRequested

MAX_ORIGINS = 16
"""How many sendings a job remembers, so that the same one never starts two runs."""

OF_OTHER_BYTES = frozenset({ChangedRecording.code, ChangedObject.code, UnreadableDocument.code})
"""Runs that failed with these read bytes that are no longer there, or left some that nobody can read: nothing of them
may be used."""


def requested(event: JobReceived, run: int, policy: Policy) -> JobState:
    """The run that a request asks for."""
    return JobState(
        job_id=event.job_id,
        run=run,
        request=_with_defaults(event, policy),
        request_digest=event.request_digest,
        refusal=event.refusal,
        traceparent=event.traceparent,
        received_at_s=event.received_at.timestamp(),
        origins=origins_of(event),
    )


def _with_defaults(event: JobReceived, policy: Policy) -> JobRequested:
    """The request as it will be run and echoed: defaults filled in."""
    options = event.request.options
    vad = options.vad.model_copy(update={"policy": options.vad.policy or policy.vad_policy})
    filled = options.model_copy(update={"model": options.model or policy.models[0], "vad": vad})
    return event.request.model_copy(update={"job_id": event.job_id, "options": filled})


def origins_of(event: JobReceived) -> tuple[str, ...]:
    """The sending by its position, and, where the sender says when it was, by its bytes: clients repeat themselves."""
    record = event.original
    names = [f"{record.topic}/{record.partition}/{record.offset}".encode()]
    if event.request.submitted_at is not None:
        names.append(record.value or b"")
    return tuple(hashlib.sha256(name).hexdigest()[:16] for name in names)


def is_known(state: JobState, event: JobReceived) -> bool:
    """Whether this very sending has been seen. Two requests with equal content are two sendings."""
    return not set(origins_of(event)).isdisjoint(state.origins)


def retried(previous: JobState, event: RetryRequested, policy: Policy) -> JobState:
    """The run that makes good the one before. Its deadline was for that one, and has perhaps passed: there is none."""
    state = JobState(
        job_id=previous.job_id,
        run=previous.run + 1,
        request=previous.request.model_copy(update={"deadline_at": None}),
        request_digest=previous.request_digest,
        refusal=previous.refusal,
        traceparent=previous.traceparent,
        received_at_s=event.requested_at.timestamp(),
    )
    return _going_on(state, previous) if _can_go_on(previous, policy) else state


def _can_go_on(previous: JobState, policy: Policy) -> bool:
    """Only what failed is kept, and only what was read from a pinned recording that still stands can be used."""
    kept = previous.outcome is JobStatus.FAILED and policy.keep_work_on_failure
    return kept and previous.etag is not None and previous.error_code not in OF_OTHER_BYTES


def _going_on(state: JobState, previous: JobState) -> JobState:
    """In the same work folder, on the same bytes, in the same language: finished chunks are found there."""
    return state.changed(
        work_run=previous.work_run or previous.run,
        etag=previous.etag,
        version_id=previous.version_id,
        duration_hint_s=previous.duration_hint_s,
        streams=previous.streams,
        language=previous.language,
        language_probability=previous.language_probability,
        language_settled=previous.language_settled,
    )


def following(previous: JobState, state: JobState) -> Step:
    """The new run after one that has ended, with what must not be forgotten of the runs before."""
    origins = (*previous.origins, *state.origins)[-MAX_ORIGINS:]
    return leftovers.inherited(previous, state.changed(origins=origins))


def can_be_retried(state: JobState, event: RetryRequested) -> bool:
    """Only the newest run, and only one that has ended without all of its text."""
    is_meant = event.run is None or event.run == state.run
    return is_meant and not state.is_open and state.outcome is not JobStatus.COMPLETED
