"""The process under test: the real system with the stand-in engine.

    python -m tests.chaos.worker --roles transcribe --pace 0.8 --notes FOLDER [--sabotage no-transactions]

Settings come from the environment, as for the product. SIGTERM and exit codes are those of `whisperx-consumer run`.
It starts in about two seconds, because nothing here imports torch.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from consumer import logs
from consumer.bootstrap import Role, System, serving
from consumer.errors import WhisperXError
from consumer.exit_codes import ExitCode, exit_code_of
from consumer.settings import Settings
from consumer.settings_reference import secrets
from tests.chaos.broken_builds import ChaosParts, Sabotage
from tests.chaos.paced_engine import PacedEngine

if TYPE_CHECKING:
    from consumer.speech.engine import SpeechEngine

log = logging.getLogger("tests.chaos.worker")

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    arguments = _parser().parse_args()
    _end_with_the_harness()
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # where does a process stand that does not move?
    settings = Settings()
    logs.configure(settings.log, secrets(settings))
    logs.log_uncaught()
    engine = cast("SpeechEngine", PacedEngine(pace_s=arguments.pace, notes=arguments.notes))
    parts = ChaosParts(settings, _engine=engine, sabotage=Sabotage(arguments.sabotage))
    code = _run(parts, [Role(name) for name in arguments.roles.split(",")])
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.worker")
    parser.add_argument("--roles", required=True)
    parser.add_argument("--pace", type=float, required=True, help="longest duration of a chunk in seconds")
    parser.add_argument("--notes", type=Path, required=True, help="folder that all processes share")
    parser.add_argument("--sabotage", choices=list(Sabotage), default=Sabotage.NONE)
    return parser


def _end_with_the_harness() -> None:
    """Also while stopped: a harness that is killed leaves nothing behind."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _run(parts: ChaosParts, roles: list[Role]) -> int:
    try:
        return _serve(System(parts, roles), parts)
    except WhisperXError as error:
        log.error("Ended by an error", extra={"code": error.code, "reason": error.message})
        return exit_code_of(error)
    except Exception as error:  # as the product's own command does
        log.critical("Ended by a bug", exc_info=error)
        return ExitCode.BUG


def _serve(system: System, parts: ChaosParts) -> int:
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: system.stop())
    signal.signal(signal.SIGUSR1, lambda *_: parts.tear.arm())
    with serving(system):
        system.start()
        system.wait()
    log.info("Stopped in good order")
    return ExitCode.OK


if __name__ == "__main__":
    main()
