"""Roles of the system with the stand-in engine in a process that kills itself at a chosen moment, once.

    python -m tests.integration.fateful_process transcribe after_checkpoint

Moments: `after_checkpoint` (stored, not announced), `before_result_commit` and `after_result_commit` (the transaction
that carries a job's result and the job's state is written but open; is committed, and its process does not know),
`before_cleanup` …: see MOMENTS. An empty moment is a process that lives. Each computed chunk is a line `computed N`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

from confluent_kafka import Producer

from consumer import bootstrap
from consumer.adapters.kafka_outbox import TransactionalOutbox, Undelivered
from consumer.adapters.object_store import S3Store
from consumer.bootstrap import Parts, Role, System
from consumer.broker import Inbox, Marks
from consumer.core.layout import Topic
from consumer.exit_codes import exit_code_of
from consumer.ports import Outgoing, PutOutcome
from consumer.settings import KafkaSettings, Settings
from tests.standin import StandInEngine

MOMENTS = ("", "after_checkpoint", "before_result_commit", "after_result_commit")
BINARY = "application/octet-stream"


def die() -> None:
    """As the kernel does when memory is short."""
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


class FatefulStore(S3Store):
    """Dies when a checkpoint is stored."""

    def put_new(self, bucket: str, key: str, data: bytes, content_type: str = BINARY) -> PutOutcome:
        outcome = super().put_new(bucket, key, data, content_type)
        if "/checkpoints/" in key:
            die()
        return outcome


class FatefulOutbox(TransactionalOutbox):
    """Dies before or after the commit of the transaction that carries a job's result."""

    moment = ""

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        super().__init__(settings, transactional_id)
        self._is_fateful = False

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        self._is_fateful = any(record.topic.endswith(Topic.RESULTS) for record in records)
        super().publish(records, marks)

    def _commit(self, producer: Producer, delivery_errors: list[Undelivered]) -> None:
        if self._is_fateful and self.moment == "before_result_commit":
            producer.flush(10)
            die()
        super()._commit(producer, delivery_errors)
        if self._is_fateful and self.moment == "after_result_commit":
            die()


def main(roles: str, moment: str) -> int:
    assert moment in MOMENTS, moment
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    settings = Settings()
    parts = Parts(settings)
    told = logging.getLogger("engine")
    parts._engine = StandInEngine(during=lambda index: told.info("computed %d", index))  # type: ignore[assignment]
    if moment == "after_checkpoint":
        parts._store = FatefulStore.of(settings.store)
    FatefulOutbox.moment = moment
    bootstrap.TransactionalOutbox = FatefulOutbox  # type: ignore[attr-defined]
    system = System(parts, [Role(name) for name in roles.split(",")])
    signal.signal(signal.SIGTERM, lambda *_: system.stop())
    try:
        system.start()
        system.wait()
    except Exception as error:
        logging.getLogger("process").exception("Ended")
        return int(exit_code_of(error))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2])
    sys.stderr.flush()
    os._exit(code)
