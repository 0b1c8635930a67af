"""Terminal, instants and exit codes."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from consumer import errors
from consumer.errors import WhisperXError
from consumer.events import JobStatus
from producer_tools import exit_codes
from producer_tools.exit_codes import Exit
from producer_tools.faults import WrongUsage
from producer_tools.instants import duration_from, instant_from
from producer_tools.terminal import Terminal, duration, size
from tests.unit.producer_tools.installation import NOW


class Screen(io.StringIO):
    """A terminal of a size that nobody can tell."""

    def isatty(self) -> bool:
        return True


def test_lines_are_drawn_over_the_ones_before() -> None:
    screen = Screen()
    terminal = Terminal(io.StringIO(), screen)
    terminal.draw(["one", "two"])
    terminal.draw(["three"])
    assert screen.getvalue() == "\x1b[2Kone\n\x1b[2Ktwo\n\x1b[2F\x1b[J\x1b[2Kthree\n"


def test_what_is_shown_already_is_not_drawn_again() -> None:
    screen = Screen()
    terminal = Terminal(io.StringIO(), screen)
    terminal.draw(["one"])
    terminal.draw(["one"])
    assert screen.getvalue() == "\x1b[2Kone\n"


def test_talk_takes_the_place_of_drawn_lines() -> None:
    screen = Screen()
    terminal = Terminal(io.StringIO(), screen)
    terminal.draw(["one"])
    terminal.say("done")
    terminal.say("really")
    assert screen.getvalue().endswith("\x1b[1F\x1b[Jdone\nreally\n")


def test_more_lines_than_the_screen_has_are_counted() -> None:
    screen = Screen()
    Terminal(io.StringIO(), screen).draw([str(n) for n in range(30)])
    assert screen.getvalue().count("\n") == 23
    assert "... and 8 more" in screen.getvalue()


def test_a_long_line_stays_one_line() -> None:
    screen = Screen()
    Terminal(io.StringIO(), screen).draw(["x" * 500])
    assert screen.getvalue().count("x") == 79


def test_without_a_terminal_nothing_is_drawn() -> None:
    stream = io.StringIO()
    Terminal(io.StringIO(), stream).draw(["one"])
    assert stream.getvalue() == ""


def test_sizes_and_durations_read_well() -> None:
    assert [duration(s) for s in (0, 75, 4000)] == ["0:00", "1:15", "1:06:40"]
    assert [size(b) for b in (5, 1500, 123_000_000, 5_300_000_000)] == ["5 B", "2 kB", "123 MB", "5.3 GB"]


def test_a_time_is_a_distance_or_an_instant() -> None:
    assert instant_from("2h", NOW, ahead=True) == NOW + timedelta(hours=2)
    assert instant_from("1.5d", NOW, ahead=False) == NOW - timedelta(days=1.5)
    assert instant_from("2024-05-01T12:00Z", NOW, ahead=True) == NOW
    assert instant_from("2024-05-01", NOW, ahead=True) == datetime(2024, 5, 1, tzinfo=UTC)
    assert instant_from("99999d", NOW, ahead=False) == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "5", "h", "-3h", "soon", "99999999999d", "9" * 400 + "d"])
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(WrongUsage):
        instant_from(text, NOW, ahead=True)
    with pytest.raises(WrongUsage):
        duration_from(text if "d" in text else text + "?")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([JobStatus.COMPLETED], Exit.OK),
        ([JobStatus.COMPLETED, JobStatus.PARTIAL], Exit.JOB_PARTIAL),
        ([JobStatus.PARTIAL, JobStatus.CANCELLED], Exit.JOB_CANCELLED),
        ([JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.COMPLETED], Exit.JOB_FAILED),
    ],
)
def test_the_worst_outcome_is_the_exit_code(statuses: list[JobStatus], code: Exit) -> None:
    assert exit_codes.of_outcomes(statuses) is code


def test_every_error_has_an_exit_code_and_none_says_ok_or_failed_job() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, WhisperXError)]
    found = {kind: exit_codes.of_error(kind("x")) for kind in kinds}
    assert not {Exit.OK, Exit.JOB_FAILED} & set(found.values())
    assert found[errors.BrokerUnavailable] is Exit.UNAVAILABLE
    assert found[errors.MissingTopic] is Exit.MISCONFIGURED


def test_every_exit_code_is_in_the_table() -> None:
    assert set(exit_codes.MEANINGS) == set(Exit)
