"""What is submitted in a run, from its seed: recordings, jobs, duplicates, poison, conflicts and cancels."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from consumer.events import Priority
from consumer.ports import Headers
from tests.chaos.recordings import Recording

CHUNK_S = 10.0
LONG_S = 2_600.0
"""About 260 chunks."""
SHORT_LENGTHS_S = (60.0, 120.0, 180.0)
LENGTHS_S = (100.0, 190.0, 280.0, 370.0, 480.0)
"""With the long one about 1,100 chunks in 60 jobs, of which some are cancelled or fail."""
SHORT_RUN_JOBS = 20
"""With fewer jobs the long one is left out, and all are short."""


class Kind(StrEnum):
    """What is sent, and with that what must become of it."""

    JOB = "job"
    CANCELLED_JOB = "cancelled-job"
    """A job that a later cancel stops, unless it is over by then."""
    MISSING_BUCKET = "missing-bucket"
    REFUSED = "refused"
    """Readable, with an option that we do not have: the run fails."""
    DUPLICATE = "duplicate"
    CANCEL = "cancel"
    UNREADABLE = "unreadable"
    CONFLICTING = "conflicting"


JOBS = frozenset({Kind.JOB, Kind.CANCELLED_JOB, Kind.MISSING_BUCKET, Kind.REFUSED})
"""Kinds that start a run."""
DEAD = frozenset({Kind.UNREADABLE, Kind.CONFLICTING})
"""Kinds that end on the dead-letter topic, and nothing else does."""
REASON, METADATA = "a-reason-of-the-sender", "a-value-of-the-sender"
"""Of cancels, and of the jobs that conflict: for nobody else to read."""


@dataclass(frozen=True, slots=True)
class Event:
    """One record to send, `at` in shares of the submission time."""

    at: float
    kind: Kind
    job_id: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
    recording: str = ""
    language: str = ""


@dataclass(frozen=True)
class Scenario:
    """`bucket` holds the recordings."""

    seed: int
    jobs: int
    bucket: str
    recordings: tuple[Recording, ...] = field(init=False)
    long: Recording = field(init=False)
    events: tuple[Event, ...] = field(init=False)

    def __post_init__(self) -> None:
        chance = random.Random(f"{self.seed}/scenario")
        object.__setattr__(self, "recordings", tuple(_recordings(chance, self.jobs)))
        object.__setattr__(self, "long", Recording("long.wav", float(chance.randrange(300)), LONG_S))
        object.__setattr__(self, "events", tuple(sorted(self._events(chance), key=lambda event: event.at)))

    def used(self) -> dict[str, tuple[Recording, str]]:
        """The recordings that jobs really use, each with the one language that they ask for."""
        known = {recording.key: recording for recording in (*self.recordings, self.long)}
        return {e.recording: (known[e.recording], e.language) for e in self.events if e.recording}

    def _events(self, chance: random.Random) -> Iterator[Event]:
        jobs = [self._job(chance, number) for number in range(self.jobs)]
        yield from jobs
        for job in chance.sample([job for job in jobs if job.kind is not Kind.CANCELLED_JOB], k=_share(self.jobs, 6)):
            yield Event(_later(chance, job), Kind.DUPLICATE, job.job_id, job.key, job.value, job.headers)
        for job in chance.sample([job for job in jobs if job.kind is Kind.JOB], k=_share(self.jobs, 15)):
            other = json.dumps({**json.loads(job.value), "metadata": {"other": METADATA}}).encode()
            yield Event(_later(chance, job), Kind.CONFLICTING, job.job_id, job.key, other, (("x-from", b"chaos"),))
        for number in range(_share(self.jobs, 12)):
            noise = chance.randbytes(chance.randint(1, 200))
            headers = (("x-number", str(number).encode()),)
            yield Event(chance.random(), Kind.UNREADABLE, f"poison-{number}", noise[:8], b"\x07" + noise, headers)
        for job in [job for job in jobs if job.kind is Kind.CANCELLED_JOB]:
            value = json.dumps({"job_id": job.job_id, "action": "cancel", "reason": REASON}).encode()
            yield Event(min(1.0, job.at + 0.01), Kind.CANCEL, job.job_id, job.key, value)

    def _job(self, chance: random.Random, number: int) -> Event:
        kind = _kind_of(number, self.jobs)
        job_id = f"job-{number:03d}"
        recording = self.recordings[number % len(self.recordings)]
        if number == 0 and self.jobs > SHORT_RUN_JOBS:
            recording = self.long
        language = "en" if int(recording.start_s) % 2 else "auto"
        request: dict[str, object] = {
            "job_id": job_id,
            "recording": {"bucket": self.bucket, "key": recording.key},
            "options": {"language": language},
            "priority": chance.choices(list(Priority), weights=(2, 6, 2))[0].value,
        }
        if kind is Kind.MISSING_BUCKET:
            request["recording"] = {"bucket": "there-is-no-such-bucket", "key": recording.key}
        if kind is Kind.REFUSED:
            request["options"] = {"language": language, "loudness": 11}
        at = 0.0 if number == 0 else chance.random() * 0.9
        value = json.dumps(request).encode()
        return Event(at, kind, job_id, job_id.encode(), value, (), recording.key, language)


def _kind_of(number: int, jobs: int) -> Kind:
    """The long recording comes first and is a plain job; the odd ones stand at fixed places."""
    odd = {1: Kind.CANCELLED_JOB, 3: Kind.MISSING_BUCKET, 4: Kind.REFUSED}
    if jobs > SHORT_RUN_JOBS:
        odd |= {7: Kind.CANCELLED_JOB, 11: Kind.CANCELLED_JOB, 13: Kind.MISSING_BUCKET}
    return odd.get(number, Kind.JOB)


def _recordings(chance: random.Random, jobs: int) -> Iterator[Recording]:
    """A dozen, so that jobs share them."""
    lengths = LENGTHS_S if jobs > SHORT_RUN_JOBS else SHORT_LENGTHS_S
    for number in range(min(jobs, 12)):
        yield Recording(f"talk-{number:02d}.wav", float(chance.randrange(300)), lengths[number % len(lengths)])


def _share(jobs: int, part: int) -> int:
    return max(1, jobs // part)


def _later(chance: random.Random, job: Event) -> float:
    return job.at + (1.0 - job.at) * chance.random()
