"""Redrive and discard on a real Kafka: whatever ends the tool, each original is sent again once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from consumer.adapters.kafka_client import producer_config
from consumer.core.dead_letters import How, dead_letter, redriven, resolution
from consumer.core.layout import Topic
from consumer.events import AuditRecorded, Problem
from consumer.ports import Headers, Outgoing, Received
from consumer.settings import KafkaSettings
from consumer.wire import Codec
from producer_tools.cli import main
from producer_tools.exit_codes import Exit
from producer_tools.tail import Tail
from tests.servers.kafka import Kafka
from tests.unit.producer_tools.installation import NOW

pytestmark = pytest.mark.servers

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 120
WAITS_S = 8
"""Long enough for a tool that does not wait to be done."""
HEADERS: Headers = (("a", b"1"), ("a", b"2"), ("dead-letter-topic", b"the sender's"), ("empty", b""))
ALL = ("--since", "1970-01-01", "--by", "ann")


class Letters:
    """An installation of its own with dead letters, and a tool that settles them."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    @property
    def environment(self) -> dict[str, str]:
        return {
            "WHISPERX_KAFKA__BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "WHISPERX_KAFKA__TOPIC_PREFIX": self.settings.topic_prefix,
            "WHISPERX_KAFKA__GROUP_PREFIX": self.settings.group_prefix,
        }

    def topic(self, topic: Topic) -> str:
        return self.settings.topic_prefix + topic

    def park(self, *values: bytes, code: str = "WORKER_KILLED") -> None:
        """One letter for each original; the first has no key."""
        producer = Producer(producer_config(self.settings))
        for number, value in enumerate(values):
            key = b"job-%d" % number if number else None
            original = Received(self.topic(Topic.JOBS), 0, number, key, value, HEADERS, 7)
            produce(producer, dead_letter(self.topic(Topic.DEAD_LETTERS), original, Problem(code=code, message="why")))
        assert producer.flush(BOUND_S) == 0

    def records(self, topic: Topic) -> list[Received]:
        """What a reader of committed records sees once everything is decided."""
        with Tail.since(self.settings, [self.topic(topic)], 0) as tail:
            return list(tail.await_undecided().read_to_end(BOUND_S))

    def sent_again(self) -> Counter[bytes]:
        return Counter(record.value or b"" for record in self.records(Topic.JOBS))

    def producer(self, transactional_id: str) -> Producer:
        """In an open transaction."""
        producer = Producer({**producer_config(self.settings), "transactional.id": transactional_id})
        producer.init_transactions(BOUND_S)
        producer.begin_transaction()
        return producer

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        environment = {**os.environ, **self.environment}
        command = [sys.executable, "-m", "producer_tools.cli", "dead-letters", *arguments]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def call(self, *arguments: str) -> tuple[int, list[str], str]:
        """Exit code, first words of the lines of stdout, and stderr."""
        with self.started(*arguments) as process:
            out, err = process.communicate(timeout=BOUND_S)
        return process.returncode, [line.split("\t")[0] for line in out.splitlines()], err


def produce(producer: Producer, record: Outgoing) -> None:
    anywhere = -1
    partition = anywhere if record.partition is None else record.partition
    producer.produce(record.topic, record.value, record.key, partition, headers=list(record.headers))


@pytest.fixture
def letters(kafka: Kafka, topic_prefix: str) -> Letters:
    for topic in (Topic.JOBS, Topic.DEAD_LETTERS, Topic.AUDIT):
        kafka.create_topic(topic_prefix + topic, partitions=2)
    return Letters(
        KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix, group_prefix=topic_prefix)
    )


def test_a_dry_run_changes_nothing_and_only_the_chosen_go_back(letters: Letters) -> None:
    letters.park(b"a", b"b")
    letters.park(b"c", code="EVENT_UNREADABLE")
    before = len(letters.records(Topic.DEAD_LETTERS))
    code, verbs, err = letters.call("redrive", *ALL)
    assert (code, Counter(verbs)) == (Exit.USAGE, {"would redrive": 2, "refused": 1}), err
    assert letters.sent_again() == {}
    assert len(letters.records(Topic.DEAD_LETTERS)) == before

    code, verbs, err = letters.call("redrive", "--job", "job-1", "--execute")
    assert (code, verbs) == (Exit.OK, ["redriven"]), err
    (record,) = letters.records(Topic.JOBS)
    assert (record.key, record.value, record.headers[: len(HEADERS)]) == (b"job-1", b"b", HEADERS)


def test_what_is_discarded_is_hidden_and_never_sent(letters: Letters) -> None:
    letters.park(b"a", b"b")
    code, verbs, err = letters.call("discard", *ALL, "--execute")
    assert (code, verbs) == (Exit.OK, ["discarded"] * 2), err
    assert letters.call("list")[1] == []
    assert len(letters.call("list", "--all")[1]) == 2
    assert letters.call("redrive", *ALL, "--execute")[:2] == (Exit.OK, [])
    assert letters.sent_again() == {}
    codec = Codec(None, "/tests")
    trail = [codec.decode(record, (AuditRecorded,)) for record in letters.records(Topic.AUDIT)]
    assert [(line.actor, line.action, line.outcome) for line in trail] == [("ann", "letter_discarded", "ok")] * 2


@pytest.mark.parametrize("end", ["killed", "ctrl-c", "another operator"])
def test_whatever_ends_it_between_two_letters_the_rest_is_done_once(letters: Letters, end: str) -> None:
    values = [b"a", b"b", b"c"]
    letters.park(*values)
    with letters.started("redrive", *ALL, "--execute", "--rate", "0.1") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("redriven\t")
        if end == "another operator":
            code, verbs, err = letters.call("redrive", *ALL, "--execute")
            assert (code, verbs) == (Exit.OK, ["redriven"] * 2), err
        else:
            process.send_signal(signal.SIGKILL if end == "killed" else signal.SIGINT)
        _, said = process.communicate(timeout=BOUND_S)
    expected = {"killed": -signal.SIGKILL, "ctrl-c": Exit.INTERRUPTED, "another operator": Exit.OVERTAKEN}
    assert process.returncode == expected[end], said
    code, verbs, err = letters.call("redrive", *ALL, "--execute")
    assert (code, verbs) == (Exit.OK, [] if end == "another operator" else ["redriven"] * 2), err
    assert letters.sent_again() == Counter(values)
    assert letters.call("list")[1] == []


@pytest.mark.parametrize("committed", [True, False])
def test_killed_within_a_letter_it_is_sent_once_all_the_same(letters: Letters, committed: bool) -> None:
    """What a process leaves that dies before, or right behind, the end of its transaction."""
    letters.park(b"a")
    (letter,) = letters.records(Topic.DEAD_LETTERS)
    dying = letters.producer(f"{letters.settings.group_prefix}dead-letters")
    for record in (redriven(letter), resolution(letter, How.REDRIVEN, "ann", NOW)):
        produce(dying, record)
    assert dying.flush(BOUND_S) == 0
    if committed:
        dying.commit_transaction(BOUND_S)
    code, verbs, err = letters.call("redrive", *ALL, "--execute")
    assert (code, verbs) == (Exit.OK, [] if committed else ["redriven"]), err
    assert letters.sent_again() == {b"a": 1}


def test_a_resolution_behind_an_open_transaction_of_somebody_else_is_waited_for(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is decided, a reader of committed records does not see that the letter is settled."""
    letters.park(b"a")
    (letter,) = letters.records(Topic.DEAD_LETTERS)
    worker = letters.producer(f"{letters.settings.group_prefix}worker")
    worker.produce(letter.topic, key=b"x", value=b"a worker hangs here", partition=letter.partition)
    assert worker.flush(BOUND_S) == 0
    operator = letters.producer(f"{letters.settings.group_prefix}dead-letters")
    for record in (redriven(letter), resolution(letter, How.REDRIVEN, "ann", NOW)):
        produce(operator, record)
    operator.commit_transaction(BOUND_S)
    for name, value in letters.environment.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor() as pool:
        tool = pool.submit(main, ["dead-letters", "redrive", *ALL, "--execute"])
        with pytest.raises(TimeoutError):
            tool.result(WAITS_S)
        worker.abort_transaction(BOUND_S)
        assert tool.result(BOUND_S) == Exit.OK
    assert letters.sent_again() == {b"a": 1}
