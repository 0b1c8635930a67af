"""One id per event: the same event always gets the same id, however often it is read."""

from __future__ import annotations

import hashlib
import json
import re

from consumer.events import JOB_ID_PATTERN, Event, JobOptions, JobRequested

ADDED_OPTIONS = ("track", "multichannel", "delete_recording")
"""Options that the first version did not know: left out where they are not used, so that a request keeps its digest
over an update, and is not taken for another one under the same id."""

_READABLE = re.compile(JOB_ID_PATTERN)


def job_id_from_idempotency_key(key: str) -> str:
    """The key itself where it can be a job id, else a hash of it.

    job_id_from_idempotency_key("call-17") -> 'call-17'
    """
    return key if _READABLE.fullmatch(key) else _hashed("key", key)


def job_id_from_cloud_event(source: str, event_id: str) -> str:
    """CloudEvents promise that source and id together are unique."""
    return _hashed("ce", source, event_id)


def job_id_from_position(topic: str, partition: int, offset: int) -> str:
    """For events without any name of their own: the position in the log is one."""
    return _hashed("pos", topic, str(partition), str(offset))


def request_digest(request: JobRequested) -> str:
    """Hash of what a job does: tells a repeated request from another one under the same id.

    Who asked, when, and how urgently is left out: a sender may repeat itself with a new time.
    """
    meaning = request.model_dump(mode="json", include={"recording", "options", "metadata"})
    for name in ADDED_OPTIONS:
        if meaning["options"][name] == JobOptions.model_fields[name].default:
            del meaning["options"][name]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


_NAMING_FIELDS = ("run", "epoch", "chunk_index", "sequence", "attempt", "action", "happened_at")


def event_id(event: Event) -> str:
    """A CloudEvents id that is the same for the same fact, so that readers can drop a repetition."""
    named = [f"{field[0]}{value}" for field in _NAMING_FIELDS if (value := getattr(event, field, None)) is not None]
    target = getattr(event, "target", None)  # of one action on many things each is a fact of its own
    about = [] if target is None else [hashlib.sha256(str(target).encode()).hexdigest()[:16]]
    return "/".join([event.NAME, event.key(), *named, *about])


def _hashed(kind: str, *parts: str) -> str:
    text = "\0".join(parts)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
