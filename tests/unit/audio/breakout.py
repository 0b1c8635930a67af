"""python -m tests.unit.audio.breakout WALL FOLDER: put up one wall, try to get past it, and print what came of it.

WALL: landlock, seccomp, or no-landlock and no-seccomp for the same attempts without the wall.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import landlockpy

from consumer.audio import sandbox

PAGE_BYTES = 4096
Attempt = Callable[[], object]


class Targets:
    """What stood open, and what lay about, before the wall was there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old, self.other = folder / "old", folder / "other"
        self.old.write_text("as it was")
        self.other.write_text("as it was")
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.page = mmap.mmap(-1, PAGE_BYTES)
        self.page_address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        self.abstract = b"\0breakout-%d" % os.getpid()
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.bind(self.abstract)
        self.peer.listen()
        self.caller, self.server, self.unix = socket.socket(), socket.socket(), socket.socket(socket.AF_UNIX)
        self.datagrams = socket.socket(type=socket.SOCK_DGRAM)

    def call(self, name: str, *arguments: int) -> None:
        """A function of libc that returns -1 and sets errno when it fails."""
        if getattr(self.libc, name)(*(ctypes.c_long(argument) for argument in arguments)) == -1:
            raise OSError(ctypes.get_errno(), name)


def against_landlock(on: Targets) -> dict[str, tuple[int, Attempt]]:
    """Each attempt with the version of Landlock's interface from which on it is denied."""
    return {
        "read a file": (1, lambda: open("/etc/passwd").close()),
        "read a process": (1, lambda: open(f"/proc/{os.getppid()}/status").close()),
        "list a folder": (1, lambda: os.listdir("/")),
        "make a file": (1, lambda: (on.folder / "new").write_text("")),
        "make a folder": (1, lambda: (on.folder / "sub").mkdir()),
        "make a link": (1, lambda: (on.folder / "link").symlink_to("/etc/passwd")),
        "rename a file": (1, lambda: on.other.rename(on.folder / "renamed")),
        "delete a file": (1, lambda: on.old.unlink()),
        "call a host": (4, lambda: on.caller.connect(on.address)),
        "take calls": (4, lambda: on.server.bind(("127.0.0.1", 0))),
        "call an abstract socket": (6, lambda: on.unix.connect(on.abstract)),
        "send its parent a signal": (6, lambda: os.kill(os.getppid(), 0)),
    }


def against_seccomp(on: Targets) -> dict[str, Attempt]:
    """Numbers are those of x86-64, for calls without a function in libc."""
    return {
        "read a file": lambda: open("/etc/passwd").close(),
        "ask for a file": lambda: os.stat("/etc/passwd"),
        "make a file": lambda: (on.folder / "new").write_text(""),
        "change a mode": lambda: on.old.chmod(0o700),
        "change an owner": lambda: os.chown(on.old, os.getuid(), -1),
        "rename a file": lambda: on.old.rename(on.folder / "renamed"),
        "make a file in memory": lambda: os.memfd_create("x"),
        "open a socket": socket.socket,
        "open a pair of sockets": socket.socketpair,
        "call over an open socket": lambda: on.caller.connect(on.address),
        "take calls on an open socket": lambda: on.server.bind(("127.0.0.1", 0)),
        "name a host for datagrams": lambda: on.datagrams.connect(on.address),
        "double a descriptor": lambda: os.dup(0),
        "ask for another's limits": lambda: on.call(
            "prlimit", os.getppid(), resource.RLIMIT_NOFILE, 0, on.page_address
        ),
        "change a limit": lambda: on.call("setrlimit", resource.RLIMIT_CORE, on.page_address),
        "send its parent a signal": lambda: os.kill(os.getppid(), 0),
        "make a process": lambda: os.fork() or os._exit(0),
        "run a program": lambda: on.call("execv", 0, 0),
        "become another user": lambda: os.setuid(os.getuid()),
        "leave its root": lambda: os.chroot("/nowhere"),
        "map memory to execute": lambda: mmap.mmap(-1, PAGE_BYTES, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "make memory executable": lambda: on.call("mprotect", on.page_address, PAGE_BYTES, mmap.PROT_EXEC),
        "follow a process": lambda: on.call("ptrace", 0x4206, os.getppid(), 0, 0),
        "read another's memory": lambda: on.call("process_vm_readv", os.getppid(), 0, 0, 0, 0, 0),
        "make a name space": lambda: on.call("unshare", 0),
        "rename the process": lambda: on.call("prctl", 15, on.page_address, 0, 0, 0),
        "io_uring": lambda: on.call("syscall", 425, 1, on.page_address),
        "bpf": lambda: on.call("syscall", 321, 0, 0, 0),
        "perf events": lambda: on.call("syscall", 298, 0, 0, -1, -1, 0),
        "keys": lambda: on.call("syscall", 250, 0, -3, 0),
        "page faults": lambda: on.call("syscall", 323, 1),
    }


def outcome(attempt: Attempt) -> int | None:
    try:
        attempt()
    except OSError as exc:
        return exc.errno
    return None


def main(wall: str, folder: str) -> None:
    targets = Targets(Path(folder))
    known = landlockpy.abi_version()
    tries = {
        "landlock": {name: one for name, (since, one) in against_landlock(targets).items() if since <= known},
        "seccomp": against_seccomp(targets),
    }[wall.removeprefix("no-")]
    put_up = {"landlock": sandbox.take_files_and_network, "seccomp": sandbox.take_system_calls}.get(wall)
    missing = put_up() if put_up else None
    print(json.dumps({"missing": missing, "outcomes": {name: outcome(attempt) for name, attempt in tries.items()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
