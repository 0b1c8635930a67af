"""A server as a plain process: own process group, watched until it is ready, stopped by its own id."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.servers.control import Ready, StartError

GUARD = Path(__file__).with_name("guard.py")
LOG_TAIL_BYTES = 4000
READY_POLL_S = 0.05
STOP_GRACE_S = 15.0

# Linux hands ports from 32768 up to outgoing connections (ip_local_port_range). A client that keeps calling
# a stopped server there can be given the server's own port, connect to itself, and hold the port.
_PORTS = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback address that the operating system says are free."""
    candidates = random.sample(_PORTS, k=len(_PORTS))
    return list(itertools.islice(filter(_is_free, candidates), count))


def free_port() -> int:
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_answers(port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(1)
        return caller.connect_ex(("127.0.0.1", port)) == 0


def tail(log: Path) -> str:
    """The end of a log, for the message of a failed start."""
    if not log.exists():
        return "(no log)"
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


@dataclass
class ServerProcess:
    """A command that runs until it is stopped. `ready` says whether the server answers; start() waits for it.

    Everything the server prints is kept in `folder`/`name`.log, over restarts too.
    """

    name: str
    command: Sequence[str]
    folder: Path
    ready: Ready
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0
    _guard: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Process id of the server itself. Raises RuntimeError when it does not run."""
        if self._guard is None:
            raise RuntimeError(f"{self.name} is not running")
        return psutil.Process(self._guard.pid).children()[0].pid

    def start(self) -> None:
        """Start and wait until it is ready. Raises StartError, with the end of the log."""
        if self._guard is not None:
            raise RuntimeError(f"{self.name} is already running")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._spawn()
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait; kill it when it does not within STOP_GRACE_S."""
        if self._guard is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(STOP_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a lost machine would."""
        if self._guard is None:
            return
        held = self._descendants()
        for process in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # The guard ends when it has seen its server end. Only then are the port and the folder free.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(STOP_GRACE_S if held else 0)
        self._signal(signal.SIGKILL)
        self._guard.communicate()
        self._guard = None

    def close(self) -> None:
        self.stop()

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**_plain_environment(), **self.environment},
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.timeout_s
        while not self.ready():
            if self._ended_within(READY_POLL_S):
                raise StartError(f"{self.name} ended before it was ready", tail(self.log))
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready in {self.timeout_s:.0f} s", tail(self.log))

    def _ended_within(self, seconds: float) -> bool:
        assert self._guard is not None
        try:
            self._guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _descendants(self) -> list[psutil.Process]:
        try:
            return [] if self._guard is None else psutil.Process(self._guard.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: signal.Signals) -> None:
        # The guard's id is also its group's id. Until it is waited for, the id cannot belong to another process.
        if self._guard is not None and self._guard.poll() is None:
            os.killpg(self._guard.pid, number)


def _plain_environment() -> dict[str, str]:
    """Our environment without settings meant for somebody's own servers."""
    foreign = ("MINIO_", "KAFKA_", "QUARKUS_", "REGISTRY_", "JAVA_TOOL_OPTIONS")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
