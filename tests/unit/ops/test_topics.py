from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from consumer import topics
from consumer.core.layout import Topic
from consumer.findings import Level
from consumer.settings import TopicSettings
from consumer.topics import TopicFacts, TopicSpec, table

SETTINGS = TopicSettings(state_partitions=4, work_partitions=16, public_partitions=2)
SPECS = {spec.topic: spec for spec in table("t.", SETTINGS)}


@dataclass
class FakeAdmin:
    """Brokers that keep what they are told."""

    facts: dict[str, TopicFacts] = field(default_factory=dict)

    def describe(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        return {name: self.facts[name] for name in names if name in self.facts}

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        self.facts |= {spec.name: as_is(spec) for spec in specs}
        return [spec.name for spec in specs]


def as_is(spec: TopicSpec) -> TopicFacts:
    return TopicFacts(spec.name, spec.partitions, spec.replication_factor, dict(spec.config))


def with_config(topic: Topic, **config: str) -> TopicFacts:
    facts = as_is(SPECS[topic])
    return replace(facts, config={**facts.config, **{name.replace("_", "."): value for name, value in config.items()}})


def levels(topic: Topic, facts: TopicFacts) -> list[Level]:
    return [finding.level for finding in topics.compare([SPECS[topic]], {facts.name: facts})]


def test_every_topic_is_in_the_table_once() -> None:
    assert list(SPECS) == list(Topic)


def test_events_and_state_have_equal_partition_counts() -> None:
    assert SPECS[Topic.JOB_EVENTS].partitions == SPECS[Topic.JOB_STATE].partitions == 4
    assert SPECS[Topic.CHUNK_WORK_LOW].partitions == 16
    assert SPECS[Topic.RESULTS].partitions == 2


def test_only_the_state_is_compacted() -> None:
    compacted = [topic for topic, spec in SPECS.items() if spec.config["cleanup.policy"] == "compact"]
    assert compacted == [Topic.JOB_STATE]
    assert "retention.ms" not in SPECS[Topic.JOB_STATE].config
    assert SPECS[Topic.AUDIT].config["retention.ms"] == str(8760 * 3_600_000)
    assert SPECS[Topic.AUDIT].config["cleanup.policy"] == "delete"


def test_a_single_broker_is_not_asked_for_more_copies_than_it_has() -> None:
    specs = table("t.", TopicSettings(replication_factor=1, min_insync_replicas=2))
    assert {spec.config["min.insync.replicas"] for spec in specs} == {"1"}


def test_a_dead_letter_may_be_larger_than_the_event_it_holds() -> None:
    sizes = {topic: int(spec.config["max.message.bytes"]) for topic, spec in SPECS.items()}
    assert sizes[Topic.DEAD_LETTERS] > max(size for topic, size in sizes.items() if topic is not Topic.DEAD_LETTERS)


def test_creating_twice_changes_nothing_the_second_time() -> None:
    admin = FakeAdmin()
    first = topics.create(admin, list(SPECS.values()))
    second = topics.create(admin, list(SPECS.values()))
    assert (len(first.created), first.findings) == (len(Topic), ())
    assert (second.created, second.findings) == ((), ())


def test_a_dry_run_says_what_it_would_create_and_creates_nothing() -> None:
    admin = FakeAdmin({"t.jobs": as_is(SPECS[Topic.JOBS])})
    outcome = topics.create(admin, list(SPECS.values()), dry_run=True)
    assert len(outcome.created) == len(Topic) - 1
    assert list(admin.facts) == ["t.jobs"]


def test_creating_reports_what_is_wrong_with_a_topic_that_was_there() -> None:
    admin = FakeAdmin({"t.job-state": replace(as_is(SPECS[Topic.JOB_STATE]), partitions=3)})
    outcome = topics.create(admin, list(SPECS.values()), dry_run=True)
    assert [finding.level for finding in outcome.findings] == [Level.WARN, Level.FAIL]  # and unequal to job-events


def test_topics_as_they_should_be_get_one_good_word() -> None:
    admin = FakeAdmin()
    topics.create(admin, list(SPECS.values()))
    assert [finding.level for finding in topics.check(admin, list(SPECS.values()))] == [Level.OK]


def test_a_missing_topic_is_a_failure_that_says_how_to_make_it() -> None:
    (finding,) = topics.check(FakeAdmin(), [SPECS[Topic.JOBS]])
    assert (finding.level, "topics create" in finding.todo) == (Level.FAIL, True)


def test_unequal_counts_of_events_and_state_are_a_failure() -> None:
    specs = [SPECS[Topic.JOB_EVENTS], SPECS[Topic.JOB_STATE]]
    facts = {spec.name: as_is(spec) for spec in specs}
    facts["t.job-state"] = replace(facts["t.job-state"], partitions=5)
    findings = topics.compare(specs, facts)
    assert [finding.level for finding in findings] == [Level.WARN, Level.FAIL]
    assert "t.job-events has 4 partitions and t.job-state has 5" in findings[-1].what


@pytest.mark.parametrize(
    ("topic", "config", "level"),
    [
        (Topic.JOB_STATE, {"cleanup_policy": "delete"}, Level.FAIL),
        (Topic.JOB_STATE, {"cleanup_policy": "compact,delete"}, Level.FAIL),
        (Topic.PLAN_WORK, {"cleanup_policy": "compact"}, Level.FAIL),
        (Topic.PLAN_WORK, {"retention_ms": "3600000"}, Level.FAIL),
        (Topic.RESULTS, {"retention_ms": "3600000"}, Level.WARN),
        (Topic.PLAN_WORK, {"retention_bytes": "1000000"}, Level.WARN),
        (Topic.RESULTS, {"max_message_bytes": "100000"}, Level.FAIL),
        (Topic.RESULTS, {"min_insync_replicas": "1"}, Level.WARN),
        (Topic.RESULTS, {"min_insync_replicas": "4"}, Level.FAIL),
        (Topic.RESULTS, {"unclean_leader_election_enable": "true"}, Level.WARN),
        (Topic.RESULTS, {"retention_ms": "-1"}, None),
        (Topic.RESULTS, {"max_message_bytes": "9000000"}, None),
    ],
)
def test_a_difference_is_weighed_by_what_it_costs(topic: Topic, config: dict[str, str], level: Level | None) -> None:
    assert levels(topic, with_config(topic, **config)) == ([level] if level else [])


def test_fewer_copies_than_set_are_a_warning() -> None:
    assert levels(Topic.RESULTS, replace(as_is(SPECS[Topic.RESULTS]), replication_factor=2)) == [Level.WARN]
