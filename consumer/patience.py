"""Trying again in place: a few times for what may pass, and without end while a server is away.

While a server is away no attempt is burnt and readiness is false; the loop polls on, so the partition stays ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from consumer.core.retries import RetryPolicy, delay_s
from consumer.errors import DependencyAway, StoreUnavailable, Unavailable
from consumer.health import Health

log = logging.getLogger(__name__)

T = TypeVar("T")

ALONE_S = 120.0
"""After so long it is asked whether the store is away for everybody, or only for this one object."""
ALONE_TRIES = 3
"""The store must say so after this many failures in a row: once, it may have come back since the failure."""
LONGEST_EXPONENT = 16
LONGEST_AWAY_PAUSE_S = 5.0
"""While a server is away, the longest pause between two tries: so soon after its return the work goes on."""


class Patience:
    """One for each role. `store_answers` says whether the store works for other objects."""

    def __init__(self, role: str, policy: RetryPolicy, health: Health, store_answers: Callable[[], bool]) -> None:
        self._condition = f"{role} dependencies"
        self._policy = policy
        self._while_away = replace(policy, max_s=min(policy.max_s, LONGEST_AWAY_PAUSE_S))
        self._health = health
        self._store_answers = store_answers

    def __call__(self, act: Callable[[], T], wait: Callable[[float], None], name: str) -> T:
        """What `act` returns in the end. Raises what it raises for good, and what `wait` raises (Stopped)."""
        waited_s, alone = 0.0, 0
        tries = {True: 0, False: 0}  # counted apart: a server that was away takes no try from what fails by itself
        try:
            while True:
                try:
                    return act()
                except Unavailable as error:
                    is_away = isinstance(error, DependencyAway)
                    tries[is_away] += 1
                    alone = alone + 1 if self._is_alone(error, waited_s) else 0
                    if alone >= ALONE_TRIES or (not is_away and tries[False] >= self._policy.attempts):
                        raise
                    waited_s += self._pause(error, tries[is_away], wait, name)
        finally:
            self._health.set_ready(self._condition, True)

    def _is_alone(self, error: Unavailable, waited_s: float) -> bool:
        """Whether the store fails for this work and serves others."""
        return isinstance(error, StoreUnavailable) and waited_s >= ALONE_S and self._store_answers()

    def _pause(self, error: Unavailable, tries: int, wait: Callable[[float], None], name: str) -> float:
        policy = self._while_away if isinstance(error, DependencyAway) else self._policy
        pause_s = delay_s(min(tries, LONGEST_EXPONENT), policy, name)
        if isinstance(error, DependencyAway):
            self._health.set_ready(self._condition, False, error.message)
        log.info("Trying again in place", extra={"code": error.code, "reason": error.message, "wait_s": pause_s})
        wait(pause_s)
        return pause_s
