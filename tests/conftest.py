"""What all tests share: the real servers, and how hard Hypothesis tries."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.fixtures"]

# Before anything loads torch, and for every process that a test starts. They share the cores, and an OpenMP thread that
# waits for one without a core would spin: a test of half a minute burns five of processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.register_profile(
    "desk", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, max_examples=100
)
settings.register_profile("ci", parent=settings.get_profile("desk"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "desk")


def pytest_configure() -> None:
    """What a shell starts in its background ignores Ctrl-C, and so would the processes that tests send it to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
