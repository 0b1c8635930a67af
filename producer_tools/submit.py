"""From recordings to published job requests: each recording once, under an id that the same work has every time."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from consumer.contracts import faults
from consumer.core.identity import job_id_from_idempotency_key, request_digest
from consumer.core.layout import Topic
from consumer.core.places import fault_of
from consumer.events import JobOptions, JobRequested, Priority, RecordingRef
from consumer.ports import ObjectStore
from producer_tools.connection import Connection
from producer_tools.faults import NotFound, WrongUsage
from producer_tools.instants import instant_from
from producer_tools.option_flags import options_from
from producer_tools.publishing import Publisher, as_avro, as_json
from producer_tools.recordings import LocalFile, Recording, Skipped, StoredObject, recordings_in
from producer_tools.result import require_job_id
from producer_tools.terminal import Terminal, printable, size
from producer_tools.upload import content_key, digest_of, upload

_ID_CHARACTERS = 24
"""96 bits of the digest: no two jobs meet by chance, and a person can still read it out."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is the same for all recordings of one call."""

    options: JobOptions
    bucket: str
    prefix: str
    job_id: str | None
    idempotency_key: str | None
    priority: Priority
    deadline_at: datetime | None
    force: bool
    metadata: dict[str, str]
    submitted_by: str | None
    submitted_at: datetime

    @property
    def named(self) -> bool:
        """Whether the sender named the job, so that we need not look at the recording to name it."""
        return bool(self.job_id or self.idempotency_key)


Now = Callable[[], datetime]


BeforeSending = Callable[[str], None]
"""Called with the id of each job just before it is sent."""


def nothing_before(_job_id: str) -> None:
    """For who needs no word of it."""


def submit(
    arguments: argparse.Namespace,
    connection: Connection,
    terminal: Terminal,
    now: Now,
    before_sending: BeforeSending = nothing_before,
) -> dict[str, str]:
    """Upload, publish, and print one line per job; by the ids of the jobs, what the sender calls the recording."""
    wishes = wishes_from(arguments, now())
    recordings = _chosen(arguments, wishes, terminal)
    objects = _Objects(connection)
    sender: _DryRun | _Sender = _DryRun(objects, terminal)
    if not arguments.dry_run:
        encode = as_json if arguments.json_event else as_avro(connection.codec())
        sender = _Sender(objects, Publisher(connection, Topic.JOBS, encode, now), terminal, before_sending)
    named: dict[str, str] = {}
    for recording in recordings:
        named.setdefault(sender.send(recording, wishes), recording.name)
    return named


def wishes_from(arguments: argparse.Namespace, now: datetime) -> Wishes:
    """Raises WrongUsage."""
    return Wishes(
        options=options_from(arguments),
        bucket=arguments.bucket,
        prefix=arguments.prefix,
        job_id=arguments.job_id if arguments.job_id is None else require_job_id(arguments.job_id),
        idempotency_key=arguments.idempotency_key,
        priority=Priority(arguments.priority),
        deadline_at=_deadline(arguments.deadline, now) if arguments.deadline else None,
        force=arguments.force,
        metadata=_metadata(arguments.metadata),
        submitted_by=arguments.submitted_by or login_name(),
        submitted_at=now,
    )


def _deadline(text: str, now: datetime) -> datetime:
    """A job whose deadline has passed would only come back as failed."""
    deadline = instant_from(text, now, ahead=True)
    if deadline <= now:
        raise WrongUsage(
            f"--deadline {text!r} has passed; give an instant to come (UTC unless it says), or 2h from now"
        )
    return deadline


def login_name() -> str | None:
    """Who we are on this machine; None in a container whose user has no name."""
    try:
        return getpass.getuser()[:256]
    except (KeyError, OSError):
        return None


def _metadata(pairs: Sequence[str]) -> dict[str, str]:
    """_metadata(["case=17"]) -> {"case": "17"}"""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [name for name, sign, _ in split if not (name and sign)]:
        raise WrongUsage(f"--metadata {wrong[0]!r}: write name=value")
    return {name: value for name, _, value in split}


def _chosen(arguments: argparse.Namespace, wishes: Wishes, terminal: Terminal) -> list[Recording]:
    found: list[Recording] = []
    for one in recordings_in(arguments.recordings, recursive=arguments.recursive):
        if isinstance(one, Skipped):
            terminal.say(printable(f"skipped {one.path}: {one.why}"))
        else:
            found.append(one)
    if not found:
        raise NotFound("no recording found; name a media file, a folder with media files, or s3://bucket/key")
    if wishes.named and len(found) > 1:
        raise WrongUsage(f"--job-id and --idempotency-key name one job, and there are {len(found)} recordings")
    return found


class _Objects:
    """The store, opened when it is needed: a sender who names a stored job needs no access to it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._opened: ObjectStore | None = None

    @property
    def store(self) -> ObjectStore:
        if self._opened is None:
            self._opened = self._connection.store()
        return self._opened

    def reference(self, recording: StoredObject, wishes: Wishes) -> RecordingRef:
        """With the etag of now, so that another recording under the same key is another job."""
        if wishes.named:
            return _reference(recording.bucket, recording.key)
        stat = self.store.stat(recording.bucket, recording.key)
        return _reference(recording.bucket, recording.key, stat.etag)


class _Sender:
    """Uploads and publishes one recording after another, so that a failure leaves the ones before it done."""

    def __init__(
        self, objects: _Objects, publisher: Publisher, terminal: Terminal, before_sending: BeforeSending
    ) -> None:
        self._objects = objects
        self._publisher = publisher
        self._terminal = terminal
        self._before_sending = before_sending

    def send(self, recording: Recording, wishes: Wishes) -> str:
        request = request_for(self._stored(recording, wishes), wishes)
        self._before_sending(str(request.job_id))
        self._publisher.publish([request])
        self._terminal.data(f"{request.job_id}\t{printable(recording.name)}")
        return str(request.job_id)

    def _stored(self, recording: Recording, wishes: Wishes) -> RecordingRef:
        if isinstance(recording, LocalFile):
            return self._uploaded(recording, wishes)
        return self._objects.reference(recording, wishes)

    def _uploaded(self, file: LocalFile, wishes: Wishes) -> RecordingRef:
        digest = digest_of(file.path, self._report("reading", file))
        key = content_key(wishes.prefix, digest, file.path)
        # Without an etag: it depends on the size of the parts, and the key says already what the content is.
        reference = _reference(wishes.bucket, key)
        sent = upload(self._objects.store, wishes.bucket, key, file.path, digest, self._report("uploading", file))
        self._terminal.erase()
        verb = "uploaded" if sent else "already there:"
        self._terminal.say(printable(f"{verb} {file.name} -> s3://{wishes.bucket}/{key}"))
        return reference

    def _report(self, verb: str, file: LocalFile) -> Callable[[int], None]:
        total = file.path.stat().st_size
        step = max(total // 200, 1 << 20)
        drawn = -step

        def report(done: int) -> None:
            nonlocal drawn
            if done - drawn >= step or done == total:
                drawn = done
                share = 100 * done / total if total else 100.0
                self._terminal.draw([printable(f"{verb} {file.name}  {share:3.0f}%  {size(done)} of {size(total)}")])

        return report


class _DryRun:
    """Shows what would be sent. Files are only read, the store is only asked for etags, no broker is needed."""

    def __init__(self, objects: _Objects, terminal: Terminal) -> None:
        self._objects = objects
        self._terminal = terminal

    def send(self, recording: Recording, wishes: Wishes) -> str:
        request = request_for(self._reference(recording, wishes), wishes)
        self._terminal.data(request.model_dump_json(exclude_none=True))
        return str(request.job_id)

    def _reference(self, recording: Recording, wishes: Wishes) -> RecordingRef:
        if isinstance(recording, StoredObject):
            return self._objects.reference(recording, wishes)
        digest = digest_of(recording.path, lambda _: None)
        return _reference(wishes.bucket, content_key(wishes.prefix, digest, recording.path))


def _reference(bucket: str, key: str, etag: str | None = None) -> RecordingRef:
    try:
        made = RecordingRef(bucket=bucket, key=key, etag=etag)
    except ValidationError as exc:
        raise WrongUsage(f"s3://{bucket}/{key} cannot be: {faults(exc)}") from exc
    if fault := fault_of(made):
        raise WrongUsage(f"s3://{bucket}/{key} cannot be: {fault}")
    return made


def request_for(recording: RecordingRef, wishes: Wishes) -> JobRequested:
    """The request, with an id that is the same whenever the same work is asked for. Raises WrongUsage."""
    request = _request(recording, wishes, wishes.job_id, wishes.idempotency_key)
    if request.job_id:
        return request
    key = request.idempotency_key or f"job-{request_digest(request)[:_ID_CHARACTERS]}"
    return _request(recording, wishes, job_id_from_idempotency_key(key), key)


def _request(recording: RecordingRef, wishes: Wishes, job_id: str | None, idempotency_key: str | None) -> JobRequested:
    try:
        return JobRequested(
            recording=recording,
            job_id=job_id,
            idempotency_key=idempotency_key,
            options=wishes.options,
            priority=wishes.priority,
            deadline_at=wishes.deadline_at,
            force=wishes.force,
            metadata=wishes.metadata,
            submitted_by=wishes.submitted_by,
            submitted_at=wishes.submitted_at,
        )
    except ValidationError as exc:
        raise WrongUsage(f"this job cannot be: {faults(exc)}") from exc
