"""What the decoder process takes from itself before it touches a byte of a recording.

After `confine` it can compute, and talk over the socket that it already has: no file and no socket can be opened
(RLIMIT_NOFILE 0 leaves open descriptors alone and refuses new ones), nothing can be written to a file, no privilege
can be gained, and memory and processor time are bounded. It dies with its parent. Behind these limits, which every
kernel has, stand the walls of `sandbox`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from consumer.audio.sandbox import take_files_and_network, take_system_calls

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


class OrphanedDecoder(Exception):
    """The parent was gone before this process had begun."""


def confine(memory_bytes: int, cpu_s: int, parent_pid: int) -> tuple[str, ...]:
    """Give up everything but computing. Import what is needed first: afterwards nothing can be imported.

    `memory_bytes` is address space beyond what is mapped now. Returns the walls that this machine does not have, each
    with the reason. Raises OSError where the kernel refuses a limit.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        raise OrphanedDecoder
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # nobody reads this process's memory, not even the same user
    address_space = _mapped_bytes() + memory_bytes
    files_and_network = take_files_and_network()
    _lower(resource.RLIMIT_CPU, cpu_s, grace=5)  # SIGXCPU, which has a name, before the hard limit's SIGKILL
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _lower(limit, value)
    return tuple(missing for missing in (files_and_network, take_system_calls()) if missing is not None)


def _lower(limit: int, value: int, grace: int = 0) -> None:
    """Set the soft limit, and the hard one `grace` above it; a hard limit that is lower already stays."""
    _, hard = resource.getrlimit(limit)
    new_hard = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(limit, (min(value, new_hard), new_hard))


def _mapped_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:  # as text, each decoder would import the encoding
        return int(statm.read().split()[0]) * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
