"""Intake: whatever arrives on `jobs` and `control` becomes a typed event under the right job id, or is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.core.identity import (
    job_id_from_cloud_event,
    job_id_from_idempotency_key,
    job_id_from_position,
    request_digest,
)
from consumer.errors import InvalidEvent
from consumer.events import JobControl
from consumer.ports import Received
from consumer.requests import RequestRead
from consumer.work import CancelRequested, JobReceived, OriginalHeader, OriginalRecord, RetryRequested


@dataclass(frozen=True, slots=True)
class Intake:
    """Pure: the same record always becomes the same event."""

    def job(self, record: Received, read: RequestRead) -> JobReceived:
        """The request under its id, with the record as it arrived for the case of a conflict."""
        return JobReceived(
            job_id=job_id_of(record, read),
            request=read.request,
            request_digest=request_digest(read.request),
            refusal=read.refusal,
            original=original_of(record),
            received_at=instant_of(record),
            traceparent=read.traceparent,
        )

    def control(self, record: Received, control: JobControl) -> CancelRequested | RetryRequested:
        meant = CancelRequested if control.action == "cancel" else RetryRequested
        return meant(
            job_id=control.job_id,
            run=control.run,
            reason=control.reason,
            requested_by=control.requested_by,
            requested_at=instant_of(record),
        )


def job_id_of(record: Received, read: RequestRead) -> str:
    """Given, or from the idempotency key, or from the CloudEvents source and id, or from the position."""
    request = read.request
    if request.job_id is not None:
        return request.job_id
    if request.idempotency_key is not None:
        return job_id_from_idempotency_key(request.idempotency_key)
    if read.ce_source and read.ce_id:
        return job_id_from_cloud_event(read.ce_source, read.ce_id)
    return job_id_from_position(record.topic, record.partition, record.offset)


def original_of(record: Received) -> OriginalRecord:
    return OriginalRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        record_key=record.key,
        value=record.value,
        headers=tuple(
            OriginalHeader(name=name, value=value or b"", is_null=value is None) for name, value in record.headers
        ),
    )


def received_of(original: OriginalRecord) -> Received:
    """The inverse of `original_of`."""
    return Received(
        topic=original.topic,
        partition=original.partition,
        offset=original.offset,
        key=original.record_key,
        value=original.value,
        headers=tuple((header.name, None if header.is_null else header.value) for header in original.headers),
        timestamp_ms=original.timestamp_ms,
    )


def instant_of(record: Received) -> datetime:
    """When the broker or the sender says that it was written. Raises InvalidEvent for an instant that is none."""
    try:
        return datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise InvalidEvent(
            f"the record's timestamp {record.timestamp_ms} is no instant in milliseconds since 1970; "
            "let the producer set it in milliseconds, or leave it to the broker"
        ) from exc
