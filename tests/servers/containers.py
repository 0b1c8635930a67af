"""A server as a container on this machine's Docker engine, through testcontainers."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from tests.servers.control import Ready, StartError

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

VARIABLE = "WHISPERX_TEST_DOCKER"
ENGINE_TIMEOUT_S = 10
STOP_GRACE_S = 15
READY_POLL_S = 0.2


@functools.cache
def engine_answers() -> bool:
    """Whether `docker info` succeeds: the program alone, without an engine, does not count."""
    if os.environ.get(VARIABLE, "").lower() == "no":
        return False
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=ENGINE_TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


@dataclass
class ServerContainer:
    """An image that runs until it is stopped, with one port published on the loopback address.

    The port on this machine is fixed, so that a server comes back under its old address. Its data is in the
    container, which stays until close(); testcontainers removes it when the tests are interrupted.
    """

    name: str
    image: str
    command: Sequence[str]
    port: int
    """On this machine."""
    inner_port: int
    """In the container."""
    ready: Ready
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0
    _container: DockerContainer | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Start and wait until it is ready. Raises StartError, with the end of the log."""
        if self._container is None:
            self._container = self._create()
            self._container.start()
        else:
            self._engine_side().start()
        self._wait_until_ready()

    def stop(self) -> None:
        self._engine_side().stop(timeout=STOP_GRACE_S)

    def kill(self) -> None:
        self._engine_side().kill()

    def close(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None

    def _create(self) -> DockerContainer:
        # Imported here: a desk without Docker should not pay for it.
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(self.image, env=dict(self.environment))
        if self.command:
            container.with_command(list(self.command))
        # The engine takes an address with the port; the library's annotation knows only the port.
        ports = cast("dict[str, Any]", container.ports)
        ports[f"{self.inner_port}/tcp"] = ("127.0.0.1", self.port)
        return container

    def _engine_side(self) -> Any:
        if self._container is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._container.get_wrapped_container()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not self.ready():
            self._engine_side().reload()
            if self._engine_side().status in {"exited", "dead"}:
                raise StartError(f"{self.name} ended before it was ready", self._log())
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready in {self.timeout_s:.0f} s", self._log())
            time.sleep(READY_POLL_S)

    def _log(self) -> str:
        return cast("bytes", self._engine_side().logs(tail=60)).decode(errors="replace")
