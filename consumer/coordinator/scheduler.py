"""Which plans start and which chunks go out next: pure choices over all jobs of a partition.

A chunk that is released is in a lane's queue, so few are released: then a five-hour file cannot stand before a voice
mail, cancel takes effect at once, and queue length stays true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from consumer.coordinator.state import WITH_CHUNKS, JobState, Status
from consumer.events import Priority


@dataclass(frozen=True, slots=True)
class Release:
    """Send this chunk out, as this attempt."""

    job_id: str
    chunk_index: int
    attempt: int


def admissions(running: Iterable[JobState], waiting: Iterable[JobState], planned_ahead_s: float) -> list[str]:
    """Waiting jobs whose plan may start now, in the order given, while planned and unfinished audio is bounded.

    A job being planned counts with the length that its header claims. One job is always let in when none is planned.
    """
    begun = list(running)
    ahead_s = sum(max(job.unfinished_s, _expected_s(job)) for job in begun)
    planning = any(job.status is Status.PLANNING for job in begun)
    chosen: list[str] = []
    for job in waiting:
        if ahead_s >= planned_ahead_s and (planning or chosen):
            break
        chosen.append(job.job_id)
        ahead_s += _TYPICAL_S
    return chosen


_TYPICAL_S = 600.0
"""What a job counts for between its admission and the moment its length is known."""


def _expected_s(job: JobState) -> float:
    return (job.duration_hint_s or _TYPICAL_S) * job.streams if job.status is Status.PLANNING else 0.0


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
    ready = {place: _candidates(job, now_s) for place, job in enumerate(jobs)}
    least = [(len(job.in_flight), place) for place, job in enumerate(jobs)]
    heapify(least)
    while least and (free > 0 or least[0][0] == 0):
        load, place = heappop(least)
        release = next(ready[place], None)
        if release is not None:
            yield release
            free -= 1
            heappush(least, (load + 1, place))


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
