"""Partitions that a group has given us and whose position it has not told yet.

We ask for positions ourselves, because librdkafka (2.16, `rdkafka_assignment.c`) loses a partition whose question it
has to give up: without the right on the group, or when an answer fails while further partitions come, that one and
all later ones stay assigned and give no record until somebody takes them away. And where a transaction holds a
position back while further partitions come, it begins at the start of the topic.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from consumer.broker import Mark
from consumer.errors import BrokerUnavailable

ASK_AGAIN_S = 1.0
"""Between the end of a question and the next."""


class Unplaced:
    """Asks for the positions in a thread of its own: the loop has to go on meanwhile.

    `ask` is called there: it gives the marks of these partitions, or raises BrokerUnavailable after a bounded time.
    """

    def __init__(self, ask: Callable[[set[int]], dict[int, Mark]]) -> None:
        self._ask = ask
        self._held: dict[int, object] = {}
        """Each with a token of its own: an answer counts for the ownership that it was asked for, not for a later."""
        self._question: _Question | None = None
        self._failure: BrokerUnavailable | None = None
        self._ask_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, partitions: set[int], why: BrokerUnavailable) -> None:
        """`why` is what `told` raises first: a first question has failed."""
        self._held.update({partition: object() for partition in partitions})
        self._failure = why

    def drop(self, partitions: set[int]) -> None:
        """They are somebody else's, or placed."""
        for partition in partitions:
            self._held.pop(partition, None)

    def told(self) -> Mapping[int, Mark]:
        """What is known by now; asks where nothing is on its way. Raises what the question ended with."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._question is None:
            if self._held and time.monotonic() >= self._ask_at:
                self._question = _Question(self._ask, dict(self._held))
            return {}
        if not self._question.is_answered:
            return {}
        answered, self._question = self._question, None
        self._ask_at = time.monotonic() + ASK_AGAIN_S
        return {p: mark for p, mark in answered.marks().items() if self._held.get(p) is answered.asked[p]}


class _Question:
    """One question on its way."""

    def __init__(self, ask: Callable[[set[int]], dict[int, Mark]], asked: dict[int, object]) -> None:
        self.asked = asked
        self._ask = ask
        self._marks: dict[int, Mark] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="positions")
        self._thread.start()

    @property
    def is_answered(self) -> bool:
        return not self._thread.is_alive()

    def marks(self) -> dict[int, Mark]:
        if self._error is not None:
            raise self._error
        return self._marks

    def _run(self) -> None:
        try:
            self._marks = self._ask(set(self.asked))
        except BaseException as error:  # noqa: BLE001  (raised where the answer is taken)
            self._error = error
