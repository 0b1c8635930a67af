"""Is this installation fit to work? Every check is asked, and each answer says what to do.

    findings = run(installation_checks(...))

The settings are judged without asking anyone; brokers, store, registry, models and device are asked through adapters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from consumer import buckets, topics
from consumer.buckets import BucketAdmin
from consumer.core.places import bucket_of
from consumer.errors import (
    AccessDenied,
    DependencyAway,
    MissingBucket,
    MissingObject,
    NotAuthorized,
    RefusedCredentials,
    RefusedEncryption,
    RefusedLogin,
    WhisperXError,
)
from consumer.findings import Finding, fail, ok, warn
from consumer.ports import ObjectStore
from consumer.settings import Settings
from consumer.topics import TopicAdmin, TopicSpec

Probe = Callable[[], str]
"""Says in a sentence what is fine, or raises a WhisperXError."""

MAX_CLOCK_SKEW_S = 60.0
"""S3 refuses requests that are 15 minutes off; log times are of no use long before."""
ABORTING_S = 15.0
"""A broker looks for transactions that are too old every ten seconds, and then writes its markers."""
POSITIONS = "__consumer_offsets"
"""Where the groups' positions are: they are part of our transactions, and a reader waits for those that are open."""
BYTES_PER_AUDIO_S = 32_000  # 16 kHz, 16 bit, mono
LOCAL = ("localhost", "127.0.0.1", "::1", "[::1]")


class BrokerAdmin(TopicAdmin, Protocol):
    """The brokers, as doctor asks them."""

    def broker_ids(self) -> list[int]: ...
    def broker_config(self) -> dict[str, str]: ...
    def undecided(self, names: Iterable[str]) -> dict[tuple[str, int], int]:
        """Partitions that end in a transaction which is neither committed nor aborted: the offset where it begins."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """A question with a name. It may raise a WhisperXError: that is an answer too."""

    name: str
    ask: Callable[[], Iterable[Finding]]
    server: str = ""
    """The server that it asks: once that is found to be away, nothing more is asked of it."""


def run(checks: Iterable[Check]) -> list[Finding]:
    """Ask every check, also after one has failed, but not again of a server that is away."""
    findings: list[Finding] = []
    away: set[str] = set()
    for check in checks:
        if check.server in away:
            findings.append(warn(check.name, f"not asked, {check.server} is away", "see above"))
            continue
        try:
            findings.extend(check.ask())
        except (RefusedCredentials, RefusedEncryption, NotAuthorized) as error:  # it is there, and may say more
            findings.append(fail(check.name, error.message, _see(error)))
        except DependencyAway as error:
            away |= {check.server} - {""}
            todo = _see(error) if isinstance(error, RefusedLogin) else AWAY.get(check.server, _see(error))
            findings.append(fail(check.name, error.message, todo))
        except WhisperXError as error:
            findings.append(fail(check.name, error.message, _see(error)))
    return findings


AWAY = {
    "kafka": "start the brokers, or set WHISPERX_KAFKA__BOOTSTRAP_SERVERS (and __SECURITY_PROTOCOL) to those you mean",
    "store": "start the store, or set WHISPERX_STORE__ENDPOINT (and __SECURE=false where it has no TLS)",
}


def _see(error: WhisperXError) -> str:
    return f"see {error.code} in docs/errors.md"


def installation_checks(
    settings: Settings,
    *,
    admin: BrokerAdmin,
    store: ObjectStore,
    probe_id: str,
    bucket_admin: BucketAdmin | None = None,
    clock_skew_s: Callable[[], float] | None = None,
    probes: Sequence[tuple[str, Probe]] = (),
) -> list[Check]:
    """All checks of an installation.

    `probe_id` is part of the key of the probe objects, so that two doctors do not meet. `probes` are further questions
    by name: registry, models, device.
    """
    specs = topics.table(settings.kafka.topic_prefix, settings.topics)
    checks = [
        Check("settings", lambda: settings_findings(settings)),
        Check("brokers", lambda: broker_findings(admin, settings), "kafka"),
        Check("topics", lambda: topics.check(admin, specs), "kafka"),
        Check("transactions", lambda: transaction_findings(admin, specs, settings), "kafka"),
        *store_checks(store, settings, probe_id, bucket_admin),
        *(probe_check(name, probe) for name, probe in probes),
    ]
    if clock_skew_s is not None:
        checks.append(Check("clock", lambda: [clock_finding(clock_skew_s())], "store"))
    return checks


# ── settings against each other ─────────────────────────────────────────────────────────────────────────────────────


def settings_findings(settings: Settings) -> list[Finding]:
    """What the single fields cannot know: how they fit together."""
    findings = [*_kafka_times(settings), *_copies(settings), *_retentions(settings), *_chunks(settings)]
    findings += [*_buckets(settings), *buckets.settings_findings(settings), *_secrecy(settings)]
    return findings or [ok("settings", "they fit together")]


def _kafka_times(settings: Settings) -> Iterable[Finding]:
    kafka = settings.kafka
    if kafka.session_timeout_s > kafka.max_poll_interval_s:
        what = "WHISPERX_KAFKA__SESSION_TIMEOUT_S is longer than __MAX_POLL_INTERVAL_S: the client refuses to start"
        yield fail("settings", what, "lower WHISPERX_KAFKA__SESSION_TIMEOUT_S")
    if kafka.commit_timeout_s >= kafka.transaction_timeout_s:
        what = "WHISPERX_KAFKA__COMMIT_TIMEOUT_S is not below __TRANSACTION_TIMEOUT_S: the broker aborts while we wait"
        yield fail("settings", what, "raise WHISPERX_KAFKA__TRANSACTION_TIMEOUT_S")
    if kafka.transaction_timeout_s >= kafka.max_poll_interval_s:
        what = "WHISPERX_KAFKA__TRANSACTION_TIMEOUT_S is not below __MAX_POLL_INTERVAL_S: a slow commit looks stuck"
        yield warn("settings", what, "raise WHISPERX_KAFKA__MAX_POLL_INTERVAL_S")
    if settings.worker.grace_s > kafka.max_poll_interval_s:
        what = "WHISPERX_WORKER__GRACE_S is longer than WHISPERX_KAFKA__MAX_POLL_INTERVAL_S"
        yield warn("settings", what, "lower WHISPERX_WORKER__GRACE_S, or raise WHISPERX_KAFKA__MAX_POLL_INTERVAL_S")
    if not kafka.transactions:
        what = "WHISPERX_KAFKA__TRANSACTIONS is off: results can appear twice"
        yield warn("settings", what, "turn it on for every broker but the embedded demo broker")


def _copies(settings: Settings) -> Iterable[Finding]:
    copies, in_sync = settings.topics.replication_factor, settings.topics.min_insync_replicas
    if in_sync > copies:
        what = f"WHISPERX_TOPICS__MIN_INSYNC_REPLICAS={in_sync} is more than __REPLICATION_FACTOR={copies}"
        yield fail("settings", what, "lower it: nobody could write")
    elif in_sync < 2:
        what = f"WHISPERX_TOPICS__MIN_INSYNC_REPLICAS={in_sync}: a confirmed event can be lost with its broker"
        yield warn("settings", what, "use 3 copies, of which 2 confirm, where events matter")
    elif in_sync == copies:
        what = (
            f"WHISPERX_TOPICS__MIN_INSYNC_REPLICAS is __REPLICATION_FACTOR={copies}: one broker down stops all writes"
        )
        yield warn("settings", what, "add a copy, or ask one copy less to confirm")


def _retentions(settings: Settings) -> Iterable[Finding]:
    hours = settings.topics
    if hours.jobs_retention_hours > hours.work_retention_hours:
        what = "WHISPERX_TOPICS__JOBS_RETENTION_HOURS is longer than __WORK_RETENTION_HOURS"
        todo = "raise WHISPERX_TOPICS__WORK_RETENTION_HOURS: a job that waits longer than that fails with JOB_EXPIRED"
        yield warn("settings", what, todo)
    if hours.results_retention_hours < hours.jobs_retention_hours:
        what = "WHISPERX_TOPICS__RESULTS_RETENTION_HOURS is shorter than __JOBS_RETENTION_HOURS"
        yield warn("settings", what, "raise it: a result could be gone while its request is still there")


def _chunks(settings: Settings) -> Iterable[Finding]:
    chunks = settings.chunks
    longest_s = chunks.max_bytes / BYTES_PER_AUDIO_S
    if chunks.length_s + 2 * chunks.overlap_s > longest_s:
        what = (
            f"WHISPERX_CHUNKS__MAX_BYTES holds {longest_s:.0f} s, chunks are to be {chunks.length_s:.0f} s plus overlap"
        )
        yield warn("settings", what, "raise WHISPERX_CHUNKS__MAX_BYTES; until then chunks are cut shorter")
    if chunks.overlap_s > chunks.length_s / 2:
        what = "WHISPERX_CHUNKS__OVERLAP_S is more than half of __LENGTH_S: most audio is stored twice"
        yield warn("settings", what, "raise WHISPERX_CHUNKS__LENGTH_S or lower __OVERLAP_S")
    if settings.worker.handoff_s < 2 * chunks.length_s:
        what = "WHISPERX_WORKER__HANDOFF_S is less than two chunks: the GPU waits between chunks"
        yield warn("settings", what, f"raise it to {2 * chunks.length_s:.0f}")


def _buckets(settings: Settings) -> Iterable[Finding]:
    store = settings.store
    if store.work_bucket == store.results_bucket:
        what = f"WHISPERX_STORE__WORK_BUCKET and __RESULTS_BUCKET are both {store.work_bucket}"
        yield warn("settings", what, "use two buckets: lifecycle rules for work must not reach results")
    named = set(map(bucket_of, settings.limits.allowed_buckets))
    for bucket in sorted({store.work_bucket, store.results_bucket} & named):
        what = (
            f"WHISPERX_LIMITS__ALLOWED_BUCKETS names {bucket}, which is ours: no job may read audio or text of others"
        )
        yield fail("settings", what, "take it off the list")


def _secrecy(settings: Settings) -> Iterable[Finding]:
    if not settings.store.has_credentials:
        yield fail("settings", "no store credentials", "set WHISPERX_STORE__ACCESS_KEY and __SECRET_KEY")
    if not settings.store.secure and not _is_local(settings.store.endpoint):
        what = f"recordings travel to {settings.store.endpoint} without TLS"
        yield warn("settings", what, "set WHISPERX_STORE__SECURE=true")
    servers = settings.kafka.bootstrap_servers.split(",")
    if settings.kafka.oauth_token_endpoint.startswith("http:"):
        what = "WHISPERX_KAFKA__OAUTH_CLIENT_SECRET travels to the token endpoint without TLS"
        yield warn("settings", what, "give WHISPERX_KAFKA__OAUTH_TOKEN_ENDPOINT as https://")
    if not settings.kafka.ssl_verify_hostname:
        what = (
            "WHISPERX_KAFKA__SSL_VERIFY_HOSTNAME is off: "
            "whoever has any certificate of that authority can stand in for a broker"
        )
        yield warn("settings", what, "turn it on, and let the brokers' certificates carry their names")
    if settings.kafka.security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and not all(map(_is_local, servers)):
        what = f"transcripts travel to the brokers without TLS ({settings.kafka.security_protocol})"
        yield warn("settings", what, "set WHISPERX_KAFKA__SECURITY_PROTOCOL to SSL or SASL_SSL")


def _is_local(address: str) -> bool:
    return address.strip().rpartition(":")[0] in LOCAL


# ── brokers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def broker_findings(admin: BrokerAdmin, settings: Settings) -> list[Finding]:
    """Whether the brokers answer, are enough, and remember offsets and transactions long enough."""
    brokers = admin.broker_ids()
    findings = [ok("brokers", f"{len(brokers)} answer")]
    if len(brokers) < (copies := settings.topics.replication_factor):
        todo = "lower WHISPERX_TOPICS__REPLICATION_FACTOR, or start more brokers"
        findings.append(fail("brokers", f"{len(brokers)} brokers cannot hold {copies} copies", todo))
    return [*findings, *_broker_times(admin.broker_config(), settings)]


def _broker_times(config: dict[str, str], settings: Settings) -> Iterable[Finding]:
    offsets_hours = int(config.get("offsets.retention.minutes", "10080")) / 60
    longest_hours = max(settings.topics.jobs_retention_hours, settings.topics.work_retention_hours)
    if offsets_hours < longest_hours:
        what = f"an idle group's offsets are forgotten after {offsets_hours:g} h, events stay {longest_hours} h"
        yield warn("brokers", what, f"set offsets.retention.minutes={longest_hours * 60} on the brokers")
    longest_transaction_ms = int(config.get("transaction.max.timeout.ms", 900_000))
    if settings.kafka.transaction_timeout_s * 1000 > longest_transaction_ms:
        what = f"the brokers allow transactions of {longest_transaction_ms} ms at most"
        yield fail("brokers", what, "lower WHISPERX_KAFKA__TRANSACTION_TIMEOUT_S")


def transaction_findings(
    admin: BrokerAdmin,
    specs: Iterable[TopicSpec],
    settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Whether each open transaction ends: asked every second, until all have, or one is older than ours may become.

    Where others write, too, a transaction may be theirs, and may take longer.
    """
    ours = {spec.name for spec in specs if spec.topic not in topics.REQUESTS}
    names = {spec.name for spec in specs} | {POSITIONS}
    stuck = admin.undecided(names)
    longest_s = left_s = settings.kafka.transaction_timeout_s + ABORTING_S
    while stuck and left_s > 0:
        sleep(1.0)
        left_s -= 1.0
        still = admin.undecided(names)
        stuck = {place: offset for place, offset in stuck.items() if still.get(place) == offset}
    if not stuck:
        return [ok("transactions", "none that does not end")]
    todo = "see Transactions that never end in docs/kafka.md, before you abort anything"
    return [
        (fail if topic in ours else warn)(
            "transactions",
            f"{topic}[{partition}] cannot be read from offset {offset} on: a transaction is open for {longest_s:.0f} s",
            todo,
        )
        for (topic, partition), offset in sorted(stuck.items())
    ]


# ── store, clock, and what others ask ───────────────────────────────────────────────────────────────────────────────


def store_checks(
    store: ObjectStore, settings: Settings, probe_id: str, bucket_admin: BucketAdmin | None = None
) -> list[Check]:
    """Whether our buckets can be written once, read and emptied, encrypt and forget as they should, and recordings can
    be read."""
    ours = dict.fromkeys((settings.store.work_bucket, settings.store.results_bucket))
    key = f"doctor/{probe_id}"
    asks = [partial(_probe_bucket, store, bucket, key) for bucket in ours]
    if bucket_admin is not None:
        asks.append(partial(buckets.rule_findings, bucket_admin, settings))
        asks.append(partial(buckets.version_findings, bucket_admin, store, settings.store, f"{key}-version"))
        if settings.store.encryption != "none":
            asks.append(partial(buckets.encryption_findings, bucket_admin, store, settings.store, f"{key}-encrypted"))
    if named := settings.limits.allowed_buckets:
        asks.append(partial(_senders_buckets, store, named, key))
    return [Check("store", ask, "store") for ask in asks]


def _senders_buckets(store: ObjectStore, named: Iterable[str], key: str) -> Iterable[Finding]:
    """Asked for an object that is not there: reading is all that we may do, so that listing may be denied to us."""
    for place in named:
        bucket, _, prefix = place.partition("/")
        try:
            store.stat(bucket, prefix + key)
        except MissingObject:
            continue
        except MissingBucket:
            todo = "make it, or take it off WHISPERX_LIMITS__ALLOWED_BUCKETS"
            yield warn("store", f"bucket {bucket}, which jobs may name, is not there", todo)
        except AccessDenied:
            todo = "see `whisperx-consumer policy service`; AWS says the same where only s3:ListBucket is missing"
            yield warn("store", f"bucket {bucket}, which jobs may name, may not be read with our key", todo)


def clock_finding(skew_s: float) -> Finding:
    """`skew_s`: our clock less the store's, in seconds."""
    if abs(skew_s) <= MAX_CLOCK_SKEW_S:
        return ok("clock", "agrees with the store's")
    direction = "ahead of" if skew_s > 0 else "behind"
    what = f"our clock is {abs(skew_s):.0f} s {direction} the store's"
    return fail("clock", what, "synchronise the clocks (NTP): the store refuses requests that are 15 minutes off")


def _probe_bucket(store: ObjectStore, bucket: str, key: str) -> Iterable[Finding]:
    if not store.bucket_exists(bucket):
        yield fail("store", f"bucket {bucket} is not there", buckets.TODO)
        return
    data = key.encode()
    store.put_new(bucket, key, data)
    try:
        if store.get(bucket, key) != data:
            yield fail("store", f"bucket {bucket} does not give back what was written", "ask the store's operator")
        if store.put_new(bucket, key, data).created:
            what = f"bucket {bucket} ignores If-None-Match: two workers could overwrite each other"
            yield fail("store", what, "use a store with conditional writes (MinIO, S3)")
        else:
            yield ok("store", f"bucket {bucket} can be written once, read and emptied")
    finally:
        store.delete(bucket, [key])


def probe_check(name: str, probe: Probe) -> Check:
    return Check(name, lambda: [ok(name, probe())])
