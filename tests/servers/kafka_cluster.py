"""Brokers as plain processes, each of which can be killed and started again by itself, with several ways to each.

A way is one more listener: the broker tells the clients that come by it to call `advertised_port`, where a proxy can
stand in between. Clients that come by another listener never meet that proxy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.control import unavailable
from tests.servers.kafka import HEAP, Kafka, is_cluster, kafka_process, new_cluster_id, properties
from tests.servers.packages import KAFKA
from tests.servers.process import ServerProcess, free_ports, port_answers

SMALL_HEAP = "-Xms96m -Xmx256m"
"""Of one broker among three."""


@dataclass(frozen=True, slots=True)
class Way:
    """One more listener of one broker. `name` is in capital letters, as Kafka wants it."""

    name: str
    port: int
    advertised_port: int


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """Brokers that answer directly at `bootstrap_servers`, and by a way at `by_way(name)`."""

    nodes: tuple[Kafka, ...]
    ways: tuple[tuple[Way, ...], ...]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(node.bootstrap_servers for node in self.nodes)

    def by_way(self, name: str) -> str:
        """What a client that comes by this way starts from."""
        ports = [way.advertised_port for ways in self.ways for way in ways if way.name == name]
        return ",".join(f"127.0.0.1:{port}" for port in ports)


@contextmanager
def kafka_cluster(folder: Path, ways: Sequence[Sequence[Way]]) -> Iterator[KafkaCluster]:
    """As many brokers as `ways` has entries: one, or three that hold every record in three copies."""
    if not KAFKA.is_installed():
        unavailable("no Kafka as a plain process: run python -m tests.servers.install kafka")
    cluster_id, ports = new_cluster_id(), free_ports(2 * len(ways))
    addresses = [_Address(number + 1, ports[2 * number], ports[2 * number + 1]) for number in range(len(ways))]
    nodes: list[Kafka] = []
    with ExitStack() as stack:
        servers = [_server(folder, cluster_id, one, addresses, own) for one, own in zip(addresses, ways, strict=True)]
        for server in servers:
            stack.callback(server.kill)  # nothing of it is kept, and the last one could not end in good order alone
        with ThreadPoolExecutor(len(servers)) as pool:  # together: one controller of three waits for the others
            list(pool.map(ServerProcess.start, servers))
        nodes += [Kafka(one.broker, cluster_id, server) for one, server in zip(addresses, servers, strict=True)]
        yield KafkaCluster(tuple(nodes), tuple(tuple(own) for own in ways))


@dataclass(frozen=True, slots=True)
class _Address:
    number: int
    broker_port: int
    controller_port: int
    folder_id: str = field(default_factory=new_cluster_id)
    """An id of the same form."""

    @property
    def broker(self) -> str:
        return f"127.0.0.1:{self.broker_port}"

    @property
    def controller(self) -> str:
        return f"127.0.0.1:{self.controller_port}"


def _server(
    folder: Path, cluster_id: str, own: _Address, everyone: Sequence[_Address], ways: Sequence[Way]
) -> ServerProcess:
    settings = {**_listening(properties(own.broker_port, own.controller_port), ways), "node.id": str(own.number)}

    def ready() -> bool:
        return port_answers(own.broker_port) and is_cluster(own.broker, cluster_id)

    place = folder / f"broker-{own.number}"
    if len(everyone) == 1:
        return kafka_process(settings, place, cluster_id, ready, heap=HEAP)
    settings |= _replicated(everyone)
    return kafka_process(settings, place, cluster_id, ready, quorum=_quorum(everyone), heap=SMALL_HEAP)


def _quorum(everyone: Sequence[_Address]) -> tuple[str, str]:
    """The first controllers, each with the id of its folder."""
    return "--initial-controllers", ",".join(f"{one.number}@{one.controller}:{one.folder_id}" for one in everyone)


def _listening(settings: Mapping[str, str], ways: Sequence[Way]) -> dict[str, str]:
    listening = ",".join(f"{way.name}://127.0.0.1:{way.port}" for way in ways)
    advertised = ",".join(f"{way.name}://127.0.0.1:{way.advertised_port}" for way in ways)
    protocols = ",".join(f"{way.name}:PLAINTEXT" for way in ways)
    if not ways:
        return dict(settings)
    return {
        **settings,
        "listeners": f"{settings['listeners']},{listening}",
        "advertised.listeners": f"{settings['advertised.listeners']},{advertised}",
        "listener.security.protocol.map": f"{settings['listener.security.protocol.map']},{protocols}",
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _replicated(everyone: Sequence[_Address]) -> dict[str, str]:
    """What a record and an offset are worth in production: three copies, two of which must confirm."""
    copies, confirmed = str(len(everyone)), str(len(everyone) - 1)
    return {
        "controller.quorum.bootstrap.servers": ",".join(one.controller for one in everyone),
        "default.replication.factor": copies,
        "min.insync.replicas": confirmed,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": confirmed,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": confirmed,
        # A test should not wait for a new leader as long as production may.
        "controller.quorum.election.timeout.ms": "500",
        "controller.quorum.fetch.timeout.ms": "1000",
    }
