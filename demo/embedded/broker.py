"""A Kafka broker inside this process: librdkafka's mock cluster, which every confluent-kafka wheel carries.

Ordinary clients of this and of other processes reach it over TCP, on the loopback interface only: librdkafka
binds its mock brokers to INADDR_LOOPBACK and a free port, and advertises 127.0.0.1. With librdkafka 2.16:

- Works: produce and consume, keys, headers (doubled keys too), idempotent producers, consumer groups of both
  protocols, commits with their metadata, watermarks, the list of topics.
- Accepted but not real: transactions. Commit and abort succeed, but offsets sent to a transaction are not
  stored, aborted records stay visible to `read_committed`, and a zombie commits. So: a plain producer, then a
  plain offset commit, and one consumer per group.
- Missing: every admin call (hence `topics`), offsets for times, ACLs, TLS, compaction.
- Not durable: a partition keeps its newest 5 MiB (or 100 000 batches) and drops older records without a word,
  read or not. Everything is gone when the block ends.

Source: librdkafka, src/rdkafka_mock.h ("experimental API"), rdkafka_mock.c and rdkafka_mock_cgrp.c.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Final, Self

_PRODUCER: Final = 0
"""RD_KAFKA_PRODUCER: the cluster borrows the threads and timers of a client, which never connects itself."""
_LOG_CRITICAL: Final = b"2"
"""syslog level of the owning client. It has nothing to connect to and would complain on stderr at level 5."""
_ERROR_BYTES: Final = 512
_FIRST_JOIN_DELAY_MS: Final = 50
"""How long the first member of an empty classic group waits for others; librdkafka's default is 3 000."""
_GROUP_HEARTBEAT_MS: Final = 300
"""How soon members of a KIP-848 group learn of a new assignment; librdkafka's default is 3 000."""
_CALL_APART_S: Final = 0.002
"""Between two calls to the cluster's thread, far longer than it takes to go back to its wait."""

CLIENT_SETTINGS: Final[Mapping[str, str | int | bool]] = MappingProxyType(
    {
        "group.protocol": "consumer",
        "fetch.wait.max.ms": 20,
        "log.connection.close": False,
    }
)
"""For each consumer. Measured with ten groups at once on two busy cores: a join takes 0.1 s, a record 20 ms.

- A classic group works too, but a member that comes back to it waits for `session.timeout.ms` less a second
  (44 s by default, 5 s at 6 000): the mock waits for the member that left. With the KIP-848 protocol it joins
  at once. That protocol refuses `session.timeout.ms`, `heartbeat.interval.ms` and
  `partition.assignment.strategy`: leave them out.
- The mock answers an empty fetch only when its wait is over, even if a record came meanwhile. So the wait
  (500 ms by default) is the latency. At 20 ms ten idle consumers cost 6 % of a core, at 10 ms 9 %.
"""

PRODUCER_SETTINGS: Final[Mapping[str, str | int | bool]] = MappingProxyType(
    {
        "linger.ms": 0,
        "log.connection.close": False,
    }
)
"""For each producer. No `transactional.id`: see the top of this file."""

_SYMBOLS: Final[Mapping[str, tuple[object, tuple[object, ...]]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, ()),
    "rd_kafka_conf_set": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "rd_kafka_new": (ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)),
    "rd_kafka_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_err2str": (ctypes.c_char_p, (ctypes.c_int,)),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)),
    "rd_kafka_mock_cluster_destroy": (None, (ctypes.c_void_p,)),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "rd_kafka_mock_topic_create": (
        ctypes.c_int,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    ),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (ctypes.c_void_p, ctypes.c_int32)),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, (ctypes.c_void_p, ctypes.c_int)),
}


class LibraryNotFound(RuntimeError):
    """The librdkafka that confluent-kafka uses cannot be reached, or has no mock cluster."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"No embedded broker: {reason}. Install the confluent-kafka wheel from PyPI "
            "(pip install --only-binary :all: confluent-kafka), or use a real Kafka."
        )


class BrokerNotStarted(RuntimeError):
    """librdkafka refused to make the mock cluster or one of its topics."""


class EmbeddedBroker:
    """A running mock cluster of one broker that has `topics` (name to number of partitions) from the start.

        with EmbeddedBroker({"transcription.jobs": 3}) as broker:
            Producer({"bootstrap.servers": broker.bootstrap_servers, **PRODUCER_SETTINGS})

    Name every topic: a subscription made before its topic exists waits for the next metadata refresh (10 s).
    Close the clients before the block ends. A broker can be entered again, and is then empty and elsewhere.

    Raises ValueError for a topic without partitions. When the block is entered: LibraryNotFound, or
    BrokerNotStarted with librdkafka's reason.
    """

    bootstrap_servers: str
    """Where the broker listens while the block lasts: `127.0.0.1:port`."""

    def __init__(self, topics: Mapping[str, int]) -> None:
        # librdkafka does not check the count, and aborts the process on a negative one.
        if empty := [name for name, partitions in topics.items() if partitions < 1]:
            raise ValueError(f"topics need at least one partition: {', '.join(empty)}")
        self._topics = dict(topics)
        self._running = ExitStack()

    def __enter__(self) -> Self:
        library = _load_library()
        with ExitStack() as starting:
            owner = _new_owner(library)
            starting.callback(library.rd_kafka_destroy, owner)
            cluster = _new_cluster(library, owner)
            starting.callback(library.rd_kafka_mock_cluster_destroy, cluster)
            for name, partitions in self._topics.items():
                _create_topic(library, cluster, name, partitions)
            self.bootstrap_servers = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()


def _load_library() -> ctypes.CDLL:
    """The very librdkafka that confluent_kafka runs on, with the types of what we call.

    The extension module is opened once more, and symbols are looked up in it and in what it is linked with.
    So the name and place of the library do not matter; they differ between wheels (`confluent_kafka.libs` and
    a hash in the name on Linux, `.dylibs` on macOS) and distributions.
    """
    try:
        from confluent_kafka import cimpl

        library = ctypes.CDLL(cimpl.__file__)
        for name, (result, arguments) in _SYMBOLS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, OSError) as exc:
        raise LibraryNotFound(f"confluent_kafka cannot be loaded ({exc})") from exc
    except AttributeError as exc:
        raise LibraryNotFound(f"its librdkafka does not show the mock cluster ({exc})") from exc
    return library


def _new_owner(library: ctypes.CDLL) -> int:
    reason = ctypes.create_string_buffer(_ERROR_BYTES)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(conf, b"client.id", b"embedded-broker", reason, _ERROR_BYTES)
    library.rd_kafka_conf_set(conf, b"log_level", _LOG_CRITICAL, reason, _ERROR_BYTES)
    owner: int | None = library.rd_kafka_new(_PRODUCER, conf, reason, _ERROR_BYTES)
    if owner is None:
        raise BrokerNotStarted(f"librdkafka made no client: {reason.value.decode()}")
    return owner


def _new_cluster(library: ctypes.CDLL, owner: int) -> int:
    cluster: int | None = library.rd_kafka_mock_cluster_new(owner, 1)
    if cluster is None:
        raise BrokerNotStarted("librdkafka made no mock cluster; is there a loopback interface?")
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, _FIRST_JOIN_DELAY_MS)
    library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, _GROUP_HEARTBEAT_MS)
    return cluster


def _create_topic(library: ctypes.CDLL, cluster: int, name: str, partitions: int) -> None:
    error = library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1)
    if error:
        raise BrokerNotStarted(f"no topic {name} of {partitions}: {library.rd_kafka_err2str(error).decode()}")
    # The cluster's thread answers a call first and empties its wake-up pipe after. A call that comes between
    # the two loses its wake-up and waits for the next tick, a second later: seen at one to three topics of 14.
    time.sleep(_CALL_APART_S)
