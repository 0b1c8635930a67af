"""What was found once is put to the system again in every test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.case import read_case
from tests.fuzz.world import World

KEPT = Path(__file__).parent / "regressions"

OUTCOMES = {
    "headers-without-values": "completed",  # ended the intake worker: Kafka's headers may have no value
}
"""What becomes of each, by its file; and what it did before."""


def test_every_kept_case_has_its_outcome() -> None:
    assert {path.stem for path in KEPT.glob("*.json")} == set(OUTCOMES)


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_case_that_was_found_once_does_no_harm_again(name: str) -> None:
    assert World().outcome_of(read_case(KEPT / f"{name}.json")) == OUTCOMES[name]
