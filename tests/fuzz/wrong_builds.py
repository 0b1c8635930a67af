"""Builds that are wrong on purpose: a harness that does not find them out would find nothing else either."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from consumer.audio.decoders import SHARED
from consumer.functions.plan import Plan
from tests.fuzz.case import Case
from tests.fuzz.recordings import ASKED
from tests.wrong_decoders import program_with

if TYPE_CHECKING:
    from tests.fuzz.world import World


class Wrong(StrEnum):
    NOTHING = "nothing"
    DECODER_LOOKS = "decoder-looks"
    """A decoder that asks for a file, and is denied it."""
    DECODER_CALLS = "decoder-calls"
    """A decoder without walls that gets itself a socket."""
    PLANNER_WRITES = "planner-writes"
    """A planner that keeps the recording in a temporary file."""
    RAISES = "raises"
    """An error without a code."""
    DIES = "dies"
    """A crash in the worker's own process."""
    HANGS = "hangs"
    """A planner that does not come back."""
    GROWS = "grows"
    """A planner that takes as much memory as a recording says."""


LOOKS: Final = "open('/etc/hostname')"
CALLS: Final = "socket.socket().close()"
_PATCH: Final = """
import socket
from consumer.audio import decoder_process
decode = decoder_process.decode
def wrong(link, order):
    try:
        {deed}
    except OSError:
        pass
    decode(link, order)
decoder_process.decode = wrong
"""
_UNCONFINED: Final = "decoder_process.confine = lambda *_: ()\n"


@contextmanager
def build(wrong: Wrong, world: World) -> Iterator[None]:
    """That build, while the block runs."""
    if wrong is Wrong.NOTHING:
        yield
    elif wrong in (Wrong.DECODER_LOOKS, Wrong.DECODER_CALLS):
        deed = _PATCH.format(deed=LOOKS if wrong is Wrong.DECODER_LOOKS else CALLS)
        patch = deed + (_UNCONFINED if wrong is Wrong.DECODER_CALLS else "")
        with mock.patch.object(SHARED, "_program", program_with(patch)):
            SHARED.close()  # the next order starts another server
            world.outcome_of(Case(("warm-up",), b"fLaC", ASKED))
            yield
    else:
        planned = Plan.__call__

        def wrongly(self: Plan, *arguments: Any) -> Any:
            _DEEDS[wrong]()
            return planned(self, *arguments)

        with mock.patch.object(Plan, "__call__", wrongly):
            yield


def _write() -> None:
    with open("/tmp/recording-that-is-kept", "wb"):  # noqa: S108  (never written: the trace is what counts)
        os.unlink("/tmp/recording-that-is-kept")  # noqa: S108


def _raise() -> None:
    raise LookupError("a bug")


def _grow() -> None:
    assert any(b"x" * (1 << 30))


_DEEDS: Final[dict[Wrong, Callable[[], object]]] = {
    Wrong.PLANNER_WRITES: _write,
    Wrong.RAISES: _raise,
    Wrong.DIES: lambda: os.kill(os.getpid(), signal.SIGSEGV),
    Wrong.HANGS: lambda: time.sleep(3_600),
    Wrong.GROWS: _grow,
}
