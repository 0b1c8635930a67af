"""The values that speech consists of here: samples, and words with their times."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000

Samples = NDArray[np.float32]
"""Mono float32, (n_samples,), between -1 and 1, at 16 kHz unless a rate is given with them."""


@dataclass(frozen=True)
class Word:
    text: str
    start_s: float
    end_s: float

    def shifted(self, by_s: float) -> "Word":
        return replace(self, start_s=self.start_s + by_s, end_s=self.end_s + by_s)


@dataclass(frozen=True)
class Speech:
    """Samples and their words; no words means that their times are not known."""

    samples: Samples
    words: tuple[Word, ...]
