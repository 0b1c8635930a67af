"""The form of a dead letter: the original key, bytes and headers, and headers of ours that say where from and why."""

from __future__ import annotations

from consumer.events import Problem
from consumer.ports import Headers, Outgoing, Received

TOPIC = "dead-letter-topic"
PARTITION = "dead-letter-partition"
OFFSET = "dead-letter-offset"
TIMESTAMP = "dead-letter-timestamp"
"""Kafka timestamp of the original in milliseconds since 1970."""
CODE = "dead-letter-code"
MESSAGE = "dead-letter-message"

OURS = (TOPIC, PARTITION, OFFSET, TIMESTAMP, CODE, MESSAGE)
MAX_MESSAGE_BYTES = 1024


def dead_letter(topic: str, original: Received, reason: Problem) -> Outgoing:
    """The record to publish on the dead-letter topic; all of our headers are UTF-8 text."""
    ours: Headers = (
        (TOPIC, original.topic.encode()),
        (PARTITION, str(original.partition).encode()),
        (OFFSET, str(original.offset).encode()),
        (TIMESTAMP, str(original.timestamp_ms).encode()),
        (CODE, reason.code.encode()),
        (MESSAGE, reason.message.encode()[:MAX_MESSAGE_BYTES]),
    )
    kept = tuple(header for header in original.headers if header[0] not in OURS)
    return Outgoing(topic=topic, key=original.key, value=original.value, headers=(*kept, *ours))
