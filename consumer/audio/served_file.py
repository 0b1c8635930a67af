"""The recording as the decoder process sees it: a file object whose bytes come from the parent."""

from __future__ import annotations

import os
import socket

from consumer.audio.protocol import MAX_FRAME_BYTES, Kind, receive, send_read


class ServedFile:
    """A file object whose bytes come from the parent; `start` leaves out those before it."""

    def __init__(self, link: socket.socket, size_bytes: int, start: int = 0) -> None:
        self._link = link
        self._size_bytes = size_bytes - start
        self._start = start
        self._at = 0

    def behind(self, start: int) -> ServedFile:
        """The rest of the file as a file of its own."""
        return ServedFile(self._link, self._start + self._size_bytes, self._start + start)

    def read(self, length: int = -1) -> bytes:
        left = max(self._size_bytes - self._at, 0)
        length = min(left if length < 0 else length, left, MAX_FRAME_BYTES)
        if length == 0:
            return b""
        send_read(self._link, self._start + self._at, length)
        answer = receive(self._link)
        if answer is None or answer[0] is not Kind.DATA:
            os._exit(0)  # the parent is gone or has closed the link: nobody wants the samples
        self._at += len(answer[1])
        return answer[1]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True
