"""Buckets, lifecycle rules and encryption of an S3 store: what is asked when an installation is set up or checked."""

from __future__ import annotations

from collections.abc import Iterator

from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import (
    AbortIncompleteMultipartUpload,
    Expiration,
    LifecycleConfig,
    NoncurrentVersionExpiration,
    Rule,
)

from consumer.adapters.object_store import S3Store
from consumer.adapters.store_errors import Place, translated
from consumer.buckets import Expiry

LEFTOVER_DAYS = 1
"""Overwritten versions, and parts of uploads that were never completed, are of use to nobody."""
_CUSTOMER_KEY = "x-amz-server-side-encryption-customer-algorithm"
_METHOD = "x-amz-server-side-encryption"
_METHODS = {"AES256": "sse-s3", "aws:kms": "sse-kms"}


class S3Buckets:
    """A `BucketAdmin` on an S3 server."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def exists(self, bucket: str) -> bool:
        return self._store.bucket_exists(bucket)

    def make(self, bucket: str) -> None:
        self._store.make_bucket(bucket)

    def expiries(self, bucket: str) -> list[Expiry]:
        return list(_expiries(self._rules(bucket)))

    def set_rule(self, bucket: str, rule: str, expiry: Expiry | None) -> None:
        """The store replaces all rules at once: a change that somebody else makes at the same moment may be lost."""
        others = [one for one in self._rules(bucket) if one.rule_id != rule]
        rules = [*others, *([_rule(expiry)] if expiry else [])]
        with translated(Place(self._store.endpoint, bucket)):
            if rules:
                self._store.client.set_bucket_lifecycle(bucket, LifecycleConfig(rules))
            else:
                self._store.client.delete_bucket_lifecycle(bucket)

    def encryption(self, bucket: str, key: str) -> str:
        with translated(Place(self._store.endpoint, bucket, key)):
            found = self._store.client.stat_object(bucket, key, self._store.encryption.key_of(bucket))
        headers = {name.lower(): value for name, value in (found.metadata or {}).items()}
        if _CUSTOMER_KEY in headers:
            return "sse-c"
        method = headers.get(_METHOD)
        return _METHODS.get(method, method) if method else "none"

    def _rules(self, bucket: str) -> list[Rule]:
        with translated(Place(self._store.endpoint, bucket)):
            config = self._store.client.get_bucket_lifecycle(bucket)
        return list(config.rules) if config else []


def _expiries(rules: list[Rule]) -> Iterator[Expiry]:
    for rule in rules:
        if rule.expiration and rule.expiration.days:
            reach = rule.rule_filter
            several = reach.and_operator if reach else None
            prefix = (several.prefix if several else reach.prefix if reach else "") or ""
            tagged = bool((several and several.tags) or (reach and reach.tag))
            yield Expiry(rule.rule_id or "", prefix, rule.expiration.days, rule.status == ENABLED, tagged)


def _rule(expiry: Expiry) -> Rule:
    """MinIO takes the part about uploads and drops it: it removes their parts by itself after a day."""
    return Rule(
        ENABLED,
        rule_filter=Filter(prefix=expiry.prefix),
        rule_id=expiry.rule,
        expiration=Expiration(days=expiry.days),
        noncurrent_version_expiration=NoncurrentVersionExpiration(LEFTOVER_DAYS),
        abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(LEFTOVER_DAYS),
    )
