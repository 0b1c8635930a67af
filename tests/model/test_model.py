"""Nothing lost, nothing twice, whatever happens between two effects; and the model can fail.

`make model` runs the same with ten thousand sequences.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.model.exploring import explore
from tests.model.fate import Sabotage
from tests.model.machine import Model

SEED = 1
SEQUENCES = 200
MOST_TO_FIND = 300
"""Sequences in which a sabotage must show at the latest."""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """A sequence has hundreds of warnings, all of them wanted."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


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
    explore(Model, SEQUENCES, SEED)


def test_an_engine_that_repeats_itself_differently_is_heard_once() -> None:
    explore(_Fickle, SEQUENCES // 4, SEED)


@pytest.mark.parametrize("build", [_WithoutTransactions, _CommitsBeforeWork, _OverwritesCheckpoints, _WithoutFence])
def test_the_model_finds_a_build_that_breaks_a_rule(build: type[Model]) -> None:
    with pytest.raises(AssertionError):
        explore(build, MOST_TO_FIND, SEED, shrink=False)
