"""Partitions that a group has given us and whose position it has not told yet.

We ask for positions ourselves, because librdkafka (2.16, `rdkafka_assignment.c`) loses a partition whose question it
has to give up: without the right on the group, or when an answer fails while further partitions come, that one and
all later ones stay assigned and give no record until somebody takes them away. And where a transaction holds a
position back while further partitions come, it begins at the start of the topic.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

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

    def told(self) -> dict[int, Mark]:
        """What is known by now; asks where nothing is on its way. Raises what the question ended with."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._question is None:
            if self._held and time.monotonic() >= self._ask_at:
                self._question = _Question(dict(self._held), _in_a_thread(self._ask, set(self._held)))
            return {}
        if not self._question.answer.done():
            return {}
        answered, self._question = self._question, None
        self._ask_at = time.monotonic() + ASK_AGAIN_S
        return {p: mark for p, mark in answered.answer.result().items() if self._held.get(p) is answered.asked[p]}


@dataclass(frozen=True, slots=True)
class _Question:
    """One question on its way."""

    asked: dict[int, object]
    answer: Future[dict[int, Mark]]


def _in_a_thread(ask: Callable[[set[int]], dict[int, Mark]], partitions: set[int]) -> Future[dict[int, Mark]]:
    """One that nobody waits for at the end of the process, as for those of an executor."""
    answer: Future[dict[int, Mark]] = Future()

    def run() -> None:
        try:
            answer.set_result(ask(partitions))
        except BaseException as error:  # noqa: BLE001  (raised where the answer is taken)
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="positions").start()
    return answer
