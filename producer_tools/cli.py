"""`whisperx-jobs`: from arguments to a command, from errors to a sentence and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from consumer.errors import WhisperXError
from producer_tools.connection import Connection, quiet_libraries, settings_from
from producer_tools.exit_codes import Exit, of_error
from producer_tools.instants import duration_from, instant_from
from producer_tools.parser import PROGRAM, SINCE, build_parser
from producer_tools.terminal import Terminal, printable

Command = Callable[[argparse.Namespace, Connection, Terminal], Exit]


def main(argv: Sequence[str] | None = None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as exc:  # argparse has said what is wrong, or has shown the help
        return int(exc.code or 0)
    terminal = Terminal(sys.stdout, sys.stderr)
    quiet_libraries(arguments.debug)
    try:
        return int(_COMMANDS[arguments.command](arguments, Connection(settings_from(arguments)), terminal))
    except WhisperXError as exc:
        _explain(exc, terminal, arguments.debug)
        return int(of_error(exc))
    except KeyboardInterrupt:
        terminal.erase()
        terminal.say("interrupted; jobs that were sent go on")
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        return int(Exit.READER_GONE)
    except Exception:  # noqa: BLE001 - the trace is shown, and a bug must not look like a failed job (1)
        terminal.erase()
        terminal.say(traceback.format_exc() + f"{PROGRAM}: this is a fault of the program; please report it")
        return int(Exit.BUG)


def _explain(error: WhisperXError, terminal: Terminal, debug: bool) -> None:
    terminal.erase()
    if debug:
        terminal.say("".join(traceback.format_exception(error)).rstrip())
    terminal.say(f"{PROGRAM}: {printable(error.message)} [{error.code}]")


def _forget_stdout() -> None:
    """Else the interpreter would try to flush to the reader that is gone, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _now() -> datetime:
    return datetime.now(UTC)


# The commands import what they need: the store's and the broker's clients take longer to load than `--help` to show.


def _submit(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    from producer_tools.submit import submit

    timeout_s = _timeout_s(arguments)
    if arguments.dry_run or not arguments.watch:
        submit(arguments, connection, terminal, _now)
        return Exit.OK
    if arguments.force:
        return _force_and_watch(arguments, timeout_s, connection, terminal)
    jobs = submit(arguments, connection, terminal, _now)
    return _watch_jobs(list(jobs), SINCE, timeout_s, connection, terminal, names=jobs)


def _force_and_watch(
    arguments: argparse.Namespace, timeout_s: float | None, connection: Connection, terminal: Terminal
) -> Exit:
    """Only the new runs are meant, so we learn first which runs there are."""
    from producer_tools.retry import RunsBefore
    from producer_tools.submit import submit

    before = RunsBefore(instant_from(SINCE, _now(), ahead=False), connection, terminal)
    jobs = submit(arguments, connection, terminal, _now, before.note)
    return _watch_jobs(list(jobs), SINCE, timeout_s, connection, terminal, before.runs, jobs)


def _watch(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    return _watch_jobs(arguments.jobs, arguments.since, _timeout_s(arguments), connection, terminal)


def _watch_jobs(
    jobs: Sequence[str],
    since: str,
    timeout_s: float | None,
    connection: Connection,
    terminal: Terminal,
    after: Mapping[str, int] | None = None,
    names: Mapping[str, str] | None = None,
) -> Exit:
    from producer_tools.watch import Patience, watch

    return watch(
        jobs, instant_from(since, _now(), ahead=False), Patience(timeout_s), connection, terminal, after, names
    )


def _result(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    from producer_tools.result import fetch_result, whole_file

    bucket = connection.settings.store.results_bucket
    wanted = (connection.store(), bucket, arguments.job, arguments.run, arguments.format)
    if arguments.output is None:
        fetch_result(*wanted, terminal.bytes_out())
        terminal.bytes_out().flush()
    else:
        with whole_file(Path(arguments.output)) as target:
            fetch_result(*wanted, target)
        terminal.say(f"wrote {printable(arguments.output)}")
    return Exit.OK


def _cancel(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    from producer_tools.cancel import cancel
    from producer_tools.submit import login_name

    who = arguments.requested_by or login_name()
    cancel(arguments.jobs, arguments.reason, who, connection, terminal, _now)
    return Exit.OK


def _retry(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    from producer_tools.retry import retry
    from producer_tools.submit import login_name

    timeout_s = _timeout_s(arguments)
    since = instant_from(arguments.since, _now(), ahead=False)
    who = arguments.requested_by or login_name()
    runs = retry(arguments.jobs, arguments.reason, who, since, connection, terminal, _now)
    return _watch_jobs(list(runs), SINCE, timeout_s, connection, terminal, runs) if arguments.watch else Exit.OK


def _dead_letters(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    from producer_tools import dead_letters

    if arguments.action in ("redrive", "discard"):
        return _settle_letters(arguments, connection, terminal)
    if arguments.action == "list":
        dead_letters.list_dead_letters(
            connection,
            terminal,
            since=instant_from(arguments.since, _now(), ahead=False),
            code=arguments.code,
            limit=arguments.limit,
            as_json=arguments.json,
            resolved=arguments.all,
        )
    elif arguments.raw:
        dead_letters.write_dead_letter(connection, terminal.bytes_out(), arguments.partition, arguments.offset)
    else:
        dead_letters.show_dead_letter(connection, terminal, arguments.partition, arguments.offset)
    return Exit.OK


def _settle_letters(arguments: argparse.Namespace, connection: Connection, terminal: Terminal) -> Exit:
    from consumer.core.dead_letters import How
    from producer_tools.letters import wanted_from
    from producer_tools.redrive import Order, Throttle, settle
    from producer_tools.submit import login_name

    order = Order(
        how=How.REDRIVEN if arguments.action == "redrive" else How.DISCARDED,
        by=arguments.by or login_name() or "somebody without a name",
        execute=arguments.execute,
        force=getattr(arguments, "force", False),
    )
    return settle(
        wanted_from(arguments, connection, _now()), order, Throttle(arguments.rate), connection, terminal, _now
    )


def _timeout_s(arguments: argparse.Namespace) -> float | None:
    return duration_from(arguments.timeout).total_seconds() if arguments.timeout else None


_COMMANDS: Mapping[str, Command] = {
    "submit": _submit,
    "watch": _watch,
    "result": _result,
    "cancel": _cancel,
    "retry": _retry,
    "dead-letters": _dead_letters,
}

if __name__ == "__main__":
    sys.exit(main())
