"""What lets a killed training go on: its state on disk, and examples that depend on the step alone."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")

SAVE_EVERY = 100


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class TrainingState:
    """The parts of a training (network, optimizer) and how many steps are done, in one file."""

    def __init__(self, path: Path, **parts: Stateful) -> None:
        self._path, self._parts = path, parts

    def restore(self) -> int:
        """Load the parts; returns the number of steps done, 0 when nothing was saved."""
        if not self._path.exists():
            return 0
        saved = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        return int(saved["steps"])

    def save(self, steps: int) -> None:
        """Replace the file as a whole, so that a kill leaves the old one or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        torch.save({name: part.state_dict() for name, part in self._parts.items()} | {"steps": steps}, unfinished)
        unfinished.replace(self._path)


def prefetch(make: Callable[[int], T], first: int, last: int, ahead: int = 4) -> Iterator[T]:
    """make(first), ..., make(last - 1), made by a second thread while the caller works.

    An error of `make` is raised where its value would have come.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(max_workers=1) as maker:
        for step in range(first, last):
            waiting.append(maker.submit(make, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
