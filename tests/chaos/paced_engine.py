"""The stand-in engine with a duration: its text is a hash of the audio, and it takes its time like a GPU."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from consumer.core.speech import ChunkSpeech, ChunkTask, Progress, Samples
from consumer.errors import GpuOutOfMemory
from tests.standin import StandInEngine

log = logging.getLogger(__name__)

STEP_S = 0.05
"""Between two questions whether to go on: a batch of the real engine."""
FLAKY_SHARE = 0.05
FLAKY_S = 1.0
"""Some chunks fail for so long, so that the coordinator has something to send again when it is due."""

BEGUN, COMPUTED = "Chunk begun", "Chunk computed"
"""The lines that the checks count; job and chunk are bound to them by the caller."""


@dataclass
class PacedEngine(StandInEngine):
    """Takes between a quarter of `pace_s` and all of it for a chunk, by the hash of its audio.

    Some chunks fail from the first try on for `FLAKY_S`; the first try is noted as a file in `notes`, so that this
    does not depend on which process tries again.
    """

    pace_s: float = 1.0
    notes: Path | None = None

    def transcribe(self, task: ChunkTask, progress: Progress) -> ChunkSpeech:
        share = share_of(task.samples, task.chunk.index)
        self._may_fail(share)
        log.info(BEGUN)
        ends_at_s = time.monotonic() + self.pace_s * (0.25 + 0.75 * share)
        while (left_s := ends_at_s - time.monotonic()) > 0:
            progress(1.0 - left_s / self.pace_s)
            time.sleep(min(STEP_S, left_s))
        speech = super().transcribe(task, progress)
        log.info(COMPUTED)
        return speech

    def _may_fail(self, share: float) -> None:
        if self.notes is None or share % 0.1 >= FLAKY_SHARE * 0.1:
            return
        note = self.notes / f"{share:.12f}"
        if not note.exists():
            note.touch()
        if time.time() - note.stat().st_mtime < FLAKY_S:
            raise GpuOutOfMemory("this chunk fails at first, on purpose")


def share_of(samples: Samples, index: int) -> float:
    """A number in [0, 1) that only depends on the chunk."""
    digest = hashlib.sha256(samples.tobytes() + bytes([index % 256])).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
