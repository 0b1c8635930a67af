"""Which plans start and which chunks go out next: pure choices over all jobs of a partition.

A chunk that is released is in a lane's queue, so few are released: then a five-hour file cannot stand before a voice
mail, cancel takes effect at once, and queue length stays true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from consumer.coordinator.state import WITH_CHUNKS, JobState, Status
from consumer.events import Priority


@dataclass(frozen=True, slots=True)
class Release:
    """Send this chunk out, as this attempt."""

    job_id: str
    chunk_index: int
    attempt: int


def admissions(jobs: Iterable[JobState], planned_ahead_s: float) -> list[str]:
    """Waiting jobs whose plan may start now: by lane, then by age, while planned and unfinished audio is bounded.

    A job being planned counts with the length that its header claims. One job is always let in when none is planned.
    """
    everything = list(jobs)
    ahead_s = sum(max(job.unfinished_s, _expected_s(job)) for job in everything)
    planning = sum(job.status is Status.PLANNING for job in everything)
    chosen: list[str] = []
    for job in sorted((job for job in everything if job.status is Status.WAITING), key=_precedence):
        if ahead_s >= planned_ahead_s and (planning or chosen):
            break
        chosen.append(job.job_id)
        ahead_s += _TYPICAL_S
    return chosen


_TYPICAL_S = 600.0
"""What a job counts for between its admission and the moment its length is known."""


def _expected_s(job: JobState) -> float:
    return (job.duration_hint_s or _TYPICAL_S) if job.status is Status.PLANNING else 0.0


def _precedence(job: JobState) -> tuple[int, int]:
    return list(Priority).index(job.request.priority), job.admitted_as


def releases(jobs: Iterable[JobState], chunks_in_flight: int, now_s: float) -> list[Release]:
    """The chunks to send now: per lane up to `chunks_in_flight`, round-robin, and at least one for every job."""
    active = sorted((job for job in jobs if job.status in WITH_CHUNKS), key=_precedence)
    chosen: list[Release] = []
    for lane in Priority:
        chosen.extend(_lane_releases([job for job in active if job.request.priority is lane], chunks_in_flight, now_s))
    return chosen


def _lane_releases(jobs: list[JobState], allowed: int, now_s: float) -> Iterator[Release]:
    free = allowed - sum(len(job.in_flight) for job in jobs)
    ready = {job.job_id: _candidates(job, now_s) for job in jobs}
    load = {job.job_id: len(job.in_flight) for job in jobs}
    while ready:
        job_id = min(ready, key=lambda name: load[name])
        release = next(ready[job_id], None) if free > 0 or load[job_id] == 0 else None
        if release is None:
            del ready[job_id]
            continue
        yield release
        load[job_id] += 1
        free -= 1


def _candidates(job: JobState, now_s: float) -> Iterator[Release]:
    """Chunks of the job that may go out, in order: retries that are due, then those never sent.

    While the language is to be detected, exactly one chunk goes out, as soon as the sample is stored.
    """
    if not _language_is_known(job):
        if job.in_flight or not job.sample_ready:
            return
        yield from list(_waiting_chunks(job, now_s))[:1]
        return
    yield from _waiting_chunks(job, now_s)


def _waiting_chunks(job: JobState, now_s: float) -> Iterator[Release]:
    for index, retry in sorted(job.retries.items()):
        if retry.due_at_s <= now_s:
            yield Release(job.job_id, index, retry.attempt)
    done = job.done_chunks
    for index in range(job.next_chunk, job.planned):
        if index not in done:
            yield Release(job.job_id, index, 1)


def _language_is_known(job: JobState) -> bool:
    return job.language_settled or job.request.options.language != "auto"


def queue_positions(jobs: Iterable[JobState]) -> dict[str, int]:
    """Place in its lane, from 1, of every open job none of whose chunks has been released."""
    positions: dict[str, int] = {}
    ahead = dict.fromkeys(Priority, 0)
    for job in sorted((job for job in jobs if job.is_open), key=lambda job: job.admitted_as):
        ahead[job.request.priority] += 1
        if job.first_release_at_s is None and job.status in (Status.WAITING, Status.PLANNING):
            positions[job.job_id] = ahead[job.request.priority]
    return positions
