"""How long a WAV or W64 says that it is. FFmpeg quietly shortens a file that breaks off to what is there."""

from __future__ import annotations

import struct
from typing import Final

UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What programs write that stream a WAV and do not know its length yet (RF64 says so too, and keeps it elsewhere)."""

W64_RIFF: Final = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
W64_DATA: Final = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
W64_HEAD_BYTES: Final = 24
"""Of each chunk: a GUID and a size that counts them in. Source: Sony Pictures Digital, "Sony Wave64 file format"."""


def announced_end(head: bytes) -> int | None:
    """Offset behind the sample data by the header, or None where the header does not say.

    `head` is the beginning of the file; chunks before the samples (lists, cues) may fill some of it.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _of_riff(head)
    if head[:16] == W64_RIFF:
        return _of_wave64(head)
    return None


def _of_riff(head: bytes) -> int | None:
    at = 12
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        at += 8
        if name == b"data":
            return None if size in UNKNOWN_SIZES else at + size
        at += size + size % 2  # chunks are padded to even sizes
    return None


def _of_wave64(head: bytes) -> int | None:
    at = 40
    while at + W64_HEAD_BYTES <= len(head):
        name, size = struct.unpack_from("<16sQ", head, at)
        if name == W64_DATA:
            return at + size if size > W64_HEAD_BYTES else None
        at += max(size, W64_HEAD_BYTES) + -size % 8  # chunks begin at multiples of eight bytes
    return None
