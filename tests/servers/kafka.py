"""A real Apache Kafka of one node: broker and controller in one process."""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers import versions
from tests.servers.containers import ServerContainer, engine_answers
from tests.servers.control import Control, NotOurs, Ready, StartError, running, unavailable
from tests.servers.packages import KAFKA
from tests.servers.process import ServerProcess, free_ports, port_answers, tail

VARIABLE = "WHISPERX_TEST_KAFKA"
ANSWER_TIMEOUT_S = 20.0
FORMAT_TIMEOUT_S = 60.0
LOG4J = Path(__file__).with_name("log4j2.properties")

# A small heap, and the quick compiler: a test's broker lives for minutes.
HEAP = "-Xms128m -Xmx384m"
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@dataclass(frozen=True)
class Kafka:
    """A broker that answers at `bootstrap_servers` with `cluster_id`."""

    bootstrap_servers: str
    cluster_id: str
    control: Control = field(repr=False)

    def kill(self) -> None:
        """SIGKILL: what was not yet on disk of this node is lost, as when a machine is lost."""
        self.control.kill()

    def stop(self) -> None:
        """End in good order."""
        self.control.stop()

    def restart(self) -> None:
        """Start again on the same folder and port, after kill() or stop(), and wait until it answers."""
        self.control.start()

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic, wait until the broker has it, and give back its name."""
        wanted = NewTopic(name, partitions, 1, config=dict(config or {}))
        admin = self.admin()  # kept: a client that is collected takes its answers with it
        admin.create_topics([wanted], operation_timeout=ANSWER_TIMEOUT_S)[name].result(ANSWER_TIMEOUT_S)
        return name

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers})


@contextmanager
def kafka_server(folder: Path) -> Iterator[Kafka]:
    """The broker whose address is in the environment, else an own one with its files in `folder`."""
    given = os.environ.get(VARIABLE)
    if given:
        yield Kafka(given, cluster_id_of(given), NotOurs(VARIABLE))
        return
    with own_kafka(folder) as kafka:
        yield kafka


@contextmanager
def own_kafka(folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[Kafka]:
    """A fresh broker: a container where Docker answers, else a process. `extra` properties win over ours.

    In a container 127.0.0.1 is the container itself: `extra` listeners there are not reachable from here.
    """
    broker_port, controller_port = free_ports(2)
    bootstrap_servers, cluster_id = f"127.0.0.1:{broker_port}", new_cluster_id()
    settings = properties(broker_port, controller_port) | dict(extra or {})

    def ready() -> bool:
        return port_answers(broker_port) and is_cluster(bootstrap_servers, cluster_id)

    if engine_answers():
        server: Control = _container(settings, broker_port, cluster_id, ready)
    elif KAFKA.is_installed():
        server = kafka_process(settings, folder, cluster_id, ready)
    else:
        unavailable(f"no Kafka: set {VARIABLE}, start Docker, or run python -m tests.servers.install kafka")
    with running(server):
        yield Kafka(bootstrap_servers, cluster_id, server)


def properties(broker_port: int, controller_port: int) -> dict[str, str]:
    """The settings of a single node that allows transactions, both group protocols and quick tests."""
    listeners = f"PLAINTEXT://127.0.0.1:{broker_port},CONTROLLER://127.0.0.1:{controller_port}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": listeners,
        "advertised.listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "num.partitions": "1",
        "auto.create.topics.enable": "false",
        # One node holds every internal topic alone.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "transaction.max.timeout.ms": "900000",
        # A test should not wait for what production is patient with.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "6000",
        "group.consumer.min.heartbeat.interval.ms": "500",
        "group.consumer.heartbeat.interval.ms": "500",
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",  # a killed broker is let in again only when its old session is over
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # Small enough to run beside everything else.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": "2097152",
    }


def new_cluster_id() -> str:
    """A random id as Kafka writes them: 16 bytes in URL-safe base64. A leading dash would read as an option."""
    while True:
        candidate = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not candidate.startswith("-"):
            return candidate


def cluster_id_of(bootstrap_servers: str) -> str:
    """Ask the broker for its cluster's id. Raises StartError when nobody answers."""
    # Its complaints while a broker starts are no news; what it ends with is in the error.
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        described = admin.describe_cluster(request_timeout=ANSWER_TIMEOUT_S).result(ANSWER_TIMEOUT_S)
    except (KafkaException, TimeoutError) as exc:
        raise StartError(f"no Kafka answers at {bootstrap_servers}: {exc}") from exc
    return str(described.cluster_id)


def is_cluster(bootstrap_servers: str, formatted: str) -> bool:
    """True when that cluster answers. Raises StartError when none or another one does."""
    answered = cluster_id_of(bootstrap_servers)
    if answered != formatted:
        raise StartError(f"{bootstrap_servers} answers as cluster {answered}, but ours is {formatted}")
    return True


def _as_text(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def kafka_process(
    settings: Mapping[str, str],
    folder: Path,
    cluster_id: str,
    ready: Ready,
    *,
    quorum: Sequence[str] = ("--standalone",),
    heap: str = HEAP,
) -> ServerProcess:
    """A node as a plain process, its folder formatted. `quorum` tells the formatter who the first controllers are."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "server.properties"
    file.write_text(_as_text({**settings, "log.dirs": str(folder / "data")}))
    _format(file, folder / "format.log", cluster_id, quorum)
    return ServerProcess("kafka", _java("kafka.Kafka", str(file), heap=heap), folder, ready)


def _format(file: Path, log: Path, cluster_id: str, quorum: Sequence[str]) -> None:
    command = _java("kafka.tools.StorageTool", "format", *quorum, "-t", cluster_id, "-c", str(file))
    with log.open("wb") as output:
        result = subprocess.run(command, stdout=output, stderr=output, timeout=FORMAT_TIMEOUT_S, check=False)
    if result.returncode:
        raise StartError("kafka could not format its folder", tail(log))


def _java(main_class: str, *arguments: str, heap: str = HEAP) -> list[str]:
    return [
        "java",
        *heap.split(),
        *JVM,
        f"-Dlog4j2.configurationFile={LOG4J}",
        "-cp",
        f"{KAFKA.folder}/libs/*",
        main_class,
        *arguments,
    ]


IMAGE_DATA = "/var/lib/kafka/data"
# Formats once, then serves; after a restart of the container the folder is formatted already.
_IN_CONTAINER = """cd /opt/kafka/bin && file=/opt/kafka/config/test.properties &&
printf '%s' "$TEST_PROPERTIES" > $file &&
./kafka-storage.sh format --standalone --ignore-formatted -t "$TEST_CLUSTER_ID" -c $file &&
exec ./kafka-server-start.sh $file"""


def _container(settings: dict[str, str], port: int, cluster_id: str, ready: Ready) -> ServerContainer:
    # The same port inside and outside: the broker calls itself at its advertised address.
    listeners = settings["listeners"].replace("PLAINTEXT://127.0.0.1", "PLAINTEXT://0.0.0.0")
    inside = {**settings, "listeners": listeners, "log.dirs": IMAGE_DATA}
    environment = {"TEST_PROPERTIES": _as_text(inside), "TEST_CLUSTER_ID": cluster_id, "KAFKA_HEAP_OPTS": HEAP}
    command = ["sh", "-c", _IN_CONTAINER]
    return ServerContainer("kafka", versions.KAFKA_IMAGE, command, port, port, ready, environment)
