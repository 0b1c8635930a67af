"""A proxy that spoils connections: slow, cut, or silent. For tests of what a bad network does to us."""

from __future__ import annotations

import http
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

from tests.servers.control import running, unavailable
from tests.servers.packages import TOXIPROXY
from tests.servers.process import ServerProcess, free_port, port_answers

ANSWER_TIMEOUT_S = 30.0
"""A toxic waits for data under way, also to a client that is stopped and does not read."""
HEAL_TIMEOUT_S, HEAL_PAUSE_S = 30.0, 0.5


class NoSuchToxic(RuntimeError):
    """It is gone, or never was."""


@dataclass(frozen=True)
class Toxiproxy:
    """The proxy's own API, at `url`."""

    url: str

    @contextmanager
    def proxy(self, name: str, upstream: str) -> Iterator[Proxy]:
        """Listen at a new address and pass everything to `upstream`, a host with its port."""
        proxy = Proxy(self, name, f"127.0.0.1:{free_port()}")
        self.call("POST", "/proxies", {"name": name, "listen": proxy.address, "upstream": upstream})
        try:
            yield proxy
        finally:
            self.call("DELETE", f"/proxies/{name}")

    def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> None:
        """One request to the API. Raises RuntimeError when it is refused, NoSuchToxic when there is nothing like it."""
        with urllib3.PoolManager(retries=False, timeout=ANSWER_TIMEOUT_S) as pool:
            answer = pool.request(method, f"{self.url}{path}", json=body)
        if answer.status == http.HTTPStatus.NOT_FOUND:
            raise NoSuchToxic(f"Toxiproxy knows nothing at {path}")
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"Toxiproxy refused {method} {path}: {answer.data.decode(errors='replace')}")


@dataclass(frozen=True)
class Proxy:
    """One spoilt way to one server. Clients connect to `address`."""

    owner: Toxiproxy
    name: str
    address: str

    def cut(self) -> None:
        """Refuse new connections and end the open ones."""
        self.owner.call("POST", f"/proxies/{self.name}", {"enabled": False})

    def mend(self) -> None:
        """Take connections again."""
        self.owner.call("POST", f"/proxies/{self.name}", {"enabled": True})

    def slow(self, latency_s: float) -> None:
        """Hold back every answer."""
        self.spoil("latency", {"latency": round(latency_s * 1000)})

    def spoil(self, kind: str, attributes: Mapping[str, object], stream: str = "downstream") -> None:
        """Add a toxic by Toxiproxy's own words: latency, bandwidth, timeout, reset_peer, limit_data, ...

        `stream` is downstream for what the server says, upstream for what the clients say.
        """
        toxic = {"name": kind, "type": kind, "stream": stream, "attributes": dict(attributes)}
        self.owner.call("POST", f"/proxies/{self.name}/toxics", toxic)

    def heal(self, kind: str) -> None:
        """Take a toxic away, also when the proxy answers only that it needs more time for that."""
        deadline = time.monotonic() + HEAL_TIMEOUT_S
        while True:
            try:
                self.owner.call("DELETE", f"/proxies/{self.name}/toxics/{kind}")
            except NoSuchToxic:
                return
            except (RuntimeError, urllib3.exceptions.HTTPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(HEAL_PAUSE_S)
            else:
                return


@contextmanager
def toxiproxy_server(folder: Path) -> Iterator[Toxiproxy]:
    """A fresh proxy as a plain process: its listeners must be on this machine, so there is no container of it."""
    if not TOXIPROXY.is_installed():
        unavailable("no Toxiproxy: run python -m tests.servers.install toxiproxy")
    port = free_port()
    command = [str(TOXIPROXY.path), "-host", "127.0.0.1", "-port", str(port)]
    with running(ServerProcess("toxiproxy", command, folder, lambda: port_answers(port), {"LOG_LEVEL": "info"})):
        yield Toxiproxy(f"http://127.0.0.1:{port}")
