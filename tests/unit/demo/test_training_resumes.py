"""A training that was killed goes on as if it had not been."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from demo.training.resumable import TrainingState, prefetch


class Momentum(nn.Module):
    """Gradient descent with a memory: resuming without it would end elsewhere."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self._weight = [weight]
        self.velocity = nn.Buffer(torch.zeros_like(weight))

    @torch.no_grad()
    def step(self, gradient: torch.Tensor) -> None:
        self.velocity.mul_(0.9).add_(gradient)
        self._weight[0].sub_(0.1 * self.velocity)


def train(file: Path, last: int) -> tuple[int, torch.Tensor]:
    """Train from what is saved up to `last` steps; returns the step it began with, and the weights."""
    torch.manual_seed(0)
    network = nn.Linear(4, 2, bias=False)
    optimizer = Momentum(network.weight)
    state = TrainingState(file, network=network, optimizer=optimizer)
    begun = state.restore()
    for inputs in prefetch(inputs_of_step, begun, last):
        loss = functional.mse_loss(network(inputs), torch.ones(8, 2))
        optimizer.step(*torch.autograd.grad(loss, network.weight))
    state.save(last)
    return begun, network.weight.detach().clone()


def inputs_of_step(step: int) -> torch.Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, so that two runs are equal to the bit
    yield
    torch.set_num_threads(threads)


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    _, through = train(tmp_path / "through.pt", 8)
    train(tmp_path / "killed.pt", 3)
    begun, resumed = train(tmp_path / "killed.pt", 8)
    assert begun == 3
    assert torch.equal(resumed, through)


def test_a_kill_while_saving_leaves_the_saved_state(tmp_path: Path) -> None:
    train(tmp_path / "state.pt", 3)
    (tmp_path / "state.unfinished").write_bytes(b"half a file")
    begun, _ = train(tmp_path / "state.pt", 4)
    assert begun == 3


def test_examples_come_in_the_order_of_the_steps() -> None:
    assert list(prefetch(lambda step: step * step, 2, 20)) == [step * step for step in range(2, 20)]


def test_an_error_in_the_making_of_an_example_reaches_the_training() -> None:
    def make(step: int) -> int:
        if step == 3:
            raise LookupError("no utterance")
        return step

    examples = prefetch(make, 0, 9)
    assert [next(examples) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no utterance"):
        next(examples)
