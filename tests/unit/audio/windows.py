"""What is heard of an MP4 that is given to FFmpeg in windows, and as a whole."""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
import pytest

from consumer.audio import decode as decode_module
from consumer.audio.decoder_process import Decoding
from consumer.audio.opening import opened
from consumer.audio.protocol import Ending, Facts, Order
from consumer.audio.resampling import ChannelResampler, Resampler
from consumer.audio.sniff import MP4_SOUND
from tests import media
from tests.hostile_media import box
from tests.unit.audio.sources import decode_all

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


def assert_the_confined_process_hears_windows_alike(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decode_all(data)
    monkeypatch.setattr(decode_module, "Order", functools.partial(Order, packets_at_once=40))
    windows = decode_all(data)
    assert np.array_equal(windows.samples, whole.samples)
    assert windows.warnings == whole.warnings == ()


def tags(priming: int) -> bytes:
    """As iTunes writes them: so many samples of the first packets are no sound."""
    value = f" 00000000 {priming:08X} 00000000 0000000000000000".encode()
    named = box(b"mean", bytes(4), b"com.apple.iTunes") + box(b"name", bytes(4), b"iTunSMPB")
    listed = box(b"ilst", box(b"----", named, box(b"data", struct.pack(">II", 1, 0), value)))
    return box(b"udta", box(b"meta", bytes(4), box(b"hdlr", bytes(8), b"mdirappl", bytes(9)), listed))
