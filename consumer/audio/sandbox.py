"""What the kernel denies the decoder process: Landlock takes files and network away, a seccomp filter the system calls.

Both are walls behind the limits of `confine`, which hold on every kernel: a descriptor limit of 0 stops what opens a
file, but not what renames one, sends a signal or maps memory that can be executed. Where a kernel has no Landlock, or
the machine no libseccomp, the decoder runs without that wall, and says so.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import mmap
import os
from types import ModuleType
from typing import Final


def _library(name: str) -> ModuleType | None:
    """None where it, or the library of the system behind it, is not there. Later no file can be opened."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError):
        return None


landlockpy = _library("landlockpy")
seccomp = _library("pyseccomp")

CALLS: Final = (
    # the link to the parent
    *("read", "write", "readv", "writev", "recvfrom", "recvmsg", "sendto", "sendmsg", "poll", "ppoll", "close"),
    # memory; what maps or protects it as executable is denied below
    *("munmap", "mremap", "brk", "madvise"),
    # clocks, locks and signals of its own
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "futex", "sched_yield"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "rseq", "set_robust_list"),
    # questions about itself
    *("getpid", "gettid", "getrusage", "getcpu", "sched_getaffinity", "getrandom", "fstat", "lseek"),
    *("exit", "exit_group"),
)
"""All that decoding calls. Everything else fails with EPERM, as if the process had no right to it."""


def rehearse() -> None:
    """Have landlockpy look for the C library now: in each decoder it would start a program for that."""
    if landlockpy is not None:
        with contextlib.suppress(landlockpy.LandlockError):  # `take_files_and_network` says so
            landlockpy.abi_version()


def take_files_and_network() -> str | None:
    """Deny every file, TCP and UDP port, abstract socket and foreign process that this kernel's Landlock knows.

    Returns what is missing, None if nothing is. Needs a free descriptor.
    """
    if landlockpy is None:
        return "Landlock: landlockpy is not installed"
    try:
        with landlockpy.Ruleset(scoped=landlockpy.Scope.ABSTRACT_UNIX_SOCKET | landlockpy.Scope.SIGNAL) as ruleset:
            ruleset.restrict()
    except landlockpy.LandlockError as exc:
        return f"Landlock: this kernel says {errno.errorcode.get(exc.errno or 0, 'no')}"
    return None


def take_system_calls() -> str | None:
    """Deny every system call but those that computing and the open link need. Nothing can be undone after this.

    Returns what is missing, None if nothing is.
    """
    if seccomp is None:
        return "seccomp: pyseccomp or libseccomp is not installed"
    denied = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for call in CALLS:
        if _is_known(seccomp.resolve_syscall(seccomp.Arch.NATIVE, call)):
            denied.add_rule(seccomp.ALLOW, call)
    for call in ("mmap", "mprotect"):
        denied.add_rule(seccomp.ALLOW, call, seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    denied.add_rule(seccomp.ALLOW, "tgkill", seccomp.Arg(0, seccomp.EQ, os.getpid()))  # abort() has a name then
    try:
        denied.load()
    except OSError as exc:
        return f"seccomp: this kernel says {errno.errorcode.get(exc.errno or 0, 'no')}"
    return None


def _is_known(number: int) -> bool:
    """Not every machine has every call: `time` is missing where the clocks are younger."""
    return number >= 0
