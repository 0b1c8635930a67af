"""The recording as the decoder process sees it: a file object whose bytes come from the parent."""

from __future__ import annotations

import os
import socket

from consumer.audio.positioned import Positioned
from consumer.audio.protocol import MAX_FRAME_BYTES, Kind, receive, send_read


class ServedFile(Positioned):
    """A file object whose bytes come from the parent; `start` leaves out those before it."""

    def __init__(self, link: socket.socket, size_bytes: int, start: int = 0) -> None:
        super().__init__(size_bytes - start)
        self._link = link
        self._start = start

    def behind(self, start: int) -> ServedFile:
        """The rest of the file as a file of its own."""
        return ServedFile(self._link, self._start + self._size_bytes, self._start + start)

    def read(self, length: int = -1) -> bytes:
        length = min(self._left(length), MAX_FRAME_BYTES)
        if length == 0:
            return b""
        send_read(self._link, self._start + self._at, length)
        answer = receive(self._link)
        if answer is None or answer[0] is not Kind.DATA:
            os._exit(0)  # the parent is gone or has closed the link: nobody wants the samples
        self._at += len(answer[1])
        return answer[1]
