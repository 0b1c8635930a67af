from __future__ import annotations

import ast
import inspect
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from consumer import buckets, cli, doctor, findings, topics
from consumer.adapters import store_clock
from consumer.doctor import Check
from consumer.errors import BrokerUnavailable, MissingModel, NotAuthorized, RefusedLogin, StoreUnavailable
from consumer.findings import Finding, Level, ok
from consumer.settings import Settings
from consumer.speech import device, models
from tests.unit.ops.test_topics import FakeAdmin

GOOD: dict[str, Any] = {"store": {"access_key": "key", "secret_key": "secret"}}


def settings(**groups: Any) -> Settings:
    """Settings that fit together, but for `groups`. The environment is not asked: given groups win over it."""
    merged = {name: {**GOOD.get(name, {}), **groups.get(name, {})} for name in {*GOOD, *groups}}
    return Settings.model_validate(merged)


def levels(found: Iterable[Finding]) -> list[Level]:
    return [finding.level for finding in found]


def test_good_settings_get_one_good_word() -> None:
    assert levels(doctor.settings_findings(settings())) == [Level.OK]


@pytest.mark.parametrize(
    ("groups", "level", "word"),
    [
        ({"kafka": {"session_timeout_s": 200}}, Level.FAIL, "SESSION_TIMEOUT_S"),
        ({"kafka": {"commit_timeout_s": 20}}, Level.FAIL, "COMMIT_TIMEOUT_S"),
        ({"kafka": {"transaction_timeout_s": 150}}, Level.WARN, "TRANSACTION_TIMEOUT_S"),
        ({"kafka": {"transactions": False}}, Level.WARN, "twice"),
        ({"worker": {"grace_s": 600}}, Level.WARN, "GRACE_S"),
        ({"worker": {"handoff_s": 300}}, Level.WARN, "HANDOFF_S"),
        ({"topics": {"min_insync_replicas": 4}}, Level.FAIL, "MIN_INSYNC_REPLICAS"),
        ({"topics": {"min_insync_replicas": 1}}, Level.WARN, "lost with its broker"),
        ({"topics": {"min_insync_replicas": 3}}, Level.WARN, "stops all writes"),
        ({"topics": {"work_retention_hours": 24}}, Level.WARN, "WORK_RETENTION_HOURS"),
        ({"topics": {"results_retention_hours": 24}}, Level.WARN, "RESULTS_RETENTION_HOURS"),
        ({"chunks": {"max_bytes": 2_000_000}}, Level.WARN, "MAX_BYTES"),
        ({"chunks": {"overlap_s": 200}}, Level.WARN, "OVERLAP_S"),
        ({"store": {"results_bucket": "transcription-work"}}, Level.WARN, "both"),
        ({"limits": {"allowed_buckets": ["transcription-work"]}}, Level.FAIL, "ALLOWED_BUCKETS"),
        ({"limits": {"allowed_buckets": ["calls", "transcription-results/x/"]}}, Level.FAIL, "transcription-results"),
        ({"store": {"secret_key": ""}}, Level.FAIL, "credentials"),
        ({"store": {"endpoint": "minio:9000", "secure": False}}, Level.WARN, "TLS"),
        ({"kafka": {"bootstrap_servers": "localhost:1,b:2"}}, Level.WARN, "TLS"),
    ],
)
def test_settings_that_do_not_fit_are_named(groups: dict[str, Any], level: Level, word: str) -> None:
    (finding,) = doctor.settings_findings(settings(**groups))
    assert finding.level == level
    assert word in finding.what
    assert finding.todo


PATHS = re.compile(
    "|".join(
        rf"\b{group}\.{name}\b"
        for group in Settings.model_fields
        for name in type(getattr(settings(), group)).model_fields
    )
)


@pytest.mark.parametrize("module", [doctor, buckets, topics, models, device, store_clock])
def test_what_doctor_says_names_settings_as_they_are_set(module: ModuleType) -> None:
    """By their variables, which can be copied; no sentence has a setting's path in the code."""
    tree = ast.parse(inspect.getsource(module))
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    spoken = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docstrings]
    assert [text for text in spoken if isinstance(text, str) and PATHS.search(text)] == []


@dataclass
class Brokers(FakeAdmin):
    ids: list[int] = field(default_factory=lambda: [1, 2, 3])
    config: dict[str, str] = field(default_factory=dict)
    open_ones: list[dict[tuple[str, int], int]] = field(default_factory=list)
    """The answers to come; the last one stays."""

    def undecided(self, names: Iterable[str]) -> dict[tuple[str, int], int]:
        return self.open_ones.pop(0) if len(self.open_ones) > 1 else dict(*self.open_ones)

    def broker_ids(self) -> list[int]:
        return self.ids

    def broker_config(self) -> dict[str, str]:
        return self.config


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        (Brokers(), [Level.OK]),
        (Brokers(ids=[1]), [Level.OK, Level.FAIL]),
        (Brokers(config={"offsets.retention.minutes": "1440"}), [Level.OK, Level.WARN]),
        (Brokers(config={"transaction.max.timeout.ms": "1000"}), [Level.OK, Level.FAIL]),
    ],
)
def test_brokers_must_be_enough_and_remember_long_enough(brokers: Brokers, expected: list[Level]) -> None:
    assert levels(doctor.broker_findings(brokers, settings())) == expected


@pytest.mark.parametrize(
    ("answers", "expected", "asked_again"),
    [
        ([{}], {"none": Level.OK}, 0),
        ([{("results", 0): 5, ("results", 1): 7}, {("results", 0): 5}, {("results", 0): 9}], {"none": Level.OK}, 2),
        ([{("results", 0): 5}], {"results[0] cannot be read from offset 5 on": Level.FAIL}, 35),
        ([{("results", 0): 5, ("results", 1): 7}, {("results", 1): 8, ("results", 0): 5}], {"[0]": Level.FAIL}, 35),
        ([{("jobs", 2): 5}], {"jobs[2]": Level.WARN}, 35),
        ([{("__consumer_offsets", 49): 1}], {"__consumer_offsets[49]": Level.WARN}, 35),
    ],
    ids=["none", "ends", "never ends", "one of two never ends", "perhaps a sender's", "positions"],
)
def test_a_transaction_that_outlives_its_time_is_found(
    answers: list[dict[tuple[str, int], int]], expected: dict[str, Level], asked_again: int
) -> None:
    pauses: list[float] = []
    specs = topics.table("", settings().topics)
    found = doctor.transaction_findings(Brokers(open_ones=answers), specs, settings(), pauses.append)
    assert len(pauses) == asked_again
    assert levels(found) == list(expected.values())
    assert all(words in finding.what for words, finding in zip(expected, found, strict=True))


@pytest.mark.parametrize(("skew_s", "level"), [(0, Level.OK), (-59, Level.OK), (61, Level.FAIL), (-61, Level.FAIL)])
def test_clocks_may_differ_a_little(skew_s: float, level: Level) -> None:
    assert doctor.clock_finding(skew_s).level is level


def test_a_check_that_fails_says_so_and_the_others_go_on() -> None:
    def away() -> Iterable[Finding]:
        yield findings.ok("brokers", "answered once")
        raise BrokerUnavailable("brokers b:1 do not answer")

    found = doctor.run([Check("brokers", away), Check("clock", lambda: [doctor.clock_finding(0)])])
    assert levels(found) == [Level.OK, Level.FAIL, Level.OK]
    assert "BROKER_UNAVAILABLE" in found[1].todo


@pytest.mark.parametrize(
    ("error", "then"),
    [
        (RefusedLogin("brokers b:1 and we do not come together"), Level.WARN),
        (NotAuthorized("Kafka does not allow us Read on topic t"), Level.OK),
    ],
)
def test_brokers_that_refuse_us_are_not_said_to_be_away(error: BrokerUnavailable, then: Level) -> None:
    """After a refused login nothing more is asked; after one question too many the others are."""

    def refused() -> Iterable[Finding]:
        raise error

    found = doctor.run([Check("brokers", refused, "kafka"), Check("topics", lambda: [ok("topics", "there")], "kafka")])
    assert levels(found) == [Level.FAIL, then]
    assert found[0].todo == f"see {error.code} in docs/errors.md"


def test_what_our_parts_log_stays_off_the_screen_of_doctor(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a handler of ours, Python would show a warning on stderr, before the report that says the same."""
    for name in ("", "consumer"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])

    def ask(*_: object, **__: object) -> list[Check]:
        logging.getLogger("consumer.speech.device").warning("Computing on the CPU")
        return []

    monkeypatch.setattr(doctor, "installation_checks", ask)
    monkeypatch.setattr(doctor, "run", lambda _: [findings.ok("device", "cpu")])
    assert cli.main(["doctor"]) == 0
    assert tuple(capfd.readouterr()) == ("OK    device: cpu\n", "")


def test_a_bug_in_a_check_is_not_taken_for_a_finding() -> None:
    with pytest.raises(ZeroDivisionError):
        doctor.run([Check("odd", lambda: [findings.ok("odd", str(1 // 0))])])


def test_a_report_shows_what_to_do_below_each_finding() -> None:
    found = [findings.ok("clock", "agrees"), findings.fail("topics", "t.jobs does not exist", "create it")]
    assert findings.report(found) == "OK    clock: agrees\nFAIL  topics: t.jobs does not exist\n      → create it"
    assert findings.failed(found)
    assert not findings.failed(found[:1])
    assert json.dumps(found[1].as_dict()) == (
        '{"level": "fail", "check": "topics", "what": "t.jobs does not exist", "todo": "create it"}'
    )


def test_what_bootstrap_asks_besides_becomes_a_check_of_that_name() -> None:
    def missing() -> str:
        raise MissingModel("model large-v3 is not installed; install it")

    checks = [doctor.probe_check("device", lambda: "cuda works"), doctor.probe_check("models", missing)]
    found = doctor.run(checks)
    assert [(finding.check, finding.level) for finding in found] == [("device", Level.OK), ("models", Level.FAIL)]


def test_nothing_more_is_asked_of_a_server_that_is_away() -> None:
    asked: list[str] = []

    def away() -> list[Finding]:
        asked.append("away")
        raise StoreUnavailable("no answer")

    checks = [
        doctor.Check("store", away, "store"),
        doctor.Check("clock", away, "store"),
        doctor.Check("device", lambda: [ok("device", "works")]),
    ]
    found = doctor.run(checks)
    assert asked == ["away"]
    assert [finding.level for finding in found] == [Level.FAIL, Level.WARN, Level.OK]
    assert "WHISPERX_STORE__ENDPOINT" in found[0].todo
