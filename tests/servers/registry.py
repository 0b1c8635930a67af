"""A real schema registry: Apicurio, spoken to through its Confluent-compatible API. It keeps everything in memory."""

from __future__ import annotations

import http
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from tests.servers import versions
from tests.servers.containers import ServerContainer, engine_answers
from tests.servers.control import Control, NotOurs, Ready, StartError, running, unavailable
from tests.servers.packages import REGISTRY
from tests.servers.process import ServerProcess, free_port, port_answers

VARIABLE = "WHISPERX_TEST_REGISTRY"
API_PATH = "/apis/ccompat/v7"
READY_TIMEOUT_S = 10.0
INNER_PORT = 8080
JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@dataclass(frozen=True)
class Registry:
    """A registry that Confluent's clients reach at `url`."""

    url: str
    control: Control = field(repr=False)

    def stop(self) -> None:
        """Make it unreachable. An own registry forgets every schema with that."""
        self.control.stop()

    def start(self) -> None:
        """Bring it back, empty, under the same address."""
        self.control.start()


@contextmanager
def registry_server(folder: Path) -> Iterator[Registry]:
    """The registry whose URL is in the environment, else an own one with its log in `folder`."""
    given = os.environ.get(VARIABLE)
    if given:
        if not _lists_subjects(given):
            raise StartError(f"no schema registry answers at {given}")
        yield Registry(given.rstrip("/"), NotOurs(VARIABLE))
        return
    with own_registry(folder) as registry:
        yield registry


@contextmanager
def own_registry(folder: Path) -> Iterator[Registry]:
    """A fresh registry: a container where Docker answers, else a process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}{API_PATH}"

    def ready() -> bool:
        return port_answers(port) and _lists_subjects(url)

    if engine_answers():
        server: Control = ServerContainer("registry", versions.APICURIO_IMAGE, [], port, INNER_PORT, ready)
    elif REGISTRY.is_installed():
        server = _process(port, folder, ready)
    else:
        unavailable(
            f"no schema registry: set {VARIABLE}, start Docker, or run python -m tests.servers.install registry"
        )
    with running(server):
        yield Registry(url, server)


def _process(port: int, folder: Path, ready: Ready) -> ServerProcess:
    environment = {"QUARKUS_HTTP_HOST": "127.0.0.1", "QUARKUS_HTTP_PORT": str(port)}
    return ServerProcess("registry", ["java", *JVM, "-jar", str(REGISTRY.path)], folder, ready, environment)


def _lists_subjects(url: str) -> bool:
    with urllib3.PoolManager(retries=False, timeout=READY_TIMEOUT_S) as pool:
        try:
            answer = pool.request("GET", f"{url.rstrip('/')}/subjects")
            return answer.status == http.HTTPStatus.OK and isinstance(answer.json(), list)
        except (urllib3.exceptions.HTTPError, ValueError):
            return False
