"""Frames of any format to 16 kHz s16le bytes, as ffmpeg's own command line mixes and resamples them.

Part of the decoder process: see `decoder_process`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from consumer.audio.protocol import CannotDecode
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

STANDARD_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""FFmpeg's own layouts for one to eight channels, which it knows how to mix to."""


class Resampler:
    """Frames of any format to 16 kHz s16le bytes, all channels mixed to one; begins anew when the format changes within
    the stream."""

    channels = 1
    channels_change = False

    def __init__(self) -> None:
        self._format: tuple[str, str, int] | None = None
        self._inner: AudioResampler | None = None

    def feed(self, frame: AudioFrame) -> Iterator[bytes]:
        frame.pts = None  # gaps in the time stamps are not filled, as ffmpeg's command line does not
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._format:
            yield from self.flush()
            self._format = kind
            self._inner = AudioResampler(format="s16", layout=self._layout_for(frame), rate=SAMPLE_RATE_HZ)
        assert self._inner is not None
        try:
            resampled = self._inner.resample(frame)
        except av.error.FFmpegError as exc:
            if isinstance(exc, MemoryError):
                raise
            reason = f"{frame.layout.nb_channels} channels in no order that can be mixed"
            raise CannotDecode("UnsupportedMedia", reason) from exc
        for out in resampled:
            yield self._pcm(out)

    def flush(self) -> Iterator[bytes]:
        inner, self._inner, self._format = self._inner, None, None
        if inner is not None:
            for out in inner.resample(None):
                if out is not None:
                    yield self._pcm(out)

    def _layout_for(self, frame: AudioFrame) -> str | None:  # noqa: ARG002  (others look at it)
        """What to mix to; None keeps the channels as they are."""
        return "mono"

    def _pcm(self, frame: AudioFrame) -> bytes:
        return bytes(memoryview(frame.planes[0])[: frame.samples * frame.layout.nb_channels * BYTES_PER_SAMPLE])


class ChannelResampler(Resampler):
    """The channels side by side (interleaved), each resampled by itself. Their number is fixed from the start.

    Where a part of the stream has fewer, those that it lacks are silent; where it has more, they are mixed down to
    that number, so that no sound is lost.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def _layout_for(self, frame: AudioFrame) -> str | None:
        count = frame.layout.nb_channels
        self.channels_change |= count != self.channels
        if count <= self.channels:
            return None
        if self.channels > len(STANDARD_LAYOUTS):
            raise CannotDecode("UnsupportedMedia", f"its sound goes from {self.channels} channels to {count}")
        return STANDARD_LAYOUTS[self.channels - 1]

    def _pcm(self, frame: AudioFrame) -> bytes:
        return with_silent_channels(super()._pcm(frame), frame.layout.nb_channels, self.channels)


def with_silent_channels(pcm: bytes, channels: int, wanted: int) -> bytes:
    """Interleaved 16-bit samples with silence in the channels that are missing, which are the last."""
    if channels == wanted:
        return pcm
    samples, spread = array("h", pcm), array("h", bytes(len(pcm) // channels * wanted))
    for channel in range(channels):
        spread[channel::wanted] = samples[channel::channels]
    return spread.tobytes()
