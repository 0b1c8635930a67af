"""The topics as data, how to create them, and what is wrong with those that exist.

Partition counts of job-events and job-state are equal and never change: the coordinator reads the state partition with
the number of the events partition, and keys are hashed over the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from consumer.core.layout import CHUNK_LANES, Topic
from consumer.findings import Finding, fail, ok, warn
from consumer.settings import MIB, TopicSettings

CHECK = "topics"
HOUR_MS = 3_600_000
MAX_RECORD_BATCH_BYTES = MIB + 12
"""The broker's own default. Our events are below 256 KiB, but the limit counts whole batches, which clients fill up to
1,000,000 bytes."""
MAX_DEAD_LETTER_BYTES = 2 * MIB
"""A dead letter is the original event with headers, so that it can be larger than anything on `jobs`."""

WORK = (Topic.JOB_EVENTS, Topic.PLAN_WORK, *CHUNK_LANES, Topic.ASSEMBLY_WORK, Topic.CLEANUP_WORK)
REQUESTS = (Topic.JOBS, Topic.CONTROL)
STATE = (Topic.JOB_EVENTS, Topic.JOB_STATE)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is to be."""

    topic: Topic
    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the brokers describe it."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str] = field(default_factory=dict)


class TopicAdmin(Protocol):
    """Raises BrokerUnavailable (RefusedLogin, NotAuthorized), or Misconfigured where it does not take a topic."""

    def describe(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        """The facts of those of these topics that exist."""
        ...

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create them; the names that were created by us and not by another process just now."""
        ...


@dataclass(frozen=True, slots=True)
class Creation:
    """What `create` did, or with `dry_run` would do, and what is wrong with the topics that were there."""

    created: tuple[str, ...]
    findings: tuple[Finding, ...]


def table(prefix: str, settings: TopicSettings) -> tuple[TopicSpec, ...]:
    """Every topic, in the order of `Topic`."""
    return tuple(
        TopicSpec(
            topic,
            prefix + topic,
            _partitions(topic, settings),
            settings.replication_factor,
            _config(topic, settings),
        )
        for topic in Topic
    )


def create(admin: TopicAdmin, specs: Sequence[TopicSpec], *, dry_run: bool = False) -> Creation:
    """Create the topics that are missing; never change one that exists."""
    existing = admin.describe(spec.name for spec in specs)
    missing = [spec for spec in specs if spec.name not in existing]
    names = [spec.name for spec in missing] if dry_run else admin.create(missing)
    planned = {s.name: TopicFacts(s.name, s.partitions, s.replication_factor, s.config) for s in missing}
    return Creation(tuple(names), tuple(compare(specs, planned | existing)))


def compare(specs: Sequence[TopicSpec], facts: Mapping[str, TopicFacts]) -> list[Finding]:
    """What differs between the topics as they are to be and as they are; nothing for those that agree."""
    findings: list[Finding] = []
    for spec in specs:
        if spec.name in facts:
            findings += _differences(spec, facts[spec.name])
        else:
            findings.append(fail(CHECK, f"{spec.name} does not exist", "run `whisperx-consumer topics create`"))
    return findings + _unequal_state(specs, facts)


def check(admin: TopicAdmin, specs: Sequence[TopicSpec]) -> list[Finding]:
    """As `compare`, and one good word when nothing is wrong."""
    findings = compare(specs, admin.describe(spec.name for spec in specs))
    return findings or [ok(CHECK, f"all {len(specs)} topics exist as they should")]


def _partitions(topic: Topic, settings: TopicSettings) -> int:
    if topic in STATE:
        return settings.state_partitions
    return settings.work_partitions if topic in WORK else settings.public_partitions


def _config(topic: Topic, settings: TopicSettings) -> dict[str, str]:
    in_sync = min(settings.min_insync_replicas, settings.replication_factor)
    biggest = MAX_DEAD_LETTER_BYTES if topic is Topic.DEAD_LETTERS else MAX_RECORD_BATCH_BYTES
    common = {
        "min.insync.replicas": str(in_sync),
        "max.message.bytes": str(biggest),
        "unclean.leader.election.enable": "false",
    }
    if topic is Topic.JOB_STATE:
        # A short segment, so that restoring reads little more than the live states.
        return common | {"cleanup.policy": "compact", "segment.ms": str(HOUR_MS), "min.cleanable.dirty.ratio": "0.1"}
    return common | {"cleanup.policy": "delete", "retention.ms": str(_retention_hours(topic, settings) * HOUR_MS)}


def _retention_hours(topic: Topic, settings: TopicSettings) -> int:
    if topic in REQUESTS:
        return settings.jobs_retention_hours
    if topic is Topic.AUDIT:
        return settings.audit_retention_hours
    return settings.work_retention_hours if topic in WORK else settings.results_retention_hours


def _differences(spec: TopicSpec, facts: TopicFacts) -> list[Finding]:
    return [*_copies(spec, facts), *_cleanup(spec, facts), *_retention(spec, facts), *_sizes(spec, facts)]


def _copies(spec: TopicSpec, facts: TopicFacts) -> Iterable[Finding]:
    if facts.partitions != spec.partitions:
        what = f"{spec.name} has {facts.partitions} partitions, the settings say {spec.partitions}"
        todo = "correct the setting; never change the partitions of a topic with keys"
        yield warn(CHECK, what, todo)
    if facts.replication_factor < spec.replication_factor:
        what = f"{spec.name} has {facts.replication_factor} copies, the settings say {spec.replication_factor}"
        yield warn(CHECK, what, "reassign its partitions, or correct WHISPERX_TOPICS__REPLICATION_FACTOR")
    in_sync = int(facts.config.get("min.insync.replicas", "1"))
    if in_sync > facts.replication_factor:
        what = f"{spec.name} asks {in_sync} copies to confirm and has {facts.replication_factor}: nobody can write"
        yield fail(CHECK, what, "lower min.insync.replicas of the topic")
    elif in_sync < int(spec.config["min.insync.replicas"]):
        what = f"{spec.name} is confirmed by {in_sync} copies, the settings say {spec.config['min.insync.replicas']}"
        yield warn(CHECK, what, "raise min.insync.replicas of the topic: an event can be lost with a broker")
    if facts.config.get("unclean.leader.election.enable") == "true":
        what = f"{spec.name} allows unclean leader election"
        yield warn(CHECK, what, "set unclean.leader.election.enable=false: confirmed events can be lost")


def _cleanup(spec: TopicSpec, facts: TopicFacts) -> Iterable[Finding]:
    policy = facts.config.get("cleanup.policy", "delete")
    if policy != (wanted := spec.config["cleanup.policy"]):
        why = "states would expire" if wanted == "compact" else "events with one key would replace each other"
        yield fail(CHECK, f"{spec.name} has cleanup.policy={policy}: {why}", f"set it to {wanted}")


def _retention(spec: TopicSpec, facts: TopicFacts) -> Iterable[Finding]:
    wanted_ms, is_ms = int(spec.config.get("retention.ms", "0")), int(facts.config.get("retention.ms", "-1"))
    if "retention.ms" in spec.config and 0 <= is_ms < wanted_ms:
        what = f"{spec.name} keeps events {is_ms / HOUR_MS:g} h, the settings say {wanted_ms / HOUR_MS:g} h"
        if spec.topic in WORK:
            yield fail(CHECK, what, "raise retention.ms, or work is deleted before its job is given up")
        else:
            yield warn(CHECK, what, "raise retention.ms, or correct the setting")
    size = facts.config.get("retention.bytes", "-1")
    if spec.topic is not Topic.JOB_STATE and size != "-1":
        what = f"{spec.name} deletes by size too (retention.bytes={size})"
        yield warn(CHECK, what, "set retention.bytes=-1: a burst would push unread events out")


def _sizes(spec: TopicSpec, facts: TopicFacts) -> Iterable[Finding]:
    wanted = int(spec.config["max.message.bytes"])
    size = int(facts.config.get("max.message.bytes", wanted))
    if size < wanted:
        yield fail(CHECK, f"{spec.name} takes {size} bytes at once, we send up to {wanted}", "raise max.message.bytes")


def _unequal_state(specs: Sequence[TopicSpec], facts: Mapping[str, TopicFacts]) -> list[Finding]:
    counts = {spec.name: facts[spec.name].partitions for spec in specs if spec.topic in STATE and spec.name in facts}
    if len(set(counts.values())) < 2:
        return []
    what = " and ".join(f"{name} has {count} partitions" for name, count in counts.items())
    return [fail(CHECK, what, "make both again with equal counts: a job's events and state must have one number")]
