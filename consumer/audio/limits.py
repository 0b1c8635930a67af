"""What a recording may cost us: the limits that decoding keeps."""

from __future__ import annotations

from typing import Protocol


class DecodeLimits(Protocol):
    """The part of the limit settings that decoding looks at; `LimitSettings` has this shape."""

    @property
    def max_duration_s(self) -> float: ...
    @property
    def max_channels(self) -> int: ...
    @property
    def max_transcribed_channels(self) -> int: ...
    @property
    def max_sample_rate_hz(self) -> int: ...
    @property
    def decoder_memory_bytes(self) -> int: ...
    @property
    def decoder_stall_s(self) -> float: ...


class RecordingLimits(DecodeLimits, Protocol):
    """And what is checked before a byte is read."""

    @property
    def max_recording_bytes(self) -> int: ...
    @property
    def allowed_buckets(self) -> tuple[str, ...]: ...
