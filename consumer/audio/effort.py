"""What a decoder costs, held against what it has given: the limit for a file that makes it work and gives nothing.

Two things are counted apart. The decoder's processor time does not grow when our machine is busy. The time that we wait
for it does, a little; what it waits for us, for a slow store or a busy planner, is in neither.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

S_PER_BYTE: Final = 0.1 / (1 << 20)
"""Time for each byte that it read, in seconds: FFmpeg goes through a film for its sound thirty times as fast."""


WAITS_IN_GRACE: Final = 10
"""No single wait counts for more than this part of the grace: a machine that was suspended meanwhile looks like one."""


class Effort:
    """Of one decoder process. `grace_s` is free, for processor time and for waiting; the rest has to be earned."""

    def __init__(self, process_id: int, grace_s: float, s_per_audio_s: float) -> None:
        self._clock = ~process_id << 3 | 2  # another process's processor time; see clock_getcpuclockid(3)
        self._grace_s = grace_s
        self._s_per_audio_s = s_per_audio_s
        self._cpu_s = 0.0
        self._waited_s = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """To be entered while there is nothing to do but wait for the decoder."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += min(time.monotonic() - started_s, self._grace_s / WAITS_IN_GRACE)

    def excess(self, audio_s: float, read_bytes: int) -> str | None:
        """What is too much for so much audio from so many bytes; None while all is well."""
        allowed_s = self._grace_s + audio_s * self._s_per_audio_s + read_bytes * S_PER_BYTE
        for spent_s, how in ((self._processor_s(), "worked"), (self._waited_s, "was waited for")):
            if spent_s > allowed_s:
                return f"its decoder {how} {spent_s:.1f} s for {audio_s:.1f} s of sound"
        return None

    def _processor_s(self) -> float:
        """The last that was known once the process is gone."""
        with contextlib.suppress(OSError):
            self._cpu_s = time.clock_gettime(self._clock)
        return self._cpu_s
