"""Least privilege at the store: one policy for each kind of user, in the language that MinIO and S3 share.

What a policy does not name is denied. `whisperx-consumer policy` prints them for the names of an installation;
docs/policies shows them for the default names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum

from consumer.core.layout import RESULTS_PREFIX, WORK_PREFIX
from consumer.settings import StoreSettings

EXAMPLE_SENDERS = ("transcription-recordings",)
Statement = dict[str, object]

READ_PINNED = ("GetObject", "GetObjectVersion")
DELETE_PINNED = ("DeleteObject", "DeleteObjectVersion")

# Names as in core/layout, of every job and run; what follows the end of a name is included.
CHUNKS, CHUNK_PLANS = f"{WORK_PREFIX}*/chunks/", f"{WORK_PREFIX}*/chunks/*.json"
SHAPES, SAMPLES = f"{WORK_PREFIX}*/plan-shape.json", f"{WORK_PREFIX}*/language-sample.pcm"
CHECKPOINTS = f"{WORK_PREFIX}*/checkpoints/"
MANIFESTS = f"{RESULTS_PREFIX}*/manifest.json"
PROBES = "probe/"


class Principal(StrEnum):
    """Who works with the store. Intake is not among them: it asks the store nothing."""

    SERVICE = "service"
    COORDINATE = "coordinate"
    PLAN = "plan"
    TRANSCRIBE = "transcribe"
    ASSEMBLE = "assemble"
    CLEANUP = "cleanup"
    SENDER = "sender"
    READER = "reader"
    BUCKETS = "buckets"


MEANINGS = {
    Principal.SERVICE: "runs the service with one key for all roles, doctor and sweep",
    Principal.COORDINATE: "runs that role alone",
    Principal.PLAN: "runs that role alone, which decodes what senders upload",
    Principal.TRANSCRIBE: "runs that role alone",
    Principal.ASSEMBLE: "runs that role alone",
    Principal.CLEANUP: "runs that role alone",
    Principal.SENDER: "uploads recordings, as `whisperx-jobs submit` does",
    Principal.READER: "reads transcripts, as `whisperx-jobs result` does",
    Principal.BUCKETS: "runs `whisperx-consumer buckets create` once",
}


def is_about_recordings(who: Principal, *, delete_recordings: bool = False) -> bool:
    """Whether its rights are about the senders' buckets, so that one has to know them."""
    return who in (Principal.SERVICE, Principal.PLAN, Principal.SENDER) or (
        who is Principal.CLEANUP and delete_recordings
    )


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
                _allow("ReadRecordings", READ_PINNED, recordings),
                _allow("OurObjects", ("GetObject", "PutObject", "DeleteObject"), _all_in(ours)),
                _allow("OurBuckets", ("ListBucket", "GetLifecycleConfiguration"), _buckets(ours)),
            ]
            if delete_recordings:
                statements.append(_allow("DeleteRecordings", DELETE_PINNED, recordings))
        case Principal.SENDER:
            # Reading its own: a file that is there already is not uploaded again, and an event carries its etag.
            statements = [_allow("OwnRecordings", ("PutObject", "GetObject", "AbortMultipartUpload"), recordings)]
        case Principal.READER:
            statements = [
                _allow("ReadResults", ("GetObject",), [_objects(store.results_bucket, RESULTS_PREFIX)]),
                _list("FindResults", store.results_bucket, RESULTS_PREFIX),
            ]
        case Principal.BUCKETS:
            rules = ("GetLifecycleConfiguration", "PutLifecycleConfiguration")
            statements = [_allow("MakeBuckets", ("CreateBucket", "ListBucket", *rules), _buckets(ours))]
        case _:
            statements = _of_role(who, store, recordings, delete_recordings)
    return {"Version": "2012-10-17", "Statement": statements}


def _of_role(
    role: Principal, store: StoreSettings, recordings: Sequence[str], delete_recordings: bool
) -> list[Statement]:
    """What one role does. Whoever takes over its pod can do that, and not the work of the other roles."""

    def work(*names: str) -> list[str]:
        return [_objects(store.work_bucket, name) for name in names]

    def results(*names: str) -> list[str]:
        return [_objects(store.results_bucket, name) for name in names]

    manifests = _allow("ReadManifests", ("GetObject",), results(MANIFESTS))
    probe = _allow("SeeThatTheStoreServes", ("PutObject", "DeleteObject"), work(PROBES))
    find = [
        _list("FindWork", store.work_bucket, WORK_PREFIX),
        _list("FindResults", store.results_bucket, RESULTS_PREFIX),
    ]
    match role:
        case Principal.COORDINATE:
            return [manifests, *find]
        case Principal.PLAN:
            planned = _allow("Chunks", ("GetObject", "PutObject"), work(CHUNKS, SHAPES, SAMPLES))
            return [_allow("ReadRecordings", READ_PINNED, recordings), planned, manifests, probe]
        case Principal.TRANSCRIBE:
            chunks = _allow("ReadChunks", ("GetObject",), work(CHUNKS, SAMPLES))
            return [chunks, _allow("Checkpoints", ("GetObject", "PutObject"), work(CHECKPOINTS)), manifests, probe]
        case Principal.ASSEMBLE:
            finished = _allow("ReadFinishedChunks", ("GetObject",), work(CHECKPOINTS, CHUNK_PLANS))
            return [finished, _allow("Results", ("GetObject", "PutObject"), results(RESULTS_PREFIX)), probe]
        case Principal.CLEANUP:
            removed = _allow("Remove", ("DeleteObject",), [*work(WORK_PREFIX), *results(RESULTS_PREFIX)])
            deleted = _allow("DeleteRecordings", (*READ_PINNED, *DELETE_PINNED), recordings)
            return [*find, removed, probe, *([deleted] if delete_recordings else [])]
    raise ValueError(f"{role} is no role")


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


def _list(name: str, bucket: str, prefix: str) -> Statement:
    """Only where the request names the prefix, or more of it."""
    return _allow(name, ("ListBucket",), _buckets([bucket])) | {
        "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}}
    }


def _buckets(names: Iterable[str]) -> list[str]:
    return [f"arn:aws:s3:::{name}" for name in names]


def _objects(bucket: str, prefix: str = "") -> str:
    return f"arn:aws:s3:::{bucket}/{prefix}*"


def _all_in(buckets: Iterable[str]) -> list[str]:
    return [_objects(bucket) for bucket in buckets]
