"""A worker that refuses nearly everything stops; one that refuses a sender's events now and then does not."""

from __future__ import annotations

import pytest

from consumer.errors import Abandoned
from consumer.health import Health
from consumer.refusals import RefusalLimit

WINDOW = 20


class Desk:
    """A limit with its waits."""

    def __init__(self, window: int = WINDOW) -> None:
        self.health = Health(60, 60)
        self.limit = RefusalLimit("intake", self.health, window, 60.0)
        self.waits: list[float] = []

    def see(self, pattern: str) -> None:
        """`x` is an event that is refused, `.` one that is read."""
        for event in pattern:
            if event == "x":
                self.limit.refused("EVENT_UNREADABLE", self.waits.append)
            else:
                self.limit.accepted()

    @property
    def reasons(self) -> str:
        return " ".join(self.health.ready().reasons)


def test_the_worker_stops_before_it_parks_one_more_than_the_window() -> None:
    desk = Desk()
    desk.see("x" * WINDOW)
    assert (desk.waits, desk.reasons) == ([], "")
    desk.see("x")
    assert desk.waits == [60.0]
    assert "20 of the last 20 events were refused" in desk.reasons


def test_once_stopped_each_further_event_costs_a_pause() -> None:
    desk = Desk()
    desk.see("x" * (WINDOW + 5))
    assert desk.waits == [60.0] * 5


@pytest.mark.parametrize("pattern", ["x" * 18 + "..", "x." * WINDOW, "." + "x" * 9])
def test_a_sender_who_sends_rubbish_beside_others_stops_nobody(pattern: str) -> None:
    desk = Desk()
    desk.see(pattern * 5)
    assert (desk.waits, desk.reasons) == ([], "")


def test_events_that_can_be_read_again_end_the_stop() -> None:
    desk = Desk()
    desk.see("x" * (WINDOW + 1) + ".")
    assert desk.reasons
    desk.see(".")
    assert desk.reasons == ""
    desk.see("x")
    assert len(desk.waits) == 1


def test_a_window_of_nothing_is_no_limit() -> None:
    desk = Desk(window=0)
    desk.see("x" * 500)
    assert desk.waits == []


def test_an_event_that_somebody_else_takes_over_meanwhile_does_not_count() -> None:
    desk = Desk()
    desk.see("x" * WINDOW)

    def gone(_seconds: float) -> None:
        raise Abandoned("the partition changed hands")

    with pytest.raises(Abandoned):
        desk.limit.refused("EVENT_UNREADABLE", gone)
    desk.see("..")
    assert desk.reasons == ""
