"""Our buckets as data: how to make them, the lifecycle rules behind cleanup, and what is wrong with those there are.

Cleanup removes the work of a run right after its result. A lifecycle rule is the second net: for what failed runs
leave, and for cleanups that were given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer.core.layout import RESULTS_PREFIX, WORK_PREFIX
from consumer.errors import AccessDenied, WhisperXError
from consumer.findings import Finding, fail, ok, warn
from consumer.ports import ObjectStore
from consumer.settings import Settings, StoreSettings

CHECK = "store"
WORK_RULE, RESULTS_RULE = "whisperx-work", "whisperx-results"
OLD_DAYS = 1
"""Versions that were overwritten or removed are of use to nobody; nor is what is over to be read by version."""
TODO = "run `whisperx-consumer buckets create`"


@dataclass(frozen=True, slots=True)
class Expiry:
    """A lifecycle rule: objects under `prefix` are removed so many days after they were written (0: they stay), and
    their old versions so many days after they were overwritten or removed, where the bucket keeps any."""

    rule: str
    prefix: str
    days: int
    old_days: int = 0
    enabled: bool = True
    conditional: bool = False
    """Whether it is only for objects of certain tags or sizes."""

    def reaches(self, prefix: str) -> bool:
        """Whether it removes anything under this prefix."""
        return self.enabled and (self.prefix.startswith(prefix) or prefix.startswith(self.prefix))

    def covers(self, prefix: str) -> bool:
        """Whether it is for everything under this prefix."""
        return self.enabled and not self.conditional and prefix.startswith(self.prefix)

    def __str__(self) -> str:
        expires = f"{self.prefix} expires after {_days(self.days)}" if self.days else f"{self.prefix} stays"
        return f"{expires}, old versions go after {_days(self.old_days)}" if self.old_days else expires


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """A bucket as it is to be, with the rule that is ours."""

    name: str
    expiry: Expiry


class BucketAdmin(Protocol):
    """Raises what an `ObjectStore` raises."""

    def exists(self, bucket: str) -> bool: ...
    def make(self, bucket: str) -> None: ...
    def rules(self, bucket: str) -> list[Expiry]:
        """The rules that remove objects or old versions after some days, whoever made them."""
        ...

    def expiries(self, bucket: str) -> list[Expiry]:
        """Those of them after which objects expire some days after they were written."""
        ...

    def set_rule(self, bucket: str, rule: str, expiry: Expiry | None) -> None:
        """Put this rule in the place of the one of its name, or remove that; the other rules stay."""
        ...

    def encryption(self, bucket: str, key: str) -> str:
        """How the object is encrypted, as the setting store.encryption names it."""
        ...


def table(store: StoreSettings) -> tuple[BucketSpec, ...]:
    """The work bucket and the results bucket. They may be one, because each rule has its prefix.

    A transcript goes when the retention of its job is over. That would not be the end of it in a bucket that keeps
    versions, so there is a rule for results also where they stay.
    """
    work = Expiry(WORK_RULE, WORK_PREFIX, store.work_expiry_days, OLD_DAYS)
    results = Expiry(RESULTS_RULE, RESULTS_PREFIX, store.results_expiry_days, OLD_DAYS)
    return BucketSpec(store.work_bucket, work), BucketSpec(store.results_bucket, results)


def create(
    admin: BucketAdmin, specs: Sequence[BucketSpec], *, recordings: Sequence[str] = (), dry_run: bool = False
) -> list[str]:
    """Make the buckets that are missing, and bring our rules up to the settings. Foreign rules are kept, and those for
    `recordings` get none: they are the senders'.

    What was done, or with `dry_run` would be, in words.
    """
    done: list[str] = []
    made: set[str] = set()

    def require(name: str, words: str) -> None:
        if name not in made and not admin.exists(name):
            made.add(name)
            done.append(words)
            if not dry_run:
                admin.make(name)

    for name in recordings:
        require(name, f"bucket {name}, without a rule")
    for spec in specs:
        require(spec.name, f"bucket {spec.name}")
        is_there = not dry_run or spec.name not in made
        if is_there and spec.expiry in admin.rules(spec.name):
            continue
        done.append(f"rule {spec.expiry.rule} of {spec.name}: {spec.expiry}")
        if not dry_run:
            admin.set_rule(spec.name, spec.expiry.rule, spec.expiry)
    return done


def _days(days: int) -> str:
    return f"{days} day{'s' if days > 1 else ''}"


# ── what doctor asks ────────────────────────────────────────────────────────────────────────────────────────────────


def settings_findings(settings: Settings) -> Iterable[Finding]:
    """Whether the days of the rules fit the retention of the events that point to the objects."""
    days, hours = settings.store.work_expiry_days, settings.topics.work_retention_hours
    if days * 24 < hours:
        what = f"WHISPERX_STORE__WORK_EXPIRY_DAYS={days} is shorter than WHISPERX_TOPICS__WORK_RETENTION_HOURS={hours}"
        yield fail("settings", what, "raise it: chunks of a job that waits would expire before it is given up")
    days, hours = settings.store.results_expiry_days, settings.topics.results_retention_hours
    if 0 < days * 24 < hours:
        what = (
            f"WHISPERX_STORE__RESULTS_EXPIRY_DAYS={days} is shorter than "
            f"WHISPERX_TOPICS__RESULTS_RETENTION_HOURS={hours}"
        )
        yield warn("settings", what, "raise it: result events would point to transcripts that are gone")


def rule_findings(admin: BucketAdmin, settings: Settings) -> Iterable[Finding]:
    """What the lifecycle rules of our buckets, also those of others, do to our objects. Missing buckets are skipped."""
    store, topics = settings.store, settings.topics
    wanted = (
        (store.work_bucket, WORK_PREFIX, topics.work_retention_hours, fail),
        (store.results_bucket, RESULTS_PREFIX, topics.results_retention_hours, warn),
    )
    for bucket, prefix, hours, say in wanted:
        if not admin.exists(bucket):
            continue
        try:
            rules = admin.expiries(bucket)
        except AccessDenied:
            todo = "allow s3:GetLifecycleConfiguration: `whisperx-consumer policy service`"
            yield warn(CHECK, f"the lifecycle rules of bucket {bucket} cannot be read with our key", todo)
            continue
        for rule in rules:
            if rule.reaches(prefix) and rule.days * 24 < hours:
                what = f"rule {rule.rule} of bucket {bucket} removes {prefix} after {rule.days * 24} h"
                yield say(CHECK, what, f"let it wait for the {hours} h that events about these objects stay")
        if bucket == store.work_bucket and not any(rule.covers(prefix) for rule in rules):
            what = f"bucket {bucket} has no lifecycle rule for {prefix}: what failed runs leave stays for ever"
            yield warn(CHECK, what, TODO)


def version_findings(admin: BucketAdmin, store: ObjectStore, settings: StoreSettings, key: str) -> Iterable[Finding]:
    """Whether what was removed can still be read by version. Found out with an object, because to ask the bucket would
    need one more right."""
    for bucket, prefix in ((settings.work_bucket, WORK_PREFIX), (settings.results_bucket, RESULTS_PREFIX)):
        if not admin.exists(bucket):
            continue
        try:
            is_ended = any(rule.old_days and rule.covers(prefix) for rule in admin.rules(bucket))
            stays = not is_ended and _keeps_versions(store, bucket, key)
        except WhisperXError:
            continue  # the other checks say what is wrong with the rules or the bucket
        if stays:
            what = f"bucket {bucket} keeps old versions of {prefix} for ever: what was removed can be read by version"
            yield warn(CHECK, what, f"{TODO}, or let the bucket keep no versions")


def _keeps_versions(store: ObjectStore, bucket: str, key: str) -> bool:
    store.put_new(bucket, key, key.encode())
    try:
        return store.stat(bucket, key).version_id is not None
    finally:
        store.delete(bucket, [key])


def encryption_findings(admin: BucketAdmin, store: ObjectStore, settings: StoreSettings, key: str) -> Iterable[Finding]:
    """Whether an object that we write is encrypted as the settings ask. Raises RefusedEncryption."""
    for bucket in dict.fromkeys((settings.work_bucket, settings.results_bucket)):
        if not admin.exists(bucket):
            continue
        store.put_new(bucket, key, key.encode())
        try:
            found = admin.encryption(bucket, key)
        finally:
            store.delete(bucket, [key])
        if found == settings.encryption:
            yield ok(CHECK, f"bucket {bucket} encrypts what we write ({found})")
        else:
            what = f"bucket {bucket} stored an object with encryption {found}, asked was {settings.encryption}"
            yield fail(CHECK, what, "ask the store's operator: it must not ignore the request")
