"""How the program ends, as names for scripts and for Kubernetes. The numbers above 63 are those of sysexits.h."""

from __future__ import annotations

from enum import IntEnum

from consumer.errors import (
    BrokenWorker,
    DependencyAway,
    InvalidOption,
    Misconfigured,
    NotAuthorized,
    RefusedCredentials,
    RefusedLogin,
    Unavailable,
    WhisperXError,
)


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    """A job failed, or doctor found a fault."""
    USAGE = 2
    BUG = 70
    """Ended by an error that nobody foresaw; nothing was committed."""
    UNAVAILABLE = 75
    """A server is away; the same command may work later."""
    BROKEN_WORKER = 76
    """This process could not be trusted any more and left its work to the next one."""
    MISCONFIGURED = 78
    INTERRUPTED = 130


def exit_code_of(error: BaseException) -> ExitCode:
    """What an error that ended the program becomes."""
    match error:
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case InvalidOption():
            return ExitCode.USAGE
        case Misconfigured() | RefusedLogin() | NotAuthorized() | RefusedCredentials():
            return ExitCode.MISCONFIGURED
        case DependencyAway() | Unavailable():
            return ExitCode.UNAVAILABLE
        case BrokenWorker():
            return ExitCode.BROKEN_WORKER
        case WhisperXError():
            return ExitCode.FAILED
        case _:
            return ExitCode.BUG
