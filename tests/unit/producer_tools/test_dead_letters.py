from __future__ import annotations

import ast
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.dead_letters import dead_letter
from consumer.events import Problem
from consumer.ports import Received
from producer_tools.dead_letters import escaped, newest
from producer_tools.letters import DeadLetter


def parked(offset: int, code: str = "EVENT_UNREADABLE", message: str = "why", timestamp_ms: int = 0) -> Received:
    """A dead letter as it is read, of a record on jobs[3]@42."""
    original = Received("transcription.jobs", 3, 42, b"key", b"value", (("h", b"1"),), 7)
    letter = dead_letter("transcription.dead-letters", original, Problem(code=code, message=message))
    return Received(letter.topic, 0, offset, letter.key, letter.value, letter.headers, timestamp_ms)


@given(st.binary())
def test_escaped_bytes_can_be_read_back_and_cannot_steer_a_terminal(data: bytes) -> None:
    text = escaped(data)
    assert text.isascii()
    assert text.isprintable()
    quoted = text.replace("'", "\\'")
    assert ast.literal_eval(f"b'{quoted}'") == data


def test_a_line_says_where_when_why_and_where_from() -> None:
    line = DeadLetter.of(parked(5, message="tab\there", timestamp_ms=1_714_564_800_123)).line()
    assert line.split("\t") == [
        "0",
        "5",
        "2024-05-01T12:00:00.123Z",
        "EVENT_UNREADABLE",
        "transcription.jobs[3]@42",
        "tab\\there",
        "0",
        "",
    ]


def test_a_record_without_our_headers_is_still_listed() -> None:
    letter = DeadLetter.of(Received("transcription.dead-letters", 0, 1, None, None))
    assert (letter.code, letter.original) == ("?", "?[?]@?")


@given(st.lists(st.integers(0, 100)), st.integers(1, 10))
def test_the_newest_are_kept_in_the_order_of_time_and_all_are_counted(times: Sequence[int], limit: int) -> None:
    letters = [DeadLetter.of(parked(offset, timestamp_ms=time)) for offset, time in enumerate(times)]
    kept, total = newest(iter(letters), limit)
    in_order = [offset for _, offset in sorted((time, offset) for offset, time in enumerate(times))]
    assert [letter.offset for letter in kept] == in_order[-limit:]
    assert total == len(times)
