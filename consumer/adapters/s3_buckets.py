"""Buckets, lifecycle rules and encryption of an S3 store: what is asked when an installation is set up or checked.

Rules are read and written as XML, and not by minio's client: it forgets what it does not know of a rule (sizes, marks
of deletion), and a rule of others that it writes back would reach further than before.
"""

from __future__ import annotations

import base64
import hashlib
import http
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from consumer.adapters.object_store import S3Store
from consumer.adapters.store_errors import Place, from_response, translated
from consumer.buckets import Expiry

LEFTOVER_DAYS = 1
"""Parts of uploads that were never completed are of use to nobody."""
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_QUERY = "lifecycle="
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

    def rules(self, bucket: str) -> list[Expiry]:
        return [rule for rule in map(_read, self._rules(bucket)) if rule.days or rule.old_days]

    def expiries(self, bucket: str) -> list[Expiry]:
        return [rule for rule in self.rules(bucket) if rule.days]

    def set_rule(self, bucket: str, rule: str, expiry: Expiry | None) -> None:
        """The store replaces all rules at once: a change that somebody else makes at the same moment may be lost."""
        rules = [one for one in self._rules(bucket) if one.findtext("{*}ID") != rule]
        if expiry:
            rules.append(_rule(expiry))
        if not rules:
            self._ask("DELETE", bucket)
            return
        whole = Element(f"{{{_NAMESPACE}}}LifecycleConfiguration")
        whole.extend(rules)
        self._ask("PUT", bucket, ElementTree.tostring(whole, default_namespace=_NAMESPACE))

    def encryption(self, bucket: str, key: str) -> str:
        with translated(Place(self._store.endpoint, bucket, key)):
            found = self._store.client.stat_object(bucket, key, self._store.encryption.key_of(bucket))
        headers = {name.lower(): value for name, value in (found.metadata or {}).items()}
        if _CUSTOMER_KEY in headers:
            return "sse-c"
        method = headers.get(_METHOD)
        return _METHODS.get(method, method) if method else "none"

    def _rules(self, bucket: str) -> list[Element]:
        """All in our namespace, which a store may leave out."""
        if not (document := self._ask("GET", bucket)):
            return []
        with translated(Place(self._store.endpoint, bucket)):
            whole = ElementTree.fromstring(document)  # noqa: S314 - from the store, whose XML minio's client reads so too
        for element in whole.iter():
            element.tag = f"{{{_NAMESPACE}}}{element.tag.rpartition('}')[2]}"
        return whole.findall("{*}Rule")

    def _ask(self, method: str, bucket: str, document: bytes = b"") -> bytes:
        """The answer; empty where there are no rules."""
        place = Place(self._store.endpoint, bucket)
        digest = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
        headers = {"Content-MD5": digest} if document else {}
        response = self._store.send(method, place, document, headers, _QUERY)
        if response.status in (http.HTTPStatus.OK, http.HTTPStatus.NO_CONTENT):
            return response.data
        if response.status == http.HTTPStatus.NOT_FOUND and b"NoSuchLifecycleConfiguration" in response.data:
            return b""
        raise from_response(place, response)


def _read(rule: Element) -> Expiry:
    """Old versions of which the newest are kept stay, as far as we are concerned."""
    reach = rule.find("{*}Filter")
    prefix = rule.find("{*}Prefix") if reach is None else reach.find(".//{*}Prefix")
    conditions = [] if reach is None else [one for one in reach.iter() if _name(one) in _CONDITIONS]
    old = rule.find("{*}NoncurrentVersionExpiration")
    ends_all = old is not None and not int(old.findtext("{*}NewerNoncurrentVersions") or 0)
    return Expiry(
        rule.findtext("{*}ID") or "",
        (prefix.text or "") if prefix is not None else "",
        int(rule.findtext("{*}Expiration/{*}Days") or 0),
        int(old.findtext("{*}NoncurrentDays") or 0) if old is not None and ends_all else 0,
        rule.findtext("{*}Status") == "Enabled",
        bool(conditions),
    )


_CONDITIONS = ("Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan")


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _rule(expiry: Expiry) -> Element:
    """MinIO takes the part about uploads and drops it: it removes their parts by itself after a day.

    The mark that a deletion leaves goes when no version is behind it: by the days, or else as the rule says.
    """
    ends = _element("Days", str(expiry.days)) if expiry.days else _element("ExpiredObjectDeleteMarker", "true")
    old = _element("NoncurrentVersionExpiration", _element("NoncurrentDays", str(expiry.old_days)))
    return _element(
        "Rule",
        _element("ID", expiry.rule),
        _element("Status", "Enabled"),
        _element("Filter", _element("Prefix", expiry.prefix)),
        _element("Expiration", ends),
        *([old] if expiry.old_days else []),
        _element("AbortIncompleteMultipartUpload", _element("DaysAfterInitiation", str(LEFTOVER_DAYS))),
    )


def _element(name: str, *content: Element | str) -> Element:
    made = Element(f"{{{_NAMESPACE}}}{name}")
    for part in content:
        if isinstance(part, str):
            made.text = part
        else:
            made.append(part)
    return made
