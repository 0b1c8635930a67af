"""The lines that a training prints: running averages of its figures."""

import sys
import time


class Progress:
    def __init__(self, stage: str, last: int, every: int = 50) -> None:
        self._stage, self._last, self._every = stage, last, every
        self._averages: dict[str, float] = {}
        self._started_s = time.monotonic()

    def step(self, done: int, **figures: float) -> None:
        """Take the figures of one step; print the averages of about the last twenty every 50 steps."""
        for name, figure in figures.items():
            self._averages[name] = self._averages.get(name, figure) * 0.95 + figure * 0.05
        if done % self._every == 0 or done == self._last:
            averages = " ".join(f"{name} {value:.4g}" for name, value in self._averages.items())
            say(f"{self._stage}: step {done} of {self._last}, {time.monotonic() - self._started_s:.0f} s: {averages}")


def say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)
