"""How long is waited between two tries: growing for what may pass, short while a server is away."""

from __future__ import annotations

import pytest

from consumer.core.retries import RetryPolicy
from consumer.errors import BrokerUnavailable, DecoderCrashed, StoreUnavailable, Unavailable
from consumer.health import Health
from consumer.patience import LONGEST_AWAY_PAUSE_S, Patience

POLICY = RetryPolicy(attempts=12, base_s=0.5, max_s=60.0)


def pauses_s(error: Unavailable, failures: int, health: Health | None = None) -> list[float]:
    """What is waited while something fails so often, and then works."""
    waited_s: list[float] = []

    def act() -> str:
        if len(waited_s) < failures:
            raise error
        return "done"

    patience = Patience("transcribe", POLICY, health or Health(60, 60), lambda: False)
    assert patience(act, waited_s.append, "work") == "done"
    return waited_s


@pytest.mark.parametrize("error", [StoreUnavailable("away"), BrokerUnavailable("away")])
def test_work_goes_on_within_seconds_of_a_servers_return_however_long_it_was_away(error: Unavailable) -> None:
    waited_s = pauses_s(error, failures=200)
    assert max(waited_s) <= LONGEST_AWAY_PAUSE_S <= 5.0
    assert min(waited_s[5:]) >= LONGEST_AWAY_PAUSE_S / 2, "and the server is not hammered"
    assert sum(waited_s) > 300, "five minutes are no end"


def test_workers_do_not_come_back_all_at_once() -> None:
    patience = Patience("transcribe", POLICY, Health(60, 60), lambda: False)
    last_s = set()
    for number in range(20):
        waited_s: list[float] = []

        def act(waited_s: list[float] = waited_s) -> None:
            if len(waited_s) < 10:
                raise StoreUnavailable("away")

        patience(act, waited_s.append, f"work {number}")
        last_s.add(waited_s[-1])
    assert len(last_s) == 20


def test_what_is_wrong_with_one_recording_is_tried_again_more_and_more_rarely() -> None:
    assert pauses_s(DecoderCrashed("no verdict"), failures=10)[-1] >= POLICY.max_s / 2


def test_a_server_that_was_away_takes_no_try_from_what_fails_by_itself() -> None:
    errors: list[Unavailable] = [StoreUnavailable("away"), StoreUnavailable("away"), DecoderCrashed("no verdict")]

    def act() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    patience = Patience("plan", RetryPolicy(2, 0.5, 1.0), Health(60, 60), lambda: True)
    assert patience(act, lambda seconds: None, "work") == "done"


def test_a_store_that_comes_back_between_a_failure_and_the_question_is_not_taken_for_one_that_fails_alone() -> None:
    """It was away for five minutes, and answers the question that is asked after the last failure."""
    waited_s: list[float] = []

    def act() -> str:
        if sum(waited_s) < 300:
            raise StoreUnavailable("away")
        return "done"

    def answers() -> bool:
        return sum(waited_s) > 300 - LONGEST_AWAY_PAUSE_S

    assert Patience("transcribe", POLICY, Health(60, 60), answers)(act, waited_s.append, "work") == "done"
