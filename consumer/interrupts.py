"""Ctrl-C in the first second of a program, while its modules load: nothing has begun, so there is nothing to tell.

Imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within the block Ctrl-C ends the process. As an exception it would be shown as a trace of imports, and some
    libraries take it for a fault of their own. A process that is to ignore Ctrl-C, such as one behind nohup, does."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
