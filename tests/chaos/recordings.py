"""Recordings of any length, the same for a seed: the demo conversation, begun at another place and turned over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumer.core.values import SAMPLE_RATE_HZ
from tests.media import wav
from tests.unit.audio.sources import decode_all

CONVERSATION = Path(__file__).parents[2] / "demo" / "recordings" / "conversation-5min.flac"


@dataclass(frozen=True, slots=True)
class Recording:
    """`start_s` is where in the conversation it begins."""

    key: str
    start_s: float
    length_s: float

    def data(self) -> bytes:
        """A WAV file."""
        start, length = int(self.start_s * SAMPLE_RATE_HZ), int(self.length_s * SAMPLE_RATE_HZ)
        whole = np.resize(np.roll(_conversation(), -start), length)
        return wav(whole[None].astype(np.float32) / np.float32(32768), SAMPLE_RATE_HZ)


@cache
def _conversation() -> NDArray[np.int16]:
    return decode_all(CONVERSATION.read_bytes()).samples
