"""What a probe, a scraper and a person may ask of a running process over HTTP.

/healthz   is every loop alive? 503 until each has polled once, so it also serves as the startup probe
/readyz    is it taking work?
/metrics   the Prometheus text format
/debug/consumer   assignment, paused partitions and why, work in flight: whatever the caller's function returns
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)

SOCKET_TIMEOUT_S = 10.0
"""A client that sends nothing for so long loses its connection."""
DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a probe: fine, or not and why."""

    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.reasons


@dataclass(slots=True)
class _Loop:
    polled_s: float | None = None
    step_s: float | None = None


@dataclass(slots=True)
class Health:
    """Facts that the loops set and the probes read, from different threads.

    A loop that has not polled for `poll_limit_s`, or whose work has given no sign of life for `step_limit_s`, is stuck.
    `clock` counts seconds and never goes back.
    """

    poll_limit_s: float
    step_limit_s: float
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _loops: dict[str, _Loop] = field(default_factory=dict)
    _unready: dict[str, str] = field(default_factory=dict)

    def expect(self, loops: Iterable[str], conditions: Iterable[str] = ()) -> None:
        """Name the loops that must poll, and the conditions that must be set ready before work is taken."""
        with self._lock:
            for name in loops:
                self._loops.setdefault(name, _Loop())
            for name in conditions:
                self._unready.setdefault(name, "not yet")

    def poll_seen(self, loop: str = "loop") -> None:
        """The loop polled Kafka."""
        with self._lock:
            self._loops.setdefault(loop, _Loop()).polled_s = self.clock()

    def step_started(self, loop: str = "loop") -> None:
        """Work began, or gave a sign of life (between two batches, say)."""
        with self._lock:
            self._loops.setdefault(loop, _Loop()).step_s = self.clock()

    def step_finished(self, loop: str = "loop") -> None:
        """Nothing runs now."""
        with self._lock:
            self._loops.setdefault(loop, _Loop()).step_s = None

    def loop_ended(self, loop: str = "loop") -> None:
        """The loop ended as it should; its silence means nothing from now on."""
        with self._lock:
            self._loops.pop(loop, None)

    def set_ready(self, condition: str, ready: bool, reason: str = "") -> None:
        """A condition for taking work holds, or does not, and why: models, assignment, store, broker, ..."""
        with self._lock:
            if ready:
                self._unready.pop(condition, None)
            else:
                self._unready[condition] = reason or "not ready"

    def drain(self) -> None:
        """No more work is taken; what runs goes on. Readiness ends, liveness does not."""
        self.set_ready(DRAINING, False, "finishes what it took, then stops")

    def poll_age_s(self, loop: str = "loop") -> float:
        """Seconds since the last poll; 0 before the first."""
        return self._age(lambda: self._loops.get(loop, _Loop()).polled_s)

    def step_age_s(self, loop: str = "loop") -> float:
        """Seconds since the last sign of life of the running work; 0 when nothing runs."""
        return self._age(lambda: self._loops.get(loop, _Loop()).step_s)

    def live(self) -> Verdict:
        with self._lock:
            now_s = self.clock()
            return Verdict(tuple(why for name, loop in self._loops.items() for why in self._stuck(name, loop, now_s)))

    def ready(self) -> Verdict:
        with self._lock:
            unready = tuple(f"{condition}: {reason}" for condition, reason in self._unready.items())
        return Verdict((*unready, *self.live().reasons))

    def _stuck(self, name: str, loop: _Loop, now_s: float) -> list[str]:
        if loop.polled_s is None:
            return [f"{name}: has not polled yet"]
        reasons = []
        if (age_s := now_s - loop.polled_s) > self.poll_limit_s:
            reasons.append(f"{name}: last polled {age_s:.0f} s ago, the limit is {self.poll_limit_s:.0f} s")
        if loop.step_s is not None and (age_s := now_s - loop.step_s) > self.step_limit_s:
            reasons.append(f"{name}: no sign of work for {age_s:.0f} s, the limit is {self.step_limit_s:.0f} s")
        return reasons

    def _age(self, since: Callable[[], float | None]) -> float:
        with self._lock:
            at_s = since()
            return 0.0 if at_s is None else max(self.clock() - at_s, 0.0)


class HealthServer:
    """The HTTP server of a process, in threads of its own, so that it answers while the loop works."""

    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        registry: CollectorRegistry,
        describe: Callable[[], object] = dict,
    ) -> None:
        """Binds at once; `port` 0 takes a free one. Raises OSError when the address is taken."""
        pages = _Pages(health, registry, describe)
        handler = type("Handler", (_Handler,), {"pages": pages})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()
        log.info("Serving health and metrics", extra={"port": self.port})

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


Page = tuple[HTTPStatus, str, bytes]


@dataclass(frozen=True, slots=True)
class _Pages:
    """What each path answers."""

    health: Health
    registry: CollectorRegistry
    describe: Callable[[], object]

    def get(self, path: str) -> Page:
        match path:
            case "/healthz":
                return _verdict(self.health.live())
            case "/readyz":
                return _verdict(self.health.ready())
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.registry)
            case "/debug/consumer":
                return _json(HTTPStatus.OK, self.describe())
            case _:
                return _json(HTTPStatus.NOT_FOUND, {"paths": ["/healthz", "/readyz", "/metrics", "/debug/consumer"]})


class _Handler(BaseHTTPRequestHandler):
    pages: _Pages
    timeout = SOCKET_TIMEOUT_S
    server_version = "whisperx-consumer"
    sys_version = ""

    def do_GET(self) -> None:  # the name is http.server's
        status, content_type, body = self.pages.get(urlsplit(self.path).path)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, message: str, *arguments: object) -> None:
        log.debug("Answered a request", extra={"request": message % arguments})


def _verdict(verdict: Verdict) -> Page:
    status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return _json(status, {"ok": verdict.ok, "reasons": list(verdict.reasons)})


def _json(status: HTTPStatus, content: object) -> Page:
    return status, "application/json", json.dumps(content, default=str).encode() + b"\n"
