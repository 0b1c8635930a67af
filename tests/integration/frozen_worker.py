"""A process with one worker of a `Yard` that stops or kills itself at a chosen moment of a chosen transaction.

    python -m tests.integration.frozen_worker '{"settings": {...}, "topic": ..., "moment": "before_publish", ...}'

Moments: `before_publish` (work is done, nothing is sent), `before_commit` (records and offsets are sent, the
transaction is open), `after_commit` (it is visible, and its process does not know).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import TransactionalOutbox, Undelivered
from consumer.broker import Inbox, Marks
from consumer.exit_codes import exit_code_of
from consumer.health import Health
from consumer.loop import Loop, LoopLimits
from consumer.metrics import Metrics
from consumer.ports import Outgoing
from consumer.settings import KafkaSettings
from tests.integration.yard import GatedWork

log = logging.getLogger(__name__)

MOMENTS = ("before_publish", "before_commit", "after_commit")


class FatefulOutbox(TransactionalOutbox):
    """Sends itself a signal at its moment, once, when a record holds `word`."""

    def __init__(self, settings: KafkaSettings, transactional_id: str, moment: str, number: int, word: bytes) -> None:
        super().__init__(settings, transactional_id)
        self._moment = moment
        self._number = number
        self._word = word
        self._is_fateful = False

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        self._is_fateful = any(self._word in (record.value or b"") for record in records)
        if self._is_fateful:
            self._ready_producer()
        self._reach("before_publish")
        super().publish(records, marks)

    def _commit(self, producer: Producer, delivery_errors: list[Undelivered]) -> None:
        self._reach("before_commit", producer)
        super()._commit(producer, delivery_errors)
        self._reach("after_commit")

    def _reach(self, moment: str, producer: Producer | None = None) -> None:
        if not self._is_fateful or moment != self._moment:
            return
        if producer is not None:
            producer.flush(10)  # the records are in the log; only the end of the transaction is missing
        self._moment = ""
        os.kill(os.getpid(), self._number)


def main(config: dict[str, Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    settings = KafkaSettings.model_validate(config["settings"])
    inbox = KafkaInbox(settings, config["topic"], config["group"])
    number = signal.Signals[config.get("signal", "SIGSTOP")]
    name = config["name"]
    outbox = FatefulOutbox(settings, config["transactional_id"], config["moment"], number, config["word"].encode())
    work = GatedWork(name, config["out"])
    for value in config.get("open", []):
        work.open(value.encode())
    loop = Loop(
        work,
        [inbox],
        outbox,
        LoopLimits(capacity=2.0, grace_s=config.get("grace_s", 5.0)),
        health=Health(60, 60),
        metrics=Metrics(),
        clock=time.monotonic,
    )
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    try:
        loop.run()
    except Exception as error:
        log.exception("Ended")
        return int(exit_code_of(error))
    return 0


if __name__ == "__main__":
    code = main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as the program itself does: work that is left behind must not hold the process
