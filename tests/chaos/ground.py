"""The servers of a run: brokers with two ways to each, a store, and proxies in which the ways can be spoilt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from consumer import topics
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.settings import KafkaSettings, TopicSettings
from tests.acceptance.cluster import Cluster
from tests.servers.kafka_cluster import KafkaCluster, Way, kafka_cluster
from tests.servers.minio import Minio, own_minio
from tests.servers.process import free_ports
from tests.servers.toxiproxy import Proxy, Toxiproxy, toxiproxy_server

WAYS = ("LEFT", "RIGHT")
"""Half of the processes come by each, so that a cut separates some from the brokers and not all."""
PREFIX = "chaos-"
SESSION_TIMEOUT_S = 6.0
WORK_PARTITIONS, STATE_PARTITIONS, PUBLIC_PARTITIONS = 8, 4, 2
RETRY_BASE_S, RETRY_MAX_S = 1.0, 20.0
EVICT_AFTER_S = 30.0
"""Short, so that late duplicates are recognised by the manifest and not by the state."""


@dataclass(frozen=True)
class Ground:
    """`way_proxies` are those of a way, one per broker."""

    brokers: KafkaCluster
    minio: Minio
    way_proxies: Mapping[str, tuple[Proxy, ...]]
    store_proxy: Proxy
    system: Cluster
    protocol: str

    def environment(self, way: str, worker_id: str) -> dict[str, str]:
        """What a process needs that comes by this way."""
        return {
            **self.system.environment(),
            "WHISPERX_KAFKA__BOOTSTRAP_SERVERS": self.brokers.by_way(way),
            "WHISPERX_STORE__ENDPOINT": self.store_proxy.address,
            "WHISPERX_WORKER__ID": worker_id,
        }


@contextmanager
def ground(folder: Path, *, brokers: int, protocol: str) -> Iterator[Ground]:
    """Fresh servers with the topics of one installation."""
    with ExitStack() as stack:
        toxiproxy = stack.enter_context(toxiproxy_server(folder / "toxiproxy"))
        minio = stack.enter_context(own_minio(folder / "minio"))
        store_proxy = stack.enter_context(toxiproxy.proxy("store", minio.endpoint))
        plans = [_ways(stack, toxiproxy, number) for number in range(brokers)]
        ways = [[way for way, _ in plan] for plan in plans]
        proxies = {name: tuple(proxy for plan in plans for way, proxy in plan if way.name == name) for name in WAYS}
        cluster = stack.enter_context(kafka_cluster(folder / "kafka", ways))
        system = _system(folder, cluster, minio, protocol)
        yield Ground(cluster, minio, proxies, store_proxy, system, protocol)


def _ways(stack: ExitStack, toxiproxy: Toxiproxy, number: int) -> list[tuple[Way, Proxy]]:
    made = []
    for name, port in zip(WAYS, free_ports(len(WAYS)), strict=True):
        proxy = stack.enter_context(toxiproxy.proxy(f"{name.lower()}-{number + 1}", f"127.0.0.1:{port}"))
        made.append((Way(name, port, int(proxy.address.rpartition(":")[2])), proxy))
    return made


def _system(folder: Path, brokers: KafkaCluster, minio: Minio, protocol: str) -> Cluster:
    """What submitters and readers use, by the direct way; and the topics."""
    copies = len(brokers.nodes)
    node = brokers.nodes[0]
    direct = type(node)(brokers.bootstrap_servers, node.cluster_id, node.control)
    settings = TopicSettings(
        replication_factor=copies,
        min_insync_replicas=max(1, copies - 1),
        work_partitions=WORK_PARTITIONS,
        state_partitions=STATE_PARTITIONS,
        public_partitions=PUBLIC_PARTITIONS,
    )
    creation = topics.create(
        KafkaAdmin(KafkaSettings(bootstrap_servers=brokers.bootstrap_servers)), topics.table(PREFIX, settings)
    )
    assert not creation.findings, creation.findings
    return Cluster(direct, minio, PREFIX, folder, _settings(settings, protocol))


def _settings(of_topics: TopicSettings, protocol: str) -> dict[str, str]:
    """Shorter than production where a run would only wait, and small hand-offs, so that work spreads."""
    return {
        "WHISPERX_KAFKA__GROUP_PROTOCOL": protocol,
        "WHISPERX_KAFKA__SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
        "WHISPERX_KAFKA__TRANSACTION_TIMEOUT_S": "10",
        "WHISPERX_TOPICS__REPLICATION_FACTOR": str(of_topics.replication_factor),
        "WHISPERX_TOPICS__MIN_INSYNC_REPLICAS": str(of_topics.min_insync_replicas),
        "WHISPERX_TOPICS__WORK_PARTITIONS": str(WORK_PARTITIONS),
        "WHISPERX_TOPICS__STATE_PARTITIONS": str(STATE_PARTITIONS),
        "WHISPERX_TOPICS__PUBLIC_PARTITIONS": str(PUBLIC_PARTITIONS),
        "WHISPERX_CHUNKS__LENGTH_S": "10",
        "WHISPERX_CHUNKS__OVERLAP_S": "5",
        "WHISPERX_COORDINATOR__CHUNKS_IN_FLIGHT": "32",
        "WHISPERX_COORDINATOR__RETRY_BASE_S": str(RETRY_BASE_S),
        "WHISPERX_COORDINATOR__RETRY_MAX_S": str(RETRY_MAX_S),
        "WHISPERX_COORDINATOR__EVICT_AFTER_S": str(EVICT_AFTER_S),
        "WHISPERX_WORKER__HANDOFF_S": "20",
        "WHISPERX_WORKER__IN_PLACE_TRIES": "1",
        # Here it is never the work that kills, and chance kills the same work more than three times.
        "WHISPERX_WORKER__FATAL_ATTEMPTS": "25",
    }
