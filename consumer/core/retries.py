"""When to try again. Jitter is drawn from the name of the work, so that the decision stays a function of values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` counts all tries. The wait doubles from `base_s` up to `max_s`, and loses up to half by jitter."""

    attempts: int
    base_s: float
    max_s: float


def delay_s(attempt: int, policy: RetryPolicy, name: str) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) has failed: between half and all of the doubled wait.

    delay_s(1, RetryPolicy(4, 5, 300), ...) is between 2.5 and 5
    """
    ceiling = min(policy.max_s, policy.base_s * 2.0 ** (attempt - 1))
    return ceiling * (0.5 + 0.5 * _share(f"{name}/{attempt}"))


def next_try_at(now_s: float, attempt: int, policy: RetryPolicy, name: str) -> float | None:
    """The instant of the next try after `attempt` failed, or None when there is none left."""
    if attempt >= policy.attempts:
        return None
    return now_s + delay_s(attempt, policy, name)


def _share(name: str) -> float:
    """A number in [0, 1) that only depends on the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
