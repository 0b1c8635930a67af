"""Nothing lost, nothing twice, whatever happens between two effects; and the model can fail.

`make model` runs the same with ten thousand sequences.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.fate import Sabotage
from tests.model.machine import Model

STEPS = 25
SEQUENCES = 150
MOST_TO_FIND = 300
"""Sequences in which a sabotage must show at the latest."""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """A sequence has hundreds of warnings, all of them wanted."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def bounded(sequences: int, *phases: Phase) -> settings:
    """The same sequences every time."""
    return settings(
        max_examples=sequences,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases or (Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


class _Fickle(Model):
    """The engine says something else with every try: only the first answer may be seen anywhere."""

    fickle = True


class _WithoutTransactions(Model):
    sabotage = Sabotage.NO_TRANSACTION


class _CommitsBeforeWork(Model):
    sabotage = Sabotage.COMMIT_BEFORE_WORK


class _OverwritesCheckpoints(_Fickle):
    sabotage = Sabotage.PLAIN_PUT
    struck = ("transcribe",)


class _WithoutFence(Model):
    sabotage = Sabotage.NO_FENCE


def test_nothing_is_lost_and_nothing_appears_twice() -> None:
    run_state_machine_as_test(Model, settings=bounded(SEQUENCES))  # type: ignore[no-untyped-call]


def test_an_engine_that_repeats_itself_differently_is_heard_once() -> None:
    run_state_machine_as_test(_Fickle, settings=bounded(SEQUENCES // 3))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("build", [_WithoutTransactions, _CommitsBeforeWork, _OverwritesCheckpoints, _WithoutFence])
def test_the_model_finds_a_build_that_breaks_a_rule(build: type[Model]) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(build, settings=bounded(MOST_TO_FIND, Phase.generate))  # type: ignore[no-untyped-call]
