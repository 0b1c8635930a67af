"""The process that makes decoders: it imports what decoding needs once, and forks for each recording.

    our process ── order + two sockets ──▶ server ── fork ──▶ keeper ── fork ──▶ decoder (confined)

The decoder talks to us over its link. The keeper is its parent, as only a parent learns how a process ended: it tells
the decoder's process id, ends the decoder when we hang up, and tells its exit code. Server and keeper touch no byte of
a recording, and the server knows nothing of our environment, which holds secrets.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

from consumer.audio import decoder_process
from consumer.audio.protocol import MAX_ORDER_BYTES, NUMBER, Order, parse_order


def main(arguments: list[str]) -> int:
    """Argument: the descriptor of the socket with the orders (SOCK_SEQPACKET: one order is one message)."""
    orders = socket.socket(fileno=int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; what runs is for our process to end
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    decoder_process.rehearse()
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, MAX_ORDER_BYTES, 2)
        if not message:
            return 0
        with _sockets(descriptors) as (link, line):
            if os.fork() == 0:
                orders.close()
                os._exit(keep(parse_order(message), link, line))


@contextlib.contextmanager
def _sockets(descriptors: list[int]) -> Iterator[list[socket.socket]]:
    opened = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


def keep(order: Order, link: socket.socket, line: socket.socket) -> int:
    """Fork the decoder, and see it to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    keeper_pid = os.getpid()
    decoder_pid = os.fork()
    if decoder_pid == 0:
        line.close()
        os._exit(decoder_process.run(link, order, keeper_pid))
    link.close()
    line.sendall(NUMBER.pack(decoder_pid))
    _until_either(os.pidfd_open(decoder_pid), line)
    os.kill(decoder_pid, signal.SIGKILL)  # without effect on one that has ended: it is there until the line below
    _, status = os.waitpid(decoder_pid, 0)
    line.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    return 0


def _until_either(*ready: Any) -> None:
    """Until the decoder has ended, or we have hung up: nothing is ever sent to a keeper."""
    poll = select.poll()
    for one in ready:
        poll.register(one, select.POLLIN)
    poll.poll()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
