"""Runs one server for the tests and ends it when the tests end, however they end.

    python guard.py COMMAND ARGUMENT...

The tests hold the other end of this process's standard input and never write to it. When they are gone,
even by SIGKILL, it reads the end of file and kills its own process group, which holds the server and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

STANDARD_INPUT = 0


def _end_with_the_tests() -> None:
    # Not sys.stdin: the interpreter would wait for its lock when the server ends first.
    os.read(STANDARD_INPUT, 1)
    os.killpg(0, signal.SIGKILL)


def main(command: list[str]) -> int:
    # SIGTERM goes to the whole group. The server obeys it; the guard waits for the server. A handler
    # rather than SIG_IGN, because an ignored signal would stay ignored in the server.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
