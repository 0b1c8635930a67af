"""What a test may do to a server, and what happens when there is no server to do it to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, Protocol

import pytest

Ready = Callable[[], bool]
"""Whether a server answers by now. Raises StartError when another server answers in its place."""


class StartError(RuntimeError):
    """A server did not start, or another server answered in its place. The message ends with its log."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(f"{reason}\n--- the end of its log ---\n{log}" if log else reason)
        self.reason = reason
        self.log = log


class Control(Protocol):
    """The power over one server. Its folder and its port stay the same until close()."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """End it in good order."""

    def kill(self) -> None:
        """End it at once, as a lost machine would."""

    def close(self) -> None:
        """End it for good and give back what it holds."""


@dataclass(frozen=True)
class NotOurs:
    """Control over a server whose address was given: we did not start it, so we do not stop it."""

    variable: str

    def start(self) -> None:
        self._refuse()

    def stop(self) -> None:
        self._refuse()

    def kill(self) -> None:
        self._refuse()

    def close(self) -> None:
        """Nothing here is ours to give back."""

    def _refuse(self) -> NoReturn:
        unavailable(f"this test stops its server, and the one in {self.variable} is not ours to stop")


@contextmanager
def running(server: Control) -> Iterator[None]:
    """Start a server, and end it whatever happens."""
    try:
        server.start()
        yield
    finally:
        server.close()


def unavailable(reason: str) -> NoReturn:
    """Skip the test at a desk, fail it in CI: there a missing server is a broken build."""
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(f"needed in CI: {reason}", pytrace=False)
    pytest.skip(reason)
