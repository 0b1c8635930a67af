"""Who needs which rights on the brokers: the least of each role and of each kind of client.

The roles take their topics from here, and the ACLs are made from the same table, so what is printed is what is used.
That nothing is missing and nothing is too much is tried on a real broker: tests/integration/test_kafka_acls.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from consumer.core.layout import CHUNK_LANES, Topic
from consumer.settings import KafkaSettings

Kind = Literal["topic", "group", "transactional-id", "cluster"]
Pattern = Literal["literal", "prefixed"]


@dataclass(frozen=True, slots=True)
class Acl:
    """Operations that are allowed on a resource, or on all whose names begin so."""

    kind: Kind
    name: str
    operations: tuple[str, ...]
    pattern: Pattern = "literal"


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody does with topics."""

    reads: tuple[Topic, ...] = ()
    """In a group of its own for each; of a role also the order, highest first."""
    follows: tuple[Topic, ...] = ()
    """Without a group."""
    writes: tuple[Topic, ...] = ()
    transactional_id: str = ""
    """Of its one producer at a time, without the prefix; roles have one for each worker."""
    groups: str = ""
    """What its own groups begin with, without the prefix."""
    runs_topics: bool = False
    """Creates and inspects topics, and asks the brokers for their settings."""


def group_of(role: str, topic: Topic) -> str:
    """The group of a role on a topic, without the prefix."""
    return f"{role}.{topic.value}"


def producers_of(role: str) -> str:
    """What the transactional ids of a role begin with, without the prefix; the worker's name follows."""
    return f"{role}."


def _worker(*reads: Topic) -> Rights:
    """Takes work, hears of cancels, answers; what it cannot read it parks."""
    return Rights(reads, (Topic.CONTROL,), (Topic.JOB_EVENTS, Topic.DEAD_LETTERS, Topic.AUDIT))


WORK = (Topic.PLAN_WORK, *CHUNK_LANES, Topic.ASSEMBLY_WORK, Topic.CLEANUP_WORK)

ROLES = {
    "intake": Rights((Topic.CONTROL, Topic.JOBS), writes=(Topic.JOB_EVENTS, Topic.DEAD_LETTERS, Topic.AUDIT)),
    "coordinate": Rights(
        (Topic.JOB_EVENTS,),
        (Topic.JOB_STATE,),
        (
            Topic.JOB_STATE,
            *WORK,
            Topic.CONTROL,
            Topic.PROGRESS,
            Topic.PARTIALS,
            Topic.RESULTS,
            Topic.AUDIT,
            Topic.DEAD_LETTERS,
        ),
    ),
    "plan": _worker(Topic.PLAN_WORK),
    "transcribe": _worker(*CHUNK_LANES),
    "assemble": _worker(Topic.ASSEMBLY_WORK),
    "cleanup": _worker(Topic.CLEANUP_WORK),
}
"""By the names of the roles."""

CLIENTS = {
    # whisperx-jobs submit, watch, cancel, retry
    "sender": Rights(follows=(Topic.PROGRESS, Topic.RESULTS), writes=(Topic.JOBS, Topic.CONTROL)),
    # whisperx-jobs dead-letters; whisperx-consumer topics create, doctor
    "operator": Rights(
        follows=(Topic.DEAD_LETTERS,),
        writes=(Topic.DEAD_LETTERS, Topic.JOBS, Topic.CONTROL, Topic.JOB_EVENTS, *WORK, Topic.AUDIT),
        transactional_id="dead-letters",
        runs_topics=True,
    ),
    # whisperx-consumer sweep
    "sweeper": Rights(follows=(Topic.JOB_STATE,), writes=(Topic.AUDIT,), transactional_id="sweep"),
    # reads what is public with groups of its own
    "reader": Rights(follows=(Topic.PROGRESS, Topic.PARTIALS, Topic.RESULTS), groups="reader."),
}

NAMES = (*ROLES, *CLIENTS)


def acls(names: Iterable[str], kafka: KafkaSettings) -> list[Acl]:
    """What the holders of these names need together; each resource once."""
    merged: dict[tuple[Kind, str, Pattern], dict[str, None]] = {}
    for name in names:
        for acl in _of(name, kafka):
            merged.setdefault((acl.kind, acl.name, acl.pattern), {}).update(dict.fromkeys(acl.operations))
    return [Acl(kind, name, tuple(operations), pattern) for (kind, name, pattern), operations in merged.items()]


def _of(name: str, kafka: KafkaSettings) -> list[Acl]:
    rights = ROLES.get(name) or CLIENTS[name]
    own = kafka.group_prefix
    found = [Acl("topic", kafka.topic_prefix + topic, ("Read",)) for topic in (*rights.reads, *rights.follows)]
    found += [Acl("topic", kafka.topic_prefix + topic, ("Write",)) for topic in rights.writes]
    found += [Acl("group", own + group_of(name, topic), ("Read",)) for topic in rights.reads]
    if rights.groups:
        found.append(Acl("group", own + rights.groups, ("Read",), "prefixed"))
    if name in ROLES:
        found.append(Acl("transactional-id", own + producers_of(name), ("Write",), "prefixed"))
    if rights.transactional_id:
        found.append(Acl("transactional-id", own + rights.transactional_id, ("Write",)))
    return found + (_inspection(kafka) if rights.runs_topics else [])


def _inspection(kafka: KafkaSettings) -> list[Acl]:
    """Without a prefix our topics cannot be told from others."""
    operations = ("Create", "Describe", "DescribeConfigs")
    ours = (
        Acl("topic", kafka.topic_prefix, operations, "prefixed")
        if kafka.topic_prefix
        else Acl("topic", "*", operations)
    )
    return [
        ours,
        Acl("topic", "__consumer_offsets", ("Describe",)),
        Acl("cluster", "kafka-cluster", ("DescribeConfigs",)),
    ]


def kafka_acls_line(acl: Acl, principal: str, bootstrap_servers: str) -> str:
    """A command line for Kafka's own tool, as an administrator of the brokers runs it."""
    resource: Sequence[str] = ("--cluster",) if acl.kind == "cluster" else (f"--{acl.kind}", acl.name)
    pattern = ("--resource-pattern-type", acl.pattern) if acl.pattern != "literal" else ()
    operations = [word for operation in acl.operations for word in ("--operation", operation)]
    words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add", "--allow-principal", principal]
    return shlex.join([*words, *operations, *resource, *pattern])
