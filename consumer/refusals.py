"""The limit that stops a worker which refuses nearly everything.

A sender's broken event is parked and forgotten. When nearly every event is refused, the fault is rather ours: a new
schema that this version cannot read, a wrong registry. Then parking on would empty the topic into the dead letters,
so the worker stops, says that it is not ready, and tries one event now and then until they are readable again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from consumer.health import Health

log = logging.getLogger(__name__)

NEARLY_ALL = 0.95


class RefusalLimit:
    """One for each role, used by one worker thread.

    `window` is how many events are looked back on (0: no limit), `pause_s` the time between two tries once the limit
    is reached.
    """

    def __init__(self, role: str, health: Health, window: int, pause_s: float) -> None:
        self._condition = f"{role} events readable"
        self._health = health
        self._seen: deque[bool] = deque(maxlen=window)
        self._pause_s = pause_s

    def accepted(self) -> None:
        """An event could be read. One such among those looked back on does not lift the limit, a few do."""
        self._seen.append(False)
        if not self._is_reached():
            self._health.set_ready(self._condition, True)

    def refused(self, code: str, wait: Callable[[float], None]) -> None:
        """An event is about to be parked: waits first when nearly all before it were. Raises what `wait` raises."""
        if self._is_reached():
            self._stop(code)
            wait(self._pause_s)
        self._seen.append(True)

    def _is_reached(self) -> bool:
        full = bool(self._seen.maxlen) and len(self._seen) == self._seen.maxlen
        return full and sum(self._seen) >= NEARLY_ALL * len(self._seen)

    def _stop(self, code: str) -> None:
        refused, of = sum(self._seen), len(self._seen)
        reason = f"{refused} of the last {of} events were refused; look at the dead letters and at the last deployment"
        self._health.set_ready(self._condition, False, reason)
        fields = {"refused": refused, "of": of, "code": code, "pause_s": self._pause_s}
        log.error("Nearly every event is refused, work is stopped", extra=fields)
