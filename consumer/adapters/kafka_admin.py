"""What we ask of the brokers outside the loop: which topics there are, and to make those that are missing."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not exported explicitly
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from consumer.access import Acl
from consumer.adapters.kafka_client import NO_LEADER_YET, REFUSAL_S, client_config
from consumer.adapters.kafka_refusals import AUTHORIZATION, Refusals, advice, is_refused_login, open_client
from consumer.errors import BrokerUnavailable, Misconfigured, NotAuthorized
from consumer.settings import KafkaSettings
from consumer.topics import TopicFacts, TopicSpec

log = logging.getLogger(__name__)

TIMEOUT_S = 15.0
LISTING_PAUSE_S = 0.1
LEADER_S = 5.0
"""An election takes less; a partition that has no leader after it has lost its brokers."""
MAX_COMPLAINTS = 3
_KINDS = {"topic": "TOPIC", "group": "GROUP", "transactional-id": "TRANSACTIONAL_ID", "cluster": "BROKER"}
"""Kinds of resources, and librdkafka's names for them."""
_MENDED_BY_SETTINGS = {
    KafkaError.INVALID_REPLICATION_FACTOR: "lower WHISPERX_TOPICS__REPLICATION_FACTOR, or start more brokers",
    KafkaError.POLICY_VIOLATION: "correct the settings WHISPERX_TOPICS__*, or the brokers' policy",
    KafkaError.SECURITY_DISABLED: "they check no rights, and so need no rules; set their authorizer.class.name first",
}
"""What the brokers answer and refuse, and what a person can do about it."""


class KafkaAdmin:
    """The admin side of the brokers; no connection is made before the first question."""

    def __init__(self, settings: KafkaSettings, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._servers = settings.bootstrap_servers
        self._timeout_s = timeout_s
        self._complaints: list[KafkaError] = []
        properties = {**client_config(settings), **settings.extra, "log_level": 0, "error_cb": self._complaints.append}
        self._client = open_client(AdminClient, properties, logging.getLogger("librdkafka"))
        self._refusals = Refusals(settings)

    def broker_ids(self) -> list[int]:
        """Ids of the brokers that are up."""
        with self._translated():
            return sorted(self._listed().brokers)

    def _listed(self) -> ClusterMetadata:
        """Asked in short waits: who is refused need not wait as long as for brokers that are away."""
        give_up_s = time.monotonic() + self._timeout_s
        while True:
            left_s = give_up_s - time.monotonic()
            try:
                return self._client.list_topics(timeout=max(0.1, min(left_s, REFUSAL_S)))
            except KafkaException:
                self._client.poll(0)  # hands over the complaints
                if left_s <= REFUSAL_S or any(map(is_refused_login, self._complaints)):
                    raise

    def broker_config(self) -> dict[str, str]:
        """The settings of one broker; all brokers of a cluster should agree."""
        broker = str(self.broker_ids()[0])
        return self._configs([ConfigResource(ResourceType.BROKER, broker)])[broker]

    def describe(self, names: Iterable[str]) -> dict[str, TopicFacts]:
        """The facts of those of these topics that exist."""
        wanted = set(names)
        with self._translated():
            found = self._listed().topics
        existing = {name: topic.partitions for name, topic in found.items() if name in wanted and topic.error is None}
        if not existing:
            return {}
        configs = self._configs([ConfigResource(ResourceType.TOPIC, name) for name in existing])
        return {
            name: TopicFacts(name, len(parts), min(len(part.replicas) for part in parts.values()), configs[name])
            for name, parts in existing.items()
        }

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create them; the names that were created by us and not by another process just now."""
        if not specs:
            return []
        new = [
            NewTopic(spec.name, spec.partitions, spec.replication_factor, config=dict(spec.config)) for spec in specs
        ]
        with self._translated():
            futures = self._client.create_topics(
                new, request_timeout=self._timeout_s, operation_timeout=self._timeout_s
            )
            created = [name for name, future in futures.items() if self._is_new(future)]
            self._wait_until_listed({spec.name for spec in specs})
        return created

    def _wait_until_listed(self, names: set[str]) -> None:
        """The controller has them at once; the broker that is asked next hears of them a moment later."""
        give_up_s = time.monotonic() + self._timeout_s
        while not names <= self._client.list_topics(timeout=self._timeout_s).topics.keys():
            if time.monotonic() > give_up_s:
                raise BrokerUnavailable(f"brokers {self._servers} do not list the topics that they created")
            self._client.poll(LISTING_PAUSE_S)

    def _is_new(self, future: Any) -> bool:
        try:
            future.result(self._timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True

    def undecided(self, names: Iterable[str]) -> dict[tuple[str, int], int]:
        """Partitions that end in a transaction which is neither committed nor aborted: the offset where it begins.

        Partitions without a leader are left out: nobody can say.
        """
        wanted = set(names)
        with self._translated():
            topics = self._listed().topics
        asked = [TopicPartition(name, number) for name in wanted & topics.keys() for number in topics[name].partitions]
        stable = self._ends(asked, IsolationLevel.READ_COMMITTED)
        ends = self._ends(asked, IsolationLevel.READ_UNCOMMITTED)
        return {place: offset for place, offset in stable.items() if offset < ends.get(place, offset)}

    def _ends(self, asked: Sequence[TopicPartition], level: IsolationLevel) -> dict[tuple[str, int], int]:
        """Where a reader at this level ends, by topic and partition. A new leader is given time to know it."""
        found: dict[tuple[str, int], int] = {}
        open_ones, give_up_s = list(asked), time.monotonic() + LEADER_S
        while open_ones and time.monotonic() < give_up_s:
            latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            futures = self._client.list_offsets(
                dict.fromkeys(open_ones, latest), isolation_level=level, request_timeout=self._timeout_s
            )
            with self._translated():
                known = {place: self._end_of(future) for place, future in futures.items()}
            found |= {(place.topic, place.partition): end for place, end in known.items() if end is not None}
            if open_ones := [place for place, end in known.items() if end is None]:
                self._client.poll(LISTING_PAUSE_S)
        return found

    def _end_of(self, future: Any) -> int | None:
        """None as long as the partition has no leader that knows it."""
        try:
            return int(future.result(self._timeout_s).offset)
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER_YET:
                raise
            return None

    def lacking(self, acls: Iterable[Acl]) -> list[str]:
        """The rights on topics of which the brokers say that we do not have them; of topics that exist.

        Of groups and transactional ids nobody tells beforehand.
        """
        wanted = {acl.name: acl for acl in acls if acl.kind == "topic" and acl.pattern == "literal"}
        self.broker_ids()  # who is not let in at all is told so at once, and why
        found = self._client.describe_topics(
            TopicCollection(list(wanted)), include_authorized_operations=True, request_timeout=self._timeout_s
        )
        with self._translated():
            allowed = {name: self._allowed(future) for name, future in found.items()}
        return [
            f"{operation} on topic {name}"
            for name, acl in wanted.items()
            for operation in acl.operations
            if (known := allowed[name]) is not None and _in_capitals(operation) not in known
        ]

    def _allowed(self, future: Any) -> set[str] | None:
        """What we may do with a topic, in capitals. None: no such topic, or brokers that do not tell (not all can)."""
        try:
            operations = future.result(self._timeout_s).authorized_operations
        except KafkaException as error:
            if error.args[0].code() in AUTHORIZATION:
                return set()
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise
        return {operation.name for operation in operations} if operations else None

    def allow(self, principal: str, acls: Sequence[Acl]) -> None:
        """Add these rules for `principal` (User:NAME), from every host. One that is there already stays as it is."""
        bindings = [
            AclBinding(
                getattr(ResourceType, _KINDS[acl.kind]),
                acl.name,
                getattr(ResourcePatternType, acl.pattern.upper()),
                principal,
                "*",
                getattr(AclOperation, _in_capitals(operation)),
                AclPermissionType.ALLOW,
            )
            for acl in acls
            for operation in acl.operations
        ]
        with self._translated():
            for future in self._client.create_acls(bindings, request_timeout=self._timeout_s).values():
                future.result(self._timeout_s)

    def _configs(self, resources: list[ConfigResource]) -> dict[str, dict[str, str]]:
        with self._translated():
            futures = self._client.describe_configs(resources, request_timeout=self._timeout_s)
            return {
                resource.name: {entry.name: entry.value for entry in future.result(self._timeout_s).values()}
                for resource, future in futures.items()
            }

    @contextmanager
    def _translated(self) -> Iterator[None]:
        self._complaints.clear()
        try:
            yield
        except KafkaException as error:
            self._client.poll(0)  # hands over the complaints
            raise self._ours(error.args[0]) from error
        except TimeoutError as error:
            self._client.poll(0)
            raise self._silent(f"gave no answer in {self._timeout_s:.0f} s") from error

    def _ours(self, error: KafkaError) -> BrokerUnavailable | Misconfigured:
        """A refused login looks like a broker that is away; only the complaints before it tell."""
        if error.code() in AUTHORIZATION:
            return NotAuthorized(
                f"brokers {self._servers} do not allow us this question: {error.str()}; ask as the operator, "
                "whose ACLs `whisperx-consumer topics acls` prints"
            )
        if error.code() in _MENDED_BY_SETTINGS:
            todo = _MENDED_BY_SETTINGS[error.code()]
            return Misconfigured(f"brokers {self._servers} refuse: {error.str().rstrip('.')}; {todo}")
        distinct = dict.fromkeys(complaint.str() for complaint in (error, *self._complaints))
        return self._silent(f"do not answer: {'; '.join(list(distinct)[:MAX_COMPLAINTS])}", error)

    def _silent(self, how: str, *errors: KafkaError) -> BrokerUnavailable:
        for complaint in filter(is_refused_login, (*errors, *self._complaints)):
            self._refusals(complaint)
        if refusal := self._refusals.take():
            return refusal
        todo = advice(self._complaints, self._settings)
        return BrokerUnavailable(f"brokers {self._servers} {how}" + (f"; {todo}" if todo else ""))


def _in_capitals(operation: str) -> str:
    """DescribeConfigs -> DESCRIBE_CONFIGS"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
