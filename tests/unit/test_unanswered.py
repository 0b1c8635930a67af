"""A call into the Kafka client that never comes back must not take the loop with it."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.adapters import kafka_outbox
from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import TransactionalOutbox
from consumer.broker import Mark, PublishAborted, PublishInDoubt
from consumer.settings import KafkaSettings

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1", commit_timeout_s=1, extra={"log_level": "0"})


class StuckProducer:
    """Answers everything but the offsets: as librdkafka when it does not find the group's coordinator."""

    let_go = threading.Event()
    failure: Exception | None = None
    made = 0

    def __init__(self, *_: object, **__: object) -> None:
        type(self).made += 1

    def init_transactions(self, timeout_s: float) -> None: ...

    def begin_transaction(self) -> None: ...

    def abort_transaction(self, timeout_s: float) -> None: ...

    def send_offsets_to_transaction(self, *_: object) -> None:
        if self.failure is not None:
            raise self.failure
        self.let_go.wait(30)

    def flush(self, timeout_s: float) -> int:
        return 0


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> type[StuckProducer]:
    class Mine(StuckProducer):
        let_go = threading.Event()

    monkeypatch.setattr(kafka_outbox, "Producer", Mine)
    return Mine


def test_a_producer_that_does_not_come_back_is_replaced_and_its_transaction_is_in_doubt(
    stuck: type[StuckProducer],
) -> None:
    inbox, outbox = KafkaInbox(NOBODY, "work", "group"), TransactionalOutbox(NOBODY, "me")
    made = stuck.made
    with pytest.raises(PublishInDoubt, match="did not come back"):
        outbox.publish([], [(inbox, {0: Mark(1)})])
    stuck.failure = KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
    with pytest.raises(PublishAborted):
        outbox.publish([], [(inbox, {0: Mark(1)})])
    assert stuck.made == made + 2
    stuck.let_go.set()
    inbox.close(5.0)


def test_any_failure_of_the_offsets_keeps_the_transaction_from_being_committed(stuck: type[StuckProducer]) -> None:
    """Records without their offset would be published again."""
    inbox, outbox = KafkaInbox(NOBODY, "work", "group"), TransactionalOutbox(NOBODY, "me")
    stuck.failure = TypeError("a position that the client does not take")
    with pytest.raises(TypeError, match="does not take"):
        outbox.publish([], [(inbox, {0: Mark(1)})])
    inbox.close(5.0)
