"""How long a WAV says that it is. FFmpeg quietly shortens a file that breaks off to what is there."""

from __future__ import annotations

import struct

UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What programs write that stream a WAV and do not know its length yet (RF64 says so too, and keeps it elsewhere)."""


def announced_end(head: bytes) -> int | None:
    """Offset behind the sample data by the header, or None where the header does not say.

    `head` is the beginning of the file; chunks before the samples (lists, cues) may fill some of it.
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at = 12
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            return None if size in UNKNOWN_SIZES else at + size
        at += size + size % 2  # chunks are padded to even sizes
    return None
