"""Decoders by the piece: our side of `decoder_server`, which is started with the first recording and kept."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import consumer
from consumer.audio.protocol import NUMBER, Order, pack_order

log = logging.getLogger(__name__)

START: Final = """
import sys
behind_python = next((at for at, path in enumerate(sys.path) if path.endswith("-packages")), len(sys.path))
sys.path.insert(behind_python, sys.argv.pop(1))
from consumer.audio.decoder_server import main
sys.exit(main(sys.argv[1:]))
"""
"""-I keeps the environment and the working directory out of the import path. The place of our own package goes behind
the standard library, which it must not hide, and before all else: another version may be installed there."""

TRIES: Final = 2
"""A server that somebody has ended is found out when it is asked."""

CLOSE_S: Final = 10.0
"""After we have hung up, a keeper has nothing left to do but to end its decoder: one that takes longer is stuck."""


class NoDecoder(Exception):
    """No process for decoding could be had."""


class Decoder:
    """A running decoder process. `link` is the socket that it talks over."""

    def __init__(self, link: socket.socket, line: socket.socket, process_id: int) -> None:
        self.link = link
        self.process_id = process_id
        self._line = line
        self._has_ended = False
        """Its keeper has told how it ended."""

    def exit_code(self, timeout_s: float) -> int | None:
        """How it ended, negative for a signal; None when the process that watched it is gone.

        Raises TimeoutError while it runs.
        """
        self._line.settimeout(timeout_s)
        code = _number(self._line)
        self._has_ended = code is not None
        return code

    def close(self) -> None:
        """End it, whatever it does. It is gone when this returns, also from a keeper that does not answer.

        The line need not end for that: a process that was forked from ours meanwhile may hold a copy of its other side.
        """
        self.link.close()
        try:
            self._line.shutdown(socket.SHUT_WR)
            if not self._has_ended:
                self.exit_code(CLOSE_S)
        except TimeoutError:
            log.warning("A decoder is ended without its keeper", extra={"process_id": self.process_id})
            with contextlib.suppress(ProcessLookupError):  # until its keeper tells its end, nobody else has its id
                os.kill(self.process_id, signal.SIGKILL)
        except OSError:
            pass  # its keeper is gone, and it with its keeper
        self._line.close()


class Decoders:
    """Starts decoders. Safe to use from several threads; a forked process starts a server of its own."""

    def __init__(self, program: str = START) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def start(self, order: Order, timeout_s: float) -> Decoder:
        """Raises NoDecoder, TimeoutError when none is there in time."""
        for _ in range(TRIES):
            decoder = self._started(order, timeout_s)
            if decoder is not None:
                return decoder
        raise NoDecoder("the process that starts decoders ended twice")

    def _started(self, order: Order, timeout_s: float) -> Decoder | None:
        """None when the server has gone."""
        link, its_link = socket.socketpair()
        line, its_line = socket.socketpair()
        line.settimeout(timeout_s)
        server = None
        try:
            with its_link, its_line:
                server = self._running()
                self._ask(server, order, its_link, its_line)
            process_id = _number(line)
            if process_id is not None:
                return Decoder(link, line, process_id)
        except TimeoutError:
            _close(link, line)
            self._end(server)  # the next order would only wait for it as well
            raise
        except OSError:
            log.info("The process that starts decoders is started anew")
        _close(link, line)
        self._end(server)
        return None

    def _running(self) -> _Server:
        with self._lock:
            if self._server is None or self._server.owner_pid != os.getpid():
                self._server = _Server(self._program)
            return self._server

    def _ask(self, server: _Server, order: Order, *sockets: socket.socket) -> None:
        with self._lock:  # it is not closed meanwhile
            socket.send_fds(server.orders, [pack_order(order)], [one.fileno() for one in sockets])

    def _end(self, server: _Server | None) -> None:
        """Unless another thread has ended it: what runs by now is another one, and at work."""
        with self._lock:
            if server is not None and server is self._server:
                self._server = None
                server.close()

    def close(self) -> None:
        """End the server; decoders that run go on. The next order starts another one."""
        with self._lock:
            server, self._server = self._server, None
            if server is not None and server.owner_pid == os.getpid():
                server.close()


class _Server:
    """It ends when `orders` is closed, by us or by our end."""

    def __init__(self, program: str) -> None:
        self.owner_pid = os.getpid()
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-c", program, str(Path(consumer.__file__).parent.parent)),
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8"},
                cwd="/",
            )

    def close(self) -> None:
        self.orders.close()
        self._process.kill()  # it holds nothing; waiting for it to hear of the end could take as long as others hold it
        self._process.wait()


def _number(line: socket.socket) -> int | None:
    data = line.recv(NUMBER.size, socket.MSG_WAITALL)
    return NUMBER.unpack(data)[0] if len(data) == NUMBER.size else None


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


SHARED: Final = Decoders()
"""The process's own."""
atexit.register(SHARED.close)
