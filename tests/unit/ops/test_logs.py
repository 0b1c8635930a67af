from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from consumer import logs

log = logging.getLogger("consumer.test")


@dataclass(frozen=True)
class Options:
    level: str = "INFO"
    format: str = "json"


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.captureWarnings(False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for name in logs.QUIET:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.NOTSET)


def capture(secrets: tuple[str, ...] = (), **options: str) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(Options(**options), secrets, stream)
    return stream


def only_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_is_one_json_object_with_time_level_logger_sentence_and_fields() -> None:
    stream = capture()
    log.info("Chunk transcribed", extra={"job_id": "a", "attempt": 1, "duration_s": 4.5})
    line = only_line(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "consumer.test",
        "message": "Chunk transcribed",
        "job_id": "a",
        "attempt": 1,
        "duration_s": 4.5,
    }


def test_a_trace_is_a_field_of_the_same_line() -> None:
    stream = capture()
    try:
        raise ValueError("odd\nvalue")
    except ValueError:
        log.exception("Bug")
    assert only_line(stream)["exception"].startswith("Traceback")


@pytest.mark.parametrize("line_format", ["json", "text"])
@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x85", "\u2028", "\u202e", "\x00"])
def test_a_value_cannot_start_a_line_or_steer_a_terminal(line_format: str, character: str) -> None:
    stream = capture(format=line_format)
    log.info("Job received", extra={"key": f"a{character}b", "nested": {"k": [f"c{character}d"]}})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert character not in text.rstrip("\n")


@pytest.mark.parametrize("line_format", ["json", "text"])
def test_a_known_secret_is_written_nowhere(line_format: str) -> None:
    secret = 'pa"ss/wörd'
    stream = capture((secret, ""), format=line_format)
    try:
        raise ValueError(f"login with {secret}")
    except ValueError:
        log.exception(
            "Failed for %s", secret, extra={"url": "http://u:pa%22ss%2Fw%C3%B6rd@h/", "d": {secret: [secret]}}
        )
    text = stream.getvalue()
    assert logs.MASK in text
    assert secret not in text
    assert "rd@h" not in text.replace(logs.MASK + "@h", "")
    assert json.dumps(secret)[1:-1] not in text


def test_what_is_bound_stands_on_every_line_inside_and_on_none_after() -> None:
    stream = capture()
    with logs.bound(job_id="a", run=1):
        with logs.bound(run=2, chunk_index=3):
            log.info("Inside")
        log.info("Between", extra={"job_id": "given"})
    log.info("After")
    inside, between, after = map(json.loads, stream.getvalue().splitlines())
    assert (inside["job_id"], inside["run"], inside["chunk_index"]) == ("a", 2, 3)
    assert (between["job_id"], between["run"], "chunk_index" in between) == ("given", 1, False)
    assert "job_id" not in after


def test_what_is_bound_ends_with_an_exception_too() -> None:
    stream = capture()
    with pytest.raises(KeyError), logs.bound(job_id="a"):
        raise KeyError
    log.info("After")
    assert "job_id" not in only_line(stream)


@pytest.mark.parametrize("name", ["whisperx.asr", "pyannote.audio", "urllib3.connectionpool", "werkzeug"])
def test_libraries_are_heard_from_warnings_on_and_only_once(name: str) -> None:
    stream = capture(level="DEBUG")
    logging.getLogger(name).info("Chatter")
    logging.getLogger(name).warning("Something")
    assert only_line(stream)["logger"] == name


def test_a_library_says_the_same_thing_once_in_a_while() -> None:
    seldom = logs.Seldom(["librdkafka"], interval_s=30)

    def passes(name: str, message: str, at_s: float) -> bool:
        record = logging.makeLogRecord({"name": name, "msg": message, "created": at_s})
        return seldom.filter(record)

    assert passes("librdkafka", "port 9092 refused after 1 ms", 100)
    assert not passes("librdkafka", "port 9092 refused after 2 ms", 129)
    assert passes("librdkafka", "another thing", 129)
    assert passes("librdkafka", "port 9092 refused after 3 ms", 130)
    assert passes("consumer.loop", "Publishing failed", 130)
    assert passes("consumer.loop", "Publishing failed", 130)


def test_what_was_said_is_not_remembered_without_bound() -> None:
    seldom = logs.Seldom(["librdkafka"])
    for number in range(3 * logs.MAX_REMEMBERED):
        letters = f"{number:b}".replace("0", "a").replace("1", "b")
        assert seldom.filter(logging.makeLogRecord({"name": "librdkafka", "msg": letters}))
    assert len(seldom._said_s) <= logs.MAX_REMEMBERED


def test_a_library_that_brings_its_own_handler_finds_one_already() -> None:
    """whisperx writes to standard output unless its logger has a handler when it is imported."""
    capture()
    assert logging.getLogger("whisperx").handlers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"\xff\x00", object(), {1: {2}}, "\ud800"])
def test_any_value_gives_a_readable_line(value: object) -> None:
    stream = capture()
    log.info("Odd", extra={"value": value})
    assert "value" in only_line(stream)


def test_a_long_value_is_cut() -> None:
    stream = capture()
    log.info("Long", extra={"value": "x" * 100_000})
    assert len(stream.getvalue()) < 10_000


def test_text_lines_show_fields_behind_the_sentence_and_an_indented_trace() -> None:
    stream = capture(format="text")
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("Chunk failed", extra={"job_id": "a b", "attempt": 2})
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR    consumer.test: Chunk failed  job_id=a b  attempt=2")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_an_uncaught_exception_of_a_thread_is_a_line_too() -> None:
    stream = capture()
    logs.log_uncaught()

    def fail() -> None:
        raise RuntimeError("odd")

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    line = only_line(stream)
    assert (line["level"], line["thread_name"]) == ("CRITICAL", "worker")
    assert "RuntimeError: odd" in line["exception"]


def test_an_uncaught_exception_of_the_process_is_a_line_too() -> None:
    stream = capture()
    logs.log_uncaught()
    error = RuntimeError("odd")
    sys.excepthook(RuntimeError, error, None)
    assert "RuntimeError: odd" in only_line(stream)["exception"]
