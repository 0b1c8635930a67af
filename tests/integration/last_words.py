"""What a test says when something did not come: the newest lines of the log, with their fields, and what threads do."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from consumer.logs import Mask, TextLines

KEPT_LINES = 200
OURS = "consumer"


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.setFormatter(TextLines(Mask([])))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def newest_lines() -> Iterator[Sequence[str]]:
    """The newest lines of our own loggers and of the Kafka clients, while the block runs."""
    keeper, ours, clients = _Keeper(), logging.getLogger(OURS), logging.getLogger("librdkafka")
    before = ours.level
    ours.setLevel(logging.INFO)
    for logger in (ours, clients):
        logger.addHandler(keeper)
    try:
        yield keeper.lines
    finally:
        for logger in (ours, clients):
            logger.removeHandler(keeper)
        ours.setLevel(before)


def stacks() -> str:
    """Where each thread of this process is, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame)[-8:])}"
        for number, frame in sys._current_frames().items()
    )
