"""What all file objects of the decoder process share: a place to read from, and no end to be written behind."""

from __future__ import annotations

import os


class Positioned:
    """Seekable bytes; a subclass reads them from `_at` and moves it on."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def _left(self, length: int) -> int:
        """How much of so many bytes there is; of all the rest where the length is negative."""
        left = max(self._size_bytes - self._at, 0)
        return left if length < 0 else min(length, left)
