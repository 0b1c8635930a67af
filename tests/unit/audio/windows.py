"""What is heard of an MP4 that is given to FFmpeg in windows, and as a whole."""

from __future__ import annotations

import io

import numpy as np

from consumer.audio.decoder_process import Decoding
from consumer.audio.opening import opened
from consumer.audio.protocol import Ending, Facts, Order
from consumer.audio.resampling import ChannelResampler, Resampler
from consumer.audio.sniff import MP4_SOUND
from tests import media

WHOLE = 1 << 30
"""Packets at a time: more than there are."""
SECONDS = 12.0


def sound(rate_hz: int = 48_000, channels: int = 1, seconds: float = SECONDS) -> media.Signal:
    """A tone that rises, in noise: no two places of it sound alike."""
    at = np.arange(int(seconds * rate_hz)) / rate_hz
    rising = 0.4 * np.sin(2 * np.pi * (200 + 80 * at) * at)
    noise = np.random.default_rng(1).normal(0, 0.05, (channels, len(at)))
    return (rising + noise).astype(np.float32)


class Heard:
    """What comes out of an MP4 whose packets are given to FFmpeg so many at a time."""

    def __init__(self, data: bytes, at_once: int, track: int | None = None, by_channel: bool = False) -> None:
        order = Order(len(data), 1 << 30, 60, track=track, packets_at_once=at_once)
        container, stream, self.facts, windows = opened(io.BytesIO(data), MP4_SOUND, order)
        with container:
            resampler = ChannelResampler(self.facts.channels) if by_channel else Resampler()
            decoding = Decoding(container, stream, resampler, windows=windows)
            self.pcm = b"".join(decoding.pcm())
            self.ending: Ending = decoding.ending(self.facts)
        self.in_windows = windows is not None


def but_length(facts: Facts) -> list[object]:
    """What windows tell as the whole does."""
    return [facts.codec, facts.channels, facts.sample_rate_hz, facts.track, facts.tracks]
