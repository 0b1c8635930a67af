"""Runs the machine over many sequences, the same ones for the same seed."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Model

BATCH = 10
"""Sequences of one run of Hypothesis. After ten it goes over to varying those that it has, and most begin alike."""
STEPS = 25


def explore(model: type[Model], sequences: int, first_seed: int, *, shrink: bool = True, steps: int = STEPS) -> None:
    """Raises what the first failing sequence raises, with its steps as a note."""
    how = settings(
        max_examples=BATCH,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    for number in range(-(-sequences // BATCH)):
        run_state_machine_as_test(seed(first_seed * 1_000_000 + number)(model), settings=how)
