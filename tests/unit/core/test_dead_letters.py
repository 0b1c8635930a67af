from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core import dead_letters
from consumer.core.dead_letters import (
    FOREIGN,
    MAX_MESSAGE_BYTES,
    How,
    Position,
    Resolution,
    dead_letter,
    is_resolution,
    redriven,
    redrives_of,
    resolution,
    resolution_of,
    text_of,
)
from consumer.events import Problem
from consumer.ports import Headers, Outgoing, Received

LETTERS = "t.dead-letters"
AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
WHY = Problem(code="EVENT_UNREADABLE", message="why")

_OUR_NAMES = sorted(
    value for value in vars(dead_letters).values() if isinstance(value, str) and value.startswith("dead-letter-")
)
_SENDERS_NAMES = [name for name in _OUR_NAMES if name not in (dead_letters.REDRIVEN_FROM, dead_letters.REDRIVES)]
names = st.one_of(st.text(max_size=8), st.sampled_from([*_SENDERS_NAMES, f"{FOREIGN}dead-letter-code"]))
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=8)), max_size=5).map(tuple)
originals = st.builds(
    Received,
    st.just("t.jobs"),
    st.integers(0, 7),
    st.integers(0, 99),
    st.none() | st.binary(),
    st.none() | st.binary(),
    headers,
    st.just(7),
)


def landed(record: Outgoing, offset: int, partition: int = 3) -> Received:
    """A record as it is read from the dead-letter topic."""
    chosen = partition if record.partition is None else record.partition
    return Received(record.topic, chosen, offset, record.key, record.value, record.headers)


def parked(original: Received, offset: int = 42, reason: Problem = WHY) -> Received:
    return landed(dead_letter(LETTERS, original, reason), offset)


@given(originals)
def test_what_is_sent_again_is_the_original_and_where_it_was_sent_from(original: Received) -> None:
    again = redriven(parked(original))
    assert (again.topic, again.key, again.value) == ("t.jobs", original.key, original.value)
    assert again.headers[:-2] == original.headers
    assert again.headers[-2:] == (("dead-letter-redriven-from", b"3@42"), ("dead-letter-redrives", b"1"))


@given(originals)
def test_no_header_of_a_sender_can_pass_for_one_of_ours(original: Received) -> None:
    letter = parked(original)
    assert not is_resolution(letter)
    ours = [(name, value) for name, value in letter.headers if name in _SENDERS_NAMES and name != FOREIGN]
    assert [name for name, _ in ours] == [
        "dead-letter-topic",
        "dead-letter-partition",
        "dead-letter-offset",
        "dead-letter-timestamp",
        "dead-letter-code",
        "dead-letter-message",
    ]
    assert dict(ours)["dead-letter-code"] == b"EVENT_UNREADABLE"


def test_each_redrive_is_counted_and_the_headers_of_the_sender_stay_as_they_were() -> None:
    first = Received("t.jobs", 1, 5, b"k", b"v", (("traceparent", b"00"), ("dead-letter-code", b"mine")))
    once = redriven(parked(first, 42))
    second = parked(Received("t.jobs", 1, 9, once.key, once.value, once.headers), 50)
    assert (redrives_of(second), text_of(second, "dead-letter-offset")) == (1, "9")
    assert text_of(second, "dead-letter-redriven-from") == "3@42"
    twice = redriven(second)
    assert twice.headers == (
        *first.headers,
        ("dead-letter-redriven-from", b"3@50"),
        ("dead-letter-redrives", b"2"),
    )


@pytest.mark.parametrize("said", [b"", b"-1", b"many", b"9" * 400, "٣".encode(), b"\xff"])
def test_a_count_that_makes_no_sense_is_none(said: bytes) -> None:
    assert redrives_of(parked(Received("t.jobs", 0, 0, None, b"v", (("dead-letter-redrives", said),)))) == 0


def test_a_resolution_lies_behind_its_letter_and_names_it() -> None:
    letter = parked(Received("t.jobs", 1, 5, b"k", b"v"))
    record = resolution(letter, How.DISCARDED, "ann", AT)
    assert (record.topic, record.key, record.value, record.partition) == (LETTERS, b"k", None, 3)
    read = landed(record, 43)
    assert is_resolution(read)
    assert resolution_of(read) == Resolution(Position(3, 42), "discarded", "ann", "2024-05-01T12:00:00+00:00")


def test_a_letter_settles_nothing_even_when_its_original_says_so() -> None:
    """Neither one that is parked now, nor one of a version that kept the sender's header under its own name."""
    claims: Headers = (("dead-letter-resolves", b"3@1"), ("dead-letter-resolution", b"discarded"))
    letter = parked(Received("t.jobs", 1, 5, b"k", None, claims))
    older = Received(LETTERS, 3, 42, b"k", None, (*claims, ("dead-letter-topic", b"t.jobs")))
    for one in (letter, older):
        assert not is_resolution(one)
        assert resolution_of(one) is None


@pytest.mark.parametrize("place", ["2@1", "3@43", "3@44", "3", "@", "3@-1", "x@1", "3@1@1", ""])
def test_a_resolution_of_another_partition_or_of_what_comes_later_settles_nothing(place: str) -> None:
    record = Received(LETTERS, 3, 43, b"k", None, (("dead-letter-resolves", place.encode()),))
    assert is_resolution(record)
    assert resolution_of(record) is None


def test_a_long_message_is_cut_between_two_characters() -> None:
    letter = parked(Received("t.jobs", 0, 0, None, b"v"), reason=Problem(code="C", message="x" + "é" * 2000))
    said = dict(letter.headers)["dead-letter-message"] or b""
    assert MAX_MESSAGE_BYTES - 2 < len(said) <= MAX_MESSAGE_BYTES
    assert said.decode() == "x" + "é" * ((len(said) - 1) // 2)
