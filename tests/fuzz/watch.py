"""What the processes of a worker ask the kernel for, told by the kernel: strace's trace, read and judged.

Traced are the worker with all its threads, the server that starts decoders, the decoders and their keepers. An attempt
that is denied is in the trace as one that succeeds is, because tracing stands in front of every filter.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

MARKS: Final = "/fuzz-case/"
CALLS: Final = (
    "%file", "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "memfd_create", "ptrace",
    "process_vm_readv", "process_vm_writev", "io_uring_setup", "bpf", "open_by_handle_at", "prlimit64", "setrlimit",
)  # fmt: skip
"""All that opens something, or names a file. Where no socket can be opened, nothing can be sent anywhere."""

ALLOWED: Final = {
    r"socketpair\(AF_UNIX, ": "the two lines to a new decoder",
    r'openat\(AT_FDCWD, "/proc/self/statm", O_RDONLY\|O_CLOEXEC': "a new decoder looks at its size, to limit it",
    r"openat\(AT_FDCWD, 0x": "the same where the tracer may not read its memory",
    r'openat\(AT_FDCWD, "/proc/sys/vm/overcommit_memory", O_RDONLY\|O_CLOEXEC': "glibc, before it gives memory back",
    r'newfstatat\(\d+, "", ': "a question about what is open already",
    r"prlimit64\(0, RLIMIT_(CPU|CORE|FSIZE|AS|NOFILE), ": "a new decoder takes limits upon itself",
}
"""What processes may open that have not closed themselves yet. Those that have may open nothing at all."""

_CLOSED = re.compile(r"(prlimit64\(0, |setrlimit\()RLIMIT_NOFILE, \{rlim_cur=0,")
_LINE = re.compile(r"(\d+)\s+([a-z_0-9]+\(.*)")
_MARK = re.compile(rf'[a-z0-9]+\((?:AT_FDCWD, )?"{MARKS}(\w+)"')


@dataclass(frozen=True, slots=True)
class Deed:
    """A call that was not allowed; `number` is that of the case."""

    number: int
    process_id: int
    call: str


def mark(number: int | None) -> None:
    """Leave the beginning of a case in the trace; None: the end of the last."""
    with suppress(FileNotFoundError):
        os.stat(f"{MARKS}{'end' if number is None else number}")


@cache
def cannot_watch() -> str | None:
    """Why nothing can be watched here; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False)
    return f"strace may not trace here: {tried.stderr.decode()[:100]}" if tried.returncode else None


def watched(command: Sequence[str], trace: Path) -> list[str]:
    return ["strace", "-f", "-qq", "-s", "200", "-o", str(trace), "-e", f"trace={','.join(CALLS)}", *command]


def deeds(trace: Iterable[str]) -> Iterator[Deed]:
    """What was not allowed, from the first mark to the last."""
    number: int | None = None
    closed: set[int] = set()
    for line in trace:
        found = _LINE.match(line)
        if found is None:
            continue  # the end of a call whose beginning is further up, an exit or a signal
        process_id, call = int(found[1]), found[2]
        if marked := _MARK.match(call):
            number = None if marked[1] == "end" else int(marked[1])
            continue
        if process_id in closed or not _is_allowed(call):
            if number is not None:
                yield Deed(number, process_id, call.rstrip())
        elif _CLOSED.match(call):
            closed.add(process_id)


def _is_allowed(call: str) -> bool:
    return any(re.match(allowed, call) for allowed in ALLOWED)
