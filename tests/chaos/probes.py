"""What Kubernetes does with /healthz: a process that is not alive several times in turn is killed and started again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import urllib3

EVERY_S = 5.0
FAILURES = 3
TIMEOUT_S = 2.0


@dataclass
class Probe:
    """Of one process. `is_dead` says that the failures are enough; the rest happens in a thread of its own."""

    port: int
    failures: int = 0
    reason: str = ""
    _ending: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """The process has said that it serves."""
        threading.Thread(target=self._run, name=f"probe-{self.port}", daemon=True).start()

    def stop(self) -> None:
        self._ending.set()

    @property
    def is_dead(self) -> bool:
        return self.failures >= FAILURES

    def _run(self) -> None:
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as pool:
            while not self._ending.wait(EVERY_S):
                self._ask(pool)

    def _ask(self, pool: urllib3.PoolManager) -> None:
        try:
            answer = pool.request("GET", f"http://127.0.0.1:{self.port}/healthz")
        except urllib3.exceptions.HTTPError as error:
            self.failures, self.reason = self.failures + 1, repr(error)
            return
        self.failures = self.failures + 1 if answer.status != 200 else 0
        self.reason = answer.data.decode(errors="replace")[:500]
