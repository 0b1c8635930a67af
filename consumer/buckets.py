"""Our buckets as data: how to make them, the lifecycle rules behind cleanup, and what is wrong with those there are.

Cleanup removes the work of a run right after its result. A lifecycle rule is the second net: for what failed runs
leave, and for cleanups that were given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumer.core.layout import RESULTS_PREFIX, WORK_PREFIX
from consumer.errors import AccessDenied
from consumer.findings import Finding, fail, ok, warn
from consumer.ports import ObjectStore
from consumer.settings import Settings, StoreSettings

CHECK = "store"
WORK_RULE, RESULTS_RULE = "whisperx-work", "whisperx-results"
TODO = "run `whisperx-consumer buckets create`"


@dataclass(frozen=True, slots=True)
class Expiry:
    """A lifecycle rule: objects under `prefix` are removed so many days after they were written."""

    rule: str
    prefix: str
    days: int
    enabled: bool = True
    conditional: bool = False
    """Whether it is only for objects of certain tags or sizes."""

    def reaches(self, prefix: str) -> bool:
        """Whether it removes anything under this prefix."""
        return self.enabled and (self.prefix.startswith(prefix) or prefix.startswith(self.prefix))

    def covers(self, prefix: str) -> bool:
        """Whether it removes everything under this prefix in the end."""
        return self.enabled and not self.conditional and prefix.startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """A bucket as it is to be. The rule named `rule` is ours: `expiry`, or none."""

    name: str
    rule: str
    expiry: Expiry | None


class BucketAdmin(Protocol):
    """Raises what an `ObjectStore` raises."""

    def exists(self, bucket: str) -> bool: ...
    def make(self, bucket: str) -> None: ...
    def expiries(self, bucket: str) -> list[Expiry]:
        """The rules after which objects expire some days after they were written, whoever made them."""
        ...

    def set_rule(self, bucket: str, rule: str, expiry: Expiry | None) -> None:
        """Put this rule in the place of the one of its name, or remove that; the other rules stay."""
        ...

    def encryption(self, bucket: str, key: str) -> str:
        """How the object is encrypted, as the setting store.encryption names it."""
        ...


def table(store: StoreSettings) -> tuple[BucketSpec, ...]:
    """The work bucket and the results bucket. They may be one, because each rule has its prefix."""
    results_days = store.results_expiry_days
    return (
        BucketSpec(store.work_bucket, WORK_RULE, Expiry(WORK_RULE, WORK_PREFIX, store.work_expiry_days)),
        BucketSpec(
            store.results_bucket,
            RESULTS_RULE,
            Expiry(RESULTS_RULE, RESULTS_PREFIX, results_days) if results_days else None,
        ),
    )


def create(admin: BucketAdmin, specs: Sequence[BucketSpec], *, dry_run: bool = False) -> list[str]:
    """Make the buckets that are missing, and bring our rules up to the settings. Foreign rules are kept.

    What was done, or with `dry_run` would be, in words.
    """
    done: list[str] = []
    made: set[str] = set()
    for spec in specs:
        if spec.name not in made and not admin.exists(spec.name):
            made.add(spec.name)
            done.append(f"bucket {spec.name}")
            if not dry_run:
                admin.make(spec.name)
        is_there = not dry_run or spec.name not in made
        now = {one.rule: one for one in admin.expiries(spec.name)}.get(spec.rule) if is_there else None
        if now == spec.expiry:
            continue
        done.append(f"rule {spec.rule} of {spec.name}: {_in_words(spec.expiry)}")
        if not dry_run:
            admin.set_rule(spec.name, spec.rule, spec.expiry)
    return done


def _in_words(expiry: Expiry | None) -> str:
    return f"{expiry.prefix} expires after {expiry.days} days" if expiry else "removed"


# ── what doctor asks ────────────────────────────────────────────────────────────────────────────────────────────────


def settings_findings(settings: Settings) -> Iterable[Finding]:
    """Whether the days of the rules fit the retention of the events that point to the objects."""
    days, hours = settings.store.work_expiry_days, settings.topics.work_retention_hours
    if days * 24 < hours:
        what = f"store.work_expiry_days={days} is shorter than topics.work_retention_hours={hours}"
        yield fail("settings", what, "raise it: chunks of a job that waits would expire before it is given up")
    days, hours = settings.store.results_expiry_days, settings.topics.results_retention_hours
    if 0 < days * 24 < hours:
        what = f"store.results_expiry_days={days} is shorter than topics.results_retention_hours={hours}"
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
