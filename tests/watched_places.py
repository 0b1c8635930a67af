"""A file and a port that nobody may touch, and whether somebody did: by inotify, and by a socket that listens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IN_ACCESS, IN_OPEN = 0x1, 0x20  # sys/inotify.h


@dataclass
class WatchedPlaces:
    """`touched` tells what has happened since it was asked last."""

    file: Path
    port: int
    _server: socket.socket
    _inotify: int

    @property
    def file_url(self) -> str:
        return self.file.as_uri()

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/secret.wav"

    def touched(self) -> set[str]:
        found = set()
        with contextlib.suppress(BlockingIOError):
            os.read(self._inotify, 1 << 16)
            found.add("file")
        with contextlib.suppress(BlockingIOError):
            self._server.accept()[0].close()
            found.add("port")
        return found


@contextlib.contextmanager
def watched_places(file: Path) -> Iterator[WatchedPlaces]:
    """`file` is there already. Raises OSError where the kernel has no inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    try:
        if libc.inotify_add_watch(descriptor, bytes(file), IN_OPEN | IN_ACCESS) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(file))
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            yield WatchedPlaces(file, server.getsockname()[1], server, descriptor)
    finally:
        os.close(descriptor)
