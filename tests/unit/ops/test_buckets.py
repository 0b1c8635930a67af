from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from consumer import buckets, doctor
from consumer.adapters.memory_store import MemoryStore
from consumer.buckets import Expiry
from consumer.errors import AccessDenied, RefusedEncryption
from consumer.findings import Level
from consumer.ports import PutOutcome
from consumer.settings import Settings

WORK, RESULTS = "transcription-work", "transcription-results"
GOOD = Expiry("any-name", "", 14)


@dataclass
class FakeAdmin:
    """Buckets with the rules that a test gives them."""

    given: dict[str, list[Expiry]] = field(default_factory=dict)
    closed: bool = False
    found: str = "none"

    def exists(self, bucket: str) -> bool:
        return bucket in self.given

    def make(self, bucket: str) -> None:
        self.given[bucket] = []

    def rules(self, bucket: str) -> list[Expiry]:
        if self.closed:
            raise AccessDenied("the store refuses")
        return self.given[bucket]

    def expiries(self, bucket: str) -> list[Expiry]:
        return [rule for rule in self.rules(bucket) if rule.days]

    def set_rule(self, bucket: str, rule: str, expiry: Expiry | None) -> None:
        self.given[bucket] = [*(one for one in self.given[bucket] if one.rule != rule), *([expiry] if expiry else [])]

    def encryption(self, bucket: str, key: str) -> str:
        return self.found


def settings(**groups: Any) -> Settings:
    return Settings.model_validate(groups)


@pytest.mark.parametrize(
    ("work", "results", "levels"),
    [
        ([GOOD], [], []),
        ([Expiry("a", "work/", 7)], [], []),
        ([], [], [Level.WARN]),
        ([Expiry("a", "", 14, enabled=False)], [], [Level.WARN]),
        ([Expiry("a", "", 14, conditional=True)], [], [Level.WARN]),
        ([Expiry("a", "work/job-1/", 14)], [], [Level.WARN]),
        ([Expiry("a", "other/", 1)], [], [Level.WARN]),
        ([GOOD, Expiry("a", "", 6)], [], [Level.FAIL]),
        ([GOOD, Expiry("a", "work/job-1/", 1)], [], [Level.FAIL]),
        ([GOOD, Expiry("a", "work/", 1, conditional=True)], [], [Level.FAIL]),
        ([GOOD, Expiry("a", "", 1, enabled=False)], [], []),
        ([GOOD], [Expiry("a", "", 29)], [Level.WARN]),
        ([GOOD], [Expiry("a", "results/", 30)], []),
    ],
)
def test_rules_must_cover_work_and_outlast_the_events(
    work: list[Expiry], results: list[Expiry], levels: list[Level]
) -> None:
    """Work events stay 7 days, result events 30."""
    found = list(buckets.rule_findings(FakeAdmin({WORK: work, RESULTS: results}), settings()))
    assert [finding.level for finding in found] == levels
    assert all(finding.todo for finding in found)


OLD = Expiry("any-name", "", 0, old_days=1)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([OLD], []),
        ([Expiry("a", "results/", 90, old_days=5)], []),
        ([], [Level.WARN]),
        ([Expiry("a", "", 30)], [Level.WARN]),
        ([Expiry("a", "results/job-1/", 0, old_days=1)], [Level.WARN]),
        ([Expiry("a", "", 0, old_days=1, enabled=False)], [Level.WARN]),
        ([Expiry("a", "", 0, old_days=1, conditional=True)], [Level.WARN]),
    ],
)
def test_versions_that_are_kept_for_ever_are_a_warning(
    versioned: bool, results: list[Expiry], said: list[Level]
) -> None:
    store = MemoryStore(WORK, RESULTS, versioned=versioned)
    admin = FakeAdmin({WORK: [OLD], RESULTS: results})
    found = list(buckets.version_findings(admin, store, settings().store, "doctor/probe"))
    assert [finding.level for finding in found] == (said if versioned else [])
    assert not [key for bucket in (WORK, RESULTS) for key in store.list_keys(bucket, "")]


def test_nothing_is_said_of_versions_whose_rules_may_not_be_read() -> None:
    store = MemoryStore(WORK, RESULTS, versioned=True)
    admin = FakeAdmin({WORK: [], RESULTS: []}, closed=True)
    assert list(buckets.version_findings(admin, store, settings().store, "doctor/probe")) == []


def test_rules_that_may_not_be_read_are_a_warning() -> None:
    found = list(buckets.rule_findings(FakeAdmin({WORK: [], RESULTS: []}, closed=True), settings()))
    assert [finding.level for finding in found] == [Level.WARN, Level.WARN]
    assert "policy service" in found[0].todo


@pytest.mark.parametrize(
    ("groups", "level", "word"),
    [
        ({}, None, ""),
        ({"store": {"work_expiry_days": 6}}, Level.FAIL, "WORK_EXPIRY_DAYS"),
        ({"topics": {"work_retention_hours": 400}}, Level.FAIL, "WORK_RETENTION_HOURS"),
        ({"store": {"results_expiry_days": 29}}, Level.WARN, "RESULTS_EXPIRY_DAYS"),
        ({"store": {"results_expiry_days": 30}}, None, ""),
    ],
)
def test_days_and_retention_must_fit(groups: dict[str, Any], level: Level | None, word: str) -> None:
    found = list(buckets.settings_findings(settings(**groups)))
    assert [finding.level for finding in found] == ([level] if level else [])
    assert all(word in finding.what for finding in found)


@pytest.mark.parametrize(("found", "level"), [("sse-s3", Level.OK), ("none", Level.FAIL), ("sse-kms", Level.FAIL)])
def test_a_store_that_ignores_the_wish_for_encryption_is_found(found: str, level: Level) -> None:
    store = MemoryStore(WORK, RESULTS)
    admin = FakeAdmin({WORK: [], RESULTS: []}, found=found)
    asked = settings(store={"encryption": "sse-s3"})
    findings = list(buckets.encryption_findings(admin, store, asked.store, "doctor/probe"))
    assert [finding.level for finding in findings] == [level, level]
    assert not [key for bucket in (WORK, RESULTS) for key in store.list_keys(bucket, "")]


def test_a_store_that_cannot_encrypt_is_not_taken_for_one_that_is_away() -> None:
    class Refusing(MemoryStore):
        def put_new(self, bucket: str, key: str, data: bytes, content_type: str = "") -> PutOutcome:
            raise RefusedEncryption("no KMS")

    checks = doctor.store_checks(Refusing(WORK, RESULTS), settings(), "probe", FakeAdmin({WORK: [GOOD], RESULTS: []}))
    found = doctor.run(checks)
    assert [finding.level for finding in found] == [Level.FAIL, Level.FAIL]
    assert "ENCRYPTION_REFUSED" in found[0].todo


def test_the_senders_buckets_need_not_be_listed() -> None:
    class Closed(MemoryStore):
        def bucket_exists(self, bucket: str) -> bool:
            if bucket in (WORK, RESULTS):
                return super().bucket_exists(bucket)
            raise AccessDenied("may not list")

    asked = settings(limits={"allowed_buckets": ["calls", "gone"]})
    found = doctor.run(doctor.store_checks(Closed(WORK, RESULTS, "calls"), asked, "probe"))
    assert [finding.level for finding in found] == [Level.OK, Level.OK, Level.WARN]
    assert "gone" in found[2].what
