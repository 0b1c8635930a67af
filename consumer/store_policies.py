"""Least privilege at the store: one policy for each kind of user, in the language that MinIO and S3 share.

What a policy does not name is denied. `whisperx-consumer policy` prints them for the names of an installation;
docs/policies shows them for the default names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum

from consumer.core.layout import RESULTS_PREFIX
from consumer.settings import StoreSettings

EXAMPLE_SENDERS = ("transcription-recordings",)
Statement = dict[str, object]


class Principal(StrEnum):
    """Who works with the store."""

    SERVICE = "service"
    SENDER = "sender"
    READER = "reader"
    BUCKETS = "buckets"


OF_RECORDINGS = (Principal.SERVICE, Principal.SENDER)
"""Whose rights are about the senders' buckets."""
MEANINGS = {
    Principal.SERVICE: "runs the service, in any role, and doctor",
    Principal.SENDER: "uploads recordings, as `whisperx-jobs submit` does",
    Principal.READER: "reads transcripts, as `whisperx-jobs result` does",
    Principal.BUCKETS: "runs `whisperx-consumer buckets create` once",
}


def policy(
    who: Principal, store: StoreSettings, senders: Iterable[str], *, delete_recordings: bool = False
) -> dict[str, object]:
    """The policy document. `senders` are buckets of recordings, each with an optional prefix: `calls/team-a/`.

    `delete_recordings` is for installations whose jobs may ask to have their recording deleted.
    """
    recordings = [_objects(*place.partition("/")[::2]) for place in senders]
    ours = [store.work_bucket, store.results_bucket]
    match who:
        case Principal.SERVICE:
            statements = [
                _allow("ReadRecordings", ("GetObject", "GetObjectVersion"), recordings),
                _allow("OurObjects", ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"), _all_in(ours)),
                _allow("OurBuckets", ("ListBucket", "GetLifecycleConfiguration"), _buckets(ours)),
            ]
            if delete_recordings:
                statements.append(_allow("DeleteRecordings", ("DeleteObject", "DeleteObjectVersion"), recordings))
        case Principal.SENDER:
            # Reading its own: a file that is there already is not uploaded again, and an event carries its etag.
            statements = [_allow("OwnRecordings", ("PutObject", "GetObject", "AbortMultipartUpload"), recordings)]
        case Principal.READER:
            statements = [
                _allow("ReadResults", ("GetObject",), [_objects(store.results_bucket, RESULTS_PREFIX)]),
                _allow("FindResults", ("ListBucket",), _buckets([store.results_bucket]))
                | {"Condition": {"StringLike": {"s3:prefix": [f"{RESULTS_PREFIX}*"]}}},
            ]
        case Principal.BUCKETS:
            rules = ("GetLifecycleConfiguration", "PutLifecycleConfiguration")
            statements = [_allow("MakeBuckets", ("CreateBucket", "ListBucket", *rules), _buckets(ours))]
    return {"Version": "2012-10-17", "Statement": statements}


def page(who: Principal) -> str:
    """The text of docs/policies/<who>.json."""
    return as_text(policy(who, StoreSettings(), EXAMPLE_SENDERS))


def as_text(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _allow(name: str, actions: Iterable[str], resources: Iterable[str]) -> Statement:
    return {
        "Sid": name,
        "Effect": "Allow",
        "Action": [f"s3:{action}" for action in actions],
        "Resource": list(dict.fromkeys(resources)),
    }


def _buckets(names: Iterable[str]) -> list[str]:
    return [f"arn:aws:s3:::{name}" for name in names]


def _objects(bucket: str, prefix: str = "") -> str:
    return f"arn:aws:s3:::{bucket}/{prefix}*"


def _all_in(buckets: Iterable[str]) -> list[str]:
    return [_objects(bucket) for bucket in buckets]
