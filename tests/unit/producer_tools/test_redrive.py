"""Redrive and discard as they are called, on the embedded broker; what needs real transactions is tested elsewhere."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pytest

from consumer.broker import Inbox, Marks, Outbox, PublishAborted, PublishInDoubt
from consumer.core.dead_letters import dead_letter
from consumer.core.layout import Topic
from consumer.errors import BrokerUnavailable, ConflictingJob, Fenced, InvalidEvent, UnreadableEvent
from consumer.events import Problem
from consumer.ports import Outgoing, Received
from producer_tools.cli import main
from producer_tools.connection import Connection
from producer_tools.exit_codes import Exit
from producer_tools.redrive import Throttle, ctrl_c_waits
from tests.unit.producer_tools.installation import Installation, job_name

Capture = pytest.CaptureFixture[str]
HEADERS = (("traceparent", b"00-1"), ("dead-letter-code", b"the sender's"))


@pytest.fixture
def code() -> str:
    """A code of its own for each test, because they share a broker."""
    return job_name().upper()


def park(installation: Installation, code: str, *keys: str, topic: str = "tools.jobs") -> None:
    for key in keys:
        original = Received(topic, 1, 42, key.encode(), f"value of {key}".encode(), HEADERS, 7)
        reason = Problem(code=code, message="why")
        installation.send(dead_letter(installation.topic(Topic.DEAD_LETTERS), original, reason))


def sent_again(installation: Installation, *keys: str, topic: Topic = Topic.JOBS) -> list[Received]:
    return [one for one in installation.records(topic) if (one.key or b"").decode() in keys]


def done(told: str) -> list[tuple[str, str]]:
    """What stdout says: what was done, and with the letter of which original."""
    return [(line.split("\t")[0], line.split("\t")[4]) for line in told.splitlines()]


def verbs(capsys: Capture) -> list[str]:
    return [verb for verb, _ in done(capsys.readouterr().out)]


def open_letters(capsys: Capture, code: str, *more: str) -> int:
    capsys.readouterr()
    assert main(["dead-letters", "list", "--code", code, *more]) == Exit.OK
    return len(capsys.readouterr().out.splitlines())


def settle(action: str, *arguments: str) -> int:
    return main(["dead-letters", action, *arguments])


class FailingOutbox:
    """Works for the first `good` letters, then raises."""

    def __init__(self, inner: Outbox, good: int, error: Exception) -> None:
        self._inner = inner
        self._good = good
        self._error = error

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        if self._good == 0:
            raise self._error
        self._good -= 1
        self._inner.publish(records, marks)

    def settle(self) -> None:
        self._inner.settle()

    def send(self, record: Outgoing) -> bool:
        return self._inner.send(record)

    def close(self, timeout_s: float) -> None:
        self._inner.close(timeout_s)


@pytest.fixture
def failing() -> Iterator[pytest.MonkeyPatch]:
    """Patches of its own, so that undoing them leaves those of other fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def fail_after(patch: pytest.MonkeyPatch, good: int, error: Exception) -> None:
    make = Connection.outbox
    patch.setattr(Connection, "outbox", lambda self, name: FailingOutbox(make(self, name), good, error))


class TestRedrive:
    def test_without_execute_nothing_changes(self, installation: Installation, capsys: Capture, code: str) -> None:
        park(installation, code, f"{code}-a", f"{code}-b")
        assert settle("redrive", "--code", code) == Exit.OK
        told = capsys.readouterr()
        assert [verb for verb, _ in done(told.out)] == ["would redrive"] * 2
        assert "--execute does it" in told.err
        assert sent_again(installation, f"{code}-a", f"{code}-b") == []
        assert open_letters(capsys, code) == 2

    def test_the_original_goes_back_as_it_was_and_says_where_from(
        self, installation: Installation, capsys: Capture, code: str
    ) -> None:
        park(installation, code, code)
        assert settle("redrive", "--code", code, "--execute", "--by", "ann") == Exit.OK
        (line,) = capsys.readouterr().out.splitlines()
        verb, partition, offset, *_ = line.split("\t")
        (record,) = sent_again(installation, code)
        assert (verb, record.value, record.headers[:2]) == ("redriven", f"value of {code}".encode(), HEADERS)
        assert dict(record.headers)["dead-letter-redriven-from"] == f"{partition}@{offset}".encode()
        assert dict(record.headers)["dead-letter-redrives"] == b"1"
        assert open_letters(capsys, code) == 0
        assert open_letters(capsys, code, "--all") == 1
        assert main(["dead-letters", "show", partition, offset]) == Exit.OK
        assert capsys.readouterr().err.startswith("redriven by ann at ")

    def test_only_the_chosen_one_goes_back(self, installation: Installation, capsys: Capture, code: str) -> None:
        park(installation, code, f"{code}-a", f"{code}-b")
        assert settle("redrive", "--job", f"{code}-b", "--execute") == Exit.OK
        assert verbs(capsys) == ["redriven"]
        assert len(sent_again(installation, f"{code}-a", f"{code}-b")) == 1
        assert open_letters(capsys, code) == 1

    def test_one_that_is_settled_is_passed_by(self, installation: Installation, capsys: Capture, code: str) -> None:
        park(installation, code, code)
        for _ in range(2):
            assert settle("redrive", "--code", code, "--execute") == Exit.OK
        assert verbs(capsys) == ["redriven"]
        (letter,) = [one for one in installation.records(Topic.DEAD_LETTERS) if one.key == code.encode() and one.value]
        assert settle("discard", str(letter.partition), str(letter.offset), "--execute") == Exit.OK
        assert "redriven by" in capsys.readouterr().err
        assert len(sent_again(installation, code)) == 1

    @pytest.mark.parametrize("error", [UnreadableEvent, InvalidEvent, ConflictingJob])
    def test_what_would_fail_again_is_refused_without_force(
        self, installation: Installation, capsys: Capture, error: type[InvalidEvent]
    ) -> None:
        job = job_name()
        park(installation, error.code, job)
        assert settle("redrive", "--job", job, "--execute") == Exit.USAGE
        told = capsys.readouterr()
        assert [verb for verb, _ in done(told.out)] == ["refused"]
        assert f"refused: 1; {error.code}: " in told.err
        assert "--force sends it again" in told.err
        assert sent_again(installation, job) == []
        assert settle("redrive", "--job", job, "--execute", "--force") == Exit.OK
        assert len(sent_again(installation, job)) == 1

    @pytest.mark.parametrize("topic", ["other.jobs", "tools.results", "tools.dead-letters", "tools.job-state", ""])
    def test_no_letter_makes_us_write_to_a_topic_that_is_none_of_ours(
        self, installation: Installation, capsys: Capture, code: str, topic: str
    ) -> None:
        park(installation, code, code, topic=topic)
        before = len(installation.records(Topic.DEAD_LETTERS))
        assert settle("redrive", "--code", code, "--execute", "--force") == Exit.USAGE
        told = capsys.readouterr()
        assert [verb for verb, _ in done(told.out)] == ["refused"]
        assert "is no topic that this installation takes events from" in told.err
        assert len(installation.records(Topic.DEAD_LETTERS)) == before
        assert settle("discard", "--code", code, "--execute") == Exit.OK

    def test_one_that_fails_again_is_a_new_letter_with_a_count(
        self, installation: Installation, capsys: Capture, code: str
    ) -> None:
        park(installation, code, code)
        assert settle("redrive", "--code", code, "--execute") == Exit.OK
        (again,) = sent_again(installation, code)
        reason = Problem(code=code, message="still")
        installation.send(dead_letter(installation.topic(Topic.DEAD_LETTERS), again, reason))
        capsys.readouterr()
        assert main(["dead-letters", "list", "--code", code]) == Exit.OK
        (line,) = capsys.readouterr().out.splitlines()
        assert line.split("\t")[5:] == ["still", "1", ""]


class TestDiscard:
    def test_the_list_leaves_it_out_and_nothing_is_sent(
        self, installation: Installation, capsys: Capture, code: str
    ) -> None:
        park(installation, code, code)
        assert settle("discard", "--code", code) == Exit.OK
        assert verbs(capsys) == ["would discard"]
        assert settle("discard", "--code", code, "--execute", "--by", "ann") == Exit.OK
        assert verbs(capsys) == ["discarded"]
        assert sent_again(installation, code) == []
        assert open_letters(capsys, code) == 0
        assert main(["dead-letters", "list", "--code", code, "--all"]) == Exit.OK
        assert "discarded by ann at " in capsys.readouterr().out


class TestTheTrailInTheLog:
    @pytest.mark.parametrize(("action", "told"), [("redrive", "letter_redriven"), ("discard", "letter_discarded")])
    def test_each_letter_is_a_line_on_stderr_and_stdout_stays_as_it_is(
        self, installation: Installation, capsys: Capture, code: str, action: str, told: str
    ) -> None:
        park(installation, code, code)
        assert settle(action, "--code", code) == Exit.OK
        assert lines_of_the_trail(capsys.readouterr().err) == [], "nothing was done"
        assert settle(action, "--code", code, "--execute", "--by", "ann") == Exit.OK
        shown = capsys.readouterr()
        assert lines_of_the_trail(shown.err) == [("ann", told, "ok")]
        assert len(done(shown.out)) == 1

    def test_a_letter_that_could_not_be_settled_has_no_line(
        self, installation: Installation, failing: pytest.MonkeyPatch, capsys: Capture, code: str
    ) -> None:
        park(installation, code, "first", "second")
        fail_after(failing, 1, PublishAborted("no room", stale=False))
        assert settle("redrive", "--code", code, "--execute", "--by", "ann") == Exit.UNAVAILABLE
        assert lines_of_the_trail(capsys.readouterr().err) == [("ann", "letter_redriven", "ok")]


def lines_of_the_trail(err: str) -> list[tuple[str, str, str]]:
    """(actor, action, outcome) of each log line."""
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return [(line["actor"], line["action"], line["outcome"]) for line in lines if line["logger"] == "consumer.audit"]


class TestInterruptions:
    @pytest.mark.parametrize(
        ("error", "exit_code"),
        [
            (PublishAborted("no room", stale=False), Exit.UNAVAILABLE),
            (PublishInDoubt("who knows"), Exit.UNAVAILABLE),
            (BrokerUnavailable("gone"), Exit.UNAVAILABLE),
            (Fenced("another"), Exit.OVERTAKEN),
        ],
    )
    def test_the_same_command_again_does_only_the_rest(
        self,
        installation: Installation,
        capsys: Capture,
        failing: pytest.MonkeyPatch,
        code: str,
        error: Exception,
        exit_code: Exit,
    ) -> None:
        keys = [f"{code}-{number}" for number in range(3)]
        park(installation, code, *keys)
        fail_after(failing, 1, error)
        assert settle("redrive", "--code", code, "--execute") == exit_code
        told = capsys.readouterr()
        assert [verb for verb, _ in done(told.out)] == ["redriven"]
        assert "after 1" in told.err
        failing.undo()
        assert settle("redrive", "--code", code, "--execute") == Exit.OK
        assert verbs(capsys) == ["redriven"] * 2
        assert sorted((one.key or b"").decode() for one in sent_again(installation, *keys)) == keys

    def test_ctrl_c_is_heard_behind_the_letter_at_hand(
        self, installation: Installation, capsys: Capture, monkeypatch: pytest.MonkeyPatch, code: str
    ) -> None:
        park(installation, code, f"{code}-a", f"{code}-b")
        make = Connection.outbox
        monkeypatch.setattr(Connection, "outbox", lambda self, name: InterruptedOutbox(make(self, name), 9, OSError()))
        assert settle("redrive", "--code", code, "--execute") == Exit.INTERRUPTED
        assert "the same command again does the rest" in capsys.readouterr().err
        assert len(sent_again(installation, f"{code}-a", f"{code}-b")) == 1
        assert open_letters(capsys, code) == 1


class InterruptedOutbox(FailingOutbox):
    """Somebody presses Ctrl-C as soon as something is published."""

    def publish(self, records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        signal.raise_signal(signal.SIGINT)
        super().publish(records, marks)


class TestUsage:
    @pytest.mark.parametrize("action", ["redrive", "discard"])
    def test_it_wants_to_know_which(self, capsys: Capture, action: str) -> None:
        assert settle(action, "--execute") == Exit.USAGE
        assert f"say which letters to {action}" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [["3"], ["--rate", "0", "--code", "X"], ["--rate", "fast"], ["--execute", "--dry-run"], ["--since", "soon"]],
    )
    def test_what_makes_no_sense_is_wrong_usage(self, capsys: Capture, arguments: list[str]) -> None:
        assert settle("redrive", *arguments) == Exit.USAGE

    def test_a_place_without_a_letter_is_not_found(self, installation: Installation, capsys: Capture) -> None:
        assert settle("redrive", "0", "999999", "--execute") == Exit.NOT_FOUND
        assert "no dead letter at 0@999999" in capsys.readouterr().err


@pytest.mark.parametrize(("presses", "passed"), [(1, 1), (2, 1), (0, 0)])
def test_ctrl_c_waits_for_the_end_of_the_block_and_a_second_one_does_not(presses: int, passed: int) -> None:
    survived = 0

    def block() -> None:
        nonlocal survived
        with ctrl_c_waits():
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
                survived += 1

    with pytest.raises(KeyboardInterrupt) if presses else nullcontext():
        block()
    assert survived == passed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_throttle_lets_through_at_most_its_rate() -> None:
    now = 100.0
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += seconds

    throttle = Throttle(4.0, clock=lambda: now, sleep=sleep)
    for _ in range(3):
        throttle.wait()
    assert waited == [0.25, 0.25]
    now += 10.0  # a pause is no credit for a burst
    throttle.wait()
    throttle.wait()
    assert waited == [0.25, 0.25, 0.25]


def test_without_a_rate_nobody_waits() -> None:
    def never(seconds: float) -> None:
        raise AssertionError(f"waited {seconds} s")

    throttle = Throttle(None, sleep=never)
    for _ in range(3):
        throttle.wait()
