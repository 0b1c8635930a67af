"""`buckets create` and what doctor says of lifecycle rules, on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from minio.commonconfig import ENABLED, AndOperator, Filter, Tags
from minio.lifecycleconfig import Expiration, LifecycleConfig, NoncurrentVersionExpiration, Rule
from minio.versioningconfig import VersioningConfig

from consumer import buckets
from consumer.adapters.object_store import S3Store
from consumer.adapters.s3_buckets import S3Buckets
from consumer.buckets import Expiry
from consumer.cli import main
from consumer.findings import Finding, Level
from consumer.settings import Settings
from tests.servers.minio import Minio

pytestmark = pytest.mark.servers


@pytest.fixture
def work(bucket_prefix: str) -> str:
    return f"{bucket_prefix}work"


@pytest.fixture
def results(bucket_prefix: str) -> str:
    return f"{bucket_prefix}results"


@pytest.fixture
def settings(minio: Minio, work: str, results: str) -> Settings:
    return settings_with(minio, work, results)


def settings_with(minio: Minio, work: str, results: str, **given: Any) -> Settings:
    store = {
        "endpoint": minio.endpoint,
        "access_key": minio.access_key,
        "secret_key": minio.secret_key,
        "secure": minio.secure,
        "work_bucket": work,
        "results_bucket": results,
        **given,
    }
    return Settings.model_validate({"store": store})


@pytest.fixture
def admin(settings: Settings) -> Iterator[S3Buckets]:
    store = S3Store.of(settings.store)
    yield S3Buckets(store)
    store.close()


def create(admin: S3Buckets, settings: Settings) -> list[str]:
    return buckets.create(admin, buckets.table(settings.store))


def test_the_store_itself_says_when_our_objects_expire(
    admin: S3Buckets, settings: Settings, minio: Minio, work: str
) -> None:
    create(admin, settings)
    store = S3Store.of(settings.store)
    store.put(work, "work/job/1/k", b"x")
    store.put(work, "elsewhere", b"x")
    store.close()
    told = {key: minio.client().stat_object(work, key).metadata for key in ("work/job/1/k", "elsewhere")}
    assert 'rule-id="whisperx-work"' in dict(told["work/job/1/k"] or {})["x-amz-expiration"]
    assert "x-amz-expiration" not in dict(told["elsewhere"] or {})


def test_results_stay_and_leftovers_of_work_go(
    admin: S3Buckets, settings: Settings, minio: Minio, work: str, results: str
) -> None:
    assert create(admin, settings) == [
        f"bucket {work}",
        f"rule whisperx-work of {work}: work/ expires after 14 days, old versions go after 1 day",
        f"bucket {results}",
        f"rule whisperx-results of {results}: results/ stays, old versions go after 1 day",
    ]
    assert admin.expiries(work) == [Expiry("whisperx-work", "work/", 14, old_days=1)]
    assert admin.expiries(results) == []
    for bucket in (work, results):
        config = minio.client().get_bucket_lifecycle(bucket)
        assert config is not None
        assert [rule.noncurrent_version_expiration for rule in config.rules] == [NoncurrentVersionExpiration(1)]


def test_what_was_removed_from_a_bucket_that_keeps_versions_goes_in_the_end(
    admin: S3Buckets, settings: Settings, minio: Minio, work: str, results: str
) -> None:
    """The store takes the rules, also where versions are on; the mark that a deletion leaves goes as well. What is
    current stays: of results no version expires by its age."""
    for bucket in (work, results):
        admin.make(bucket)
        minio.client().set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    warned = list(version_findings(admin, settings))
    assert [(one.level, one.todo.startswith(buckets.TODO)) for one in warned] == 2 * [(Level.WARN, True)]
    create(admin, settings)
    assert create(admin, settings) == []
    assert list(version_findings(admin, settings)) == []
    assert admin.rules(results) == [Expiry("whisperx-results", "results/", 0, old_days=1)]
    config = minio.client().get_bucket_lifecycle(results)
    assert config is not None
    (rule,) = config.rules
    assert rule.expiration is not None
    assert (rule.expiration.days, rule.expiration.expired_object_delete_marker) == (None, True)


def version_findings(admin: S3Buckets, settings: Settings) -> Iterator[Finding]:
    with closing(S3Store.of(settings.store)) as store:
        yield from buckets.version_findings(admin, store, settings.store, "doctor/probe")


def test_old_versions_of_which_some_are_kept_are_not_gone(
    admin: S3Buckets, settings: Settings, minio: Minio, results: str
) -> None:
    admin.make(results)
    minio.client().set_bucket_versioning(results, VersioningConfig(ENABLED))
    kept = NoncurrentVersionExpiration(1, newer_noncurrent_versions=3)
    rule = Rule(ENABLED, rule_filter=Filter(prefix=""), rule_id="theirs", noncurrent_version_expiration=kept)
    minio.client().set_bucket_lifecycle(results, LifecycleConfig([rule]))
    assert [found.level for found in version_findings(admin, settings)] == [Level.WARN]


def test_creating_again_changes_nothing(admin: S3Buckets, settings: Settings) -> None:
    create(admin, settings)
    assert create(admin, settings) == []


def test_a_dry_run_says_the_same_and_does_nothing(
    admin: S3Buckets, settings: Settings, work: str, results: str
) -> None:
    table = buckets.table(settings.store)
    said = buckets.create(admin, table, dry_run=True)
    assert not admin.exists(work)
    assert not admin.exists(results)
    assert said == buckets.create(admin, table)


def test_a_bucket_for_recordings_is_made_without_a_rule_of_ours(
    admin: S3Buckets, settings: Settings, bucket_prefix: str
) -> None:
    recordings, table = f"{bucket_prefix}recordings", buckets.table(settings.store)
    said = buckets.create(admin, table, recordings=[recordings], dry_run=True)
    assert not admin.exists(recordings)
    assert said == buckets.create(admin, table, recordings=[recordings])
    assert said[0] == f"bucket {recordings}, without a rule"
    assert (admin.exists(recordings), admin.rules(recordings)) == (True, [])
    assert buckets.create(admin, table, recordings=[recordings]) == []


def test_rules_of_others_are_kept(admin: S3Buckets, settings: Settings, minio: Minio, work: str, results: str) -> None:
    tags = Tags()
    tags["keep"] = "no"
    others = [
        Rule(ENABLED, rule_filter=Filter(AndOperator("work/", tags)), rule_id="tagged", expiration=Expiration(days=30)),
        Rule(
            ENABLED,
            rule_filter=Filter(prefix="x/"),
            rule_id="versions",
            noncurrent_version_expiration=NoncurrentVersionExpiration(5),
        ),
    ]
    client = minio.client()
    for bucket in (work, results):
        client.make_bucket(bucket)
        client.set_bucket_lifecycle(bucket, LifecycleConfig(others))
    create(admin, settings)
    create(admin, settings_with(minio, work, results, work_expiry_days=20, results_expiry_days=90))
    for bucket, ours in ((work, "whisperx-work"), (results, "whisperx-results")):
        config = client.get_bucket_lifecycle(bucket)
        assert config is not None
        assert sorted(str(rule.rule_id) for rule in config.rules) == sorted(["tagged", "versions", ours])
        found = {str(rule.rule_id): rule for rule in config.rules}
        assert found["versions"].noncurrent_version_expiration == NoncurrentVersionExpiration(5)
    assert admin.expiries(work) == [
        Expiry("tagged", "work/", 30, conditional=True),
        Expiry("whisperx-work", "work/", 20, old_days=1),
    ]
    assert create(admin, settings_with(minio, work, results, work_expiry_days=20)) == [
        f"rule whisperx-results of {results}: results/ stays, old versions go after 1 day"
    ]
    assert [rule.rule for rule in admin.expiries(results)] == ["tagged"]


def test_a_rule_of_others_reaches_no_further_than_before(
    admin: S3Buckets, settings: Settings, minio: Minio, work: str
) -> None:
    """minio's own client would write it back without the size, and everything would expire after a day."""
    rule = (
        "<Rule><ID>large</ID><Status>Enabled</Status><Filter><And><Prefix></Prefix>"
        "<ObjectSizeGreaterThan>1000000000</ObjectSizeGreaterThan></And></Filter>"
        "<Expiration><Days>1</Days></Expiration></Rule>"
    )
    admin.make(work)
    admin._ask("PUT", work, f"<LifecycleConfiguration>{rule}</LifecycleConfiguration>".encode())
    before = admin._ask("GET", work)
    assert b"ObjectSizeGreaterThan" in before
    create(admin, settings)
    after = admin._ask("GET", work).decode()
    assert "<ObjectSizeGreaterThan>1000000000</ObjectSizeGreaterThan>" in after
    assert admin.expiries(work) == [
        Expiry("large", "", 1, conditional=True),
        Expiry("whisperx-work", "work/", 14, old_days=1),
    ]
    admin.set_rule(work, "whisperx-work", None)
    assert admin._ask("GET", work) == before


def test_the_last_rule_can_go_too(admin: S3Buckets, settings: Settings, work: str) -> None:
    create(admin, settings)
    admin.set_rule(work, "whisperx-work", None)
    assert admin.expiries(work) == []


def test_one_bucket_for_both_gets_both_rules(minio: Minio, work: str) -> None:
    settings = settings_with(minio, work, work, results_expiry_days=90)
    admin = S3Buckets(S3Store.of(settings.store))
    create(admin, settings)
    assert admin.expiries(work) == [
        Expiry("whisperx-work", "work/", 14, old_days=1),
        Expiry("whisperx-results", "results/", 90, old_days=1),
    ]
    assert create(admin, settings) == []


def test_doctor_misses_a_rule_and_finds_one_that_is_too_short(admin: S3Buckets, settings: Settings, work: str) -> None:
    assert list(buckets.rule_findings(admin, settings)) == []  # no buckets: that is found elsewhere
    admin.make(work)
    (missing,) = buckets.rule_findings(admin, settings)
    assert (missing.level, missing.todo) == (Level.WARN, buckets.TODO)
    create(admin, settings)
    assert list(buckets.rule_findings(admin, settings)) == []
    admin.set_rule(work, "theirs", Expiry("theirs", "", 3))
    (short,) = buckets.rule_findings(admin, settings)
    assert short.level is Level.FAIL
    assert "rule theirs" in short.what


def test_the_command_makes_them_and_is_content_the_second_time(
    settings: Settings, work: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings.store.model_dump().items():
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        monkeypatch.setenv(f"WHISPERX_STORE__{name.upper()}", text)
    assert main(["buckets", "create", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert f"bucket {work}" in planned
    assert main(["buckets", "create"]) == 0
    assert capsys.readouterr().out == planned
    assert main(["buckets", "create"]) == 0
    out, err = capsys.readouterr()
    assert (out, "as they should be" in err) == ("", True)
