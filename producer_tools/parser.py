"""The command line: commands, flags and their help. The page in docs/ is made from this."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from consumer.events import OutputFormat, Priority
from consumer.version import version
from producer_tools import exit_codes
from producer_tools.option_flags import add_option_flags

PROGRAM = "whisperx-jobs"
HELP_WIDTH = 100
"""Fixed, so that the help is the same on every terminal and in the docs."""
RECORDINGS_BUCKET = "transcription-recordings"
SINCE = "24h"

DESCRIPTION = """\
Send recordings to be transcribed, watch the jobs, fetch their results.

Settings come from the same WHISPERX_* variables as those of the service (WHISPERX_KAFKA__BOOTSTRAP_SERVERS,
WHISPERX_STORE__ENDPOINT, WHISPERX_STORE__ACCESS_KEY, ...); flags win over them. Data goes to stdout,
everything else to stderr.
"""

_Formatter = partial(argparse.RawDescriptionHelpFormatter, width=HELP_WIDTH, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """With our width, and without abbreviations, which break when a flag is added."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, **arguments})


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROGRAM, description=DESCRIPTION, epilog=f"exit codes:\n{exit_codes.table()}")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    shared = _shared()
    _submit(commands, shared)
    _watch(commands, shared)
    _result(commands, shared)
    _cancel(commands, shared)
    _retry(commands, shared)
    _dead_letters(commands, shared)
    return parser


def _shared() -> argparse.ArgumentParser:
    """What every command knows."""
    parser = _Parser(add_help=False)
    group = parser.add_argument_group("installation", "Where to find it; each flag wins over its variable.")
    group.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="Kafka brokers, with commas between")
    group.add_argument("--topic-prefix", metavar="TEXT", help="what all topic names begin with")
    group.add_argument("--endpoint", metavar="HOST:PORT", help="object store")
    group.add_argument("--plain-http", dest="secure", action="store_const", const=False, help="the store speaks no TLS")
    group.add_argument("--results-bucket", metavar="BUCKET", help="bucket of the results")
    group.add_argument("--registry", metavar="URL", help="schema registry; none: Avro single-object encoding")
    group.add_argument("--debug", action="store_true", help="show traces and what the client libraries log")
    return parser


def _submit(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "submit",
        parents=[shared],
        help="send recordings to be transcribed",
        description="Upload recordings where need be, and ask for their transcripts. On stdout one line per job: "
        "its id, a tab, the recording.\nA file is stored under the digest of its content, and the job id comes from "
        "content, options and metadata:\nthe same file sent twice is uploaded once and makes one job.",
    )
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIR|s3://BUCKET/KEY", help="what to transcribe")
    parser.add_argument("--recursive", action="store_true", help="go into folders of folders")
    parser.add_argument(
        "--bucket", default=RECORDINGS_BUCKET, metavar="BUCKET", help="bucket for uploads (default: %(default)s)"
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="what the keys of uploads begin with")
    parser.add_argument("--job-id", metavar="ID", help="id of the job, for one recording")
    parser.add_argument(
        "--idempotency-key", metavar="TEXT", help="two requests with the same key are one job, for one recording"
    )
    parser.add_argument(
        "--priority",
        choices=[one.value for one in Priority],
        default=Priority.NORMAL.value,
        help="lane of the job (default: %(default)s)",
    )
    parser.add_argument("--deadline", metavar="TIME", help="fail after this: 2024-05-01T12:00Z, or 2h from now")
    parser.add_argument(
        "--force",
        action="store_true",
        help="a new run also of a job that is known; a run of it that is open is cancelled",
    )
    parser.add_argument(
        "--metadata", action="append", default=[], metavar="NAME=VALUE", help="echoed in the result; repeat it for more"
    )
    parser.add_argument("--submitted-by", metavar="NAME", help="for the audit trail (default: your login name)")
    parser.add_argument("--json-event", action="store_true", help="send the event as JSON and not as Avro")
    parser.add_argument("--dry-run", action="store_true", help="print the events as JSON; upload and send nothing")
    parser.add_argument(
        "--watch", action="store_true", help="watch the jobs until they have ended; of forced ones the new run"
    )
    _timeout(parser)
    add_option_flags(parser)


def _watch(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "watch",
        parents=[shared],
        help="follow jobs until they have ended",
        description="Show the progress of jobs until all have ended. On stdout one line per job as it ends: id, "
        "status, error code, with tabs between.\nOf a job with several runs (it was forced, or retried) the newest one "
        "that is known counts.\nThe exit code is that of the worst outcome. Ctrl-C ends the watching and not the jobs.",
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="job id")
    _since(parser, SINCE)
    _timeout(parser)


def _result(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "result",
        parents=[shared],
        help="fetch a result file",
        description="Fetch one file of a finished job from the store, and check its digest. With --output the file "
        "appears only when it is complete and right.",
    )
    parser.add_argument("job", metavar="JOB", help="job id")
    parser.add_argument(
        "--format",
        choices=[*(one.value for one in OutputFormat), "manifest"],
        default=OutputFormat.JSON.value,
        help="which file (default: %(default)s)",
    )
    parser.add_argument("--run", type=_counting, metavar="N", help="run of the job, from 1 (default: the newest)")
    parser.add_argument("--output", metavar="FILE", help="where to write (default: stdout)")


def _cancel(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "cancel",
        parents=[shared],
        help="ask for the end of jobs",
        description="Ask for the end of jobs. A job that has ended already keeps its result.",
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="job id")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the result and the audit trail")
    parser.add_argument("--requested-by", metavar="NAME", help="for the audit trail (default: your login name)")


def _retry(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "retry",
        parents=[shared],
        help="run jobs again that failed, were cancelled or have gaps",
        description="""\
Ask for a new run of jobs whose newest run failed, was cancelled, or ended with parts missing. The new run uses again
what is still valid of the old one. All of the jobs are asked for, or none: a job that is completed, still runs or is
not known is refused, and so is the call. Asked twice, there is one new run.

The service remembers such jobs as long as their requests (WHISPERX_TOPICS__JOBS_RETENTION_HOURS); of an older one
nothing comes: submit it again. With --watch only the new runs are shown.""",
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="job id")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the audit trail")
    parser.add_argument("--requested-by", metavar="NAME", help="for the audit trail (default: your login name)")
    parser.add_argument("--watch", action="store_true", help="watch the new runs until they have ended")
    _since(parser, "30d")
    _timeout(parser)


def _dead_letters(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "dead-letters",
        help="look at events that could not be read, and settle them",
        description="Look at the dead-letter topic, send originals again, or set them aside.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    listing = actions.add_parser(
        "list",
        parents=[shared],
        help="list them",
        description="List dead letters that are open, the oldest first. On stdout with tabs between: partition, "
        "offset, time, code,\nposition of the original, message, how often it was redriven before, what became of it.",
    )
    listing.add_argument("--code", metavar="CODE", help="only those with this code, such as EVENT_UNREADABLE")
    listing.add_argument("--limit", type=_counting, default=50, metavar="N", help="the newest N (default: %(default)s)")
    listing.add_argument("--all", action="store_true", help="also those that were redriven or discarded")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    _since(listing, "365d")
    show = actions.add_parser(
        "show",
        parents=[shared],
        help="show one of them whole",
        description="Show headers, key and original bytes of one dead letter, escaped so that every byte can be seen.\n"
        "On stderr what became of it.",
    )
    show.add_argument("partition", type=_natural, metavar="PARTITION")
    show.add_argument("offset", type=_natural, metavar="OFFSET")
    show.add_argument("--raw", action="store_true", help="write the original bytes, and nothing else")
    _redrive(actions, shared)
    _discard(actions, shared)


def _redrive(actions: Any, shared: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "redrive",
        parents=[shared],
        help="send originals again, to the topics that they came from",
        description=f"""\
Send the originals of open dead letters again, as they were, to the topics that they came from.
{_SETTLING}

A letter with EVENT_UNREADABLE, EVENT_INVALID or JOB_CONFLICT would be parked again at once, so it is refused. With
--force it is sent: that is useful after an update to a version that can read it. Else let the sender correct the
event and send it again, or submit the recording under a new job id; then discard the letter.

An original that fails again comes back as a new dead letter, and the list counts how often it was redriven.""",
    )
    _settling(parser)
    parser.add_argument("--force", action="store_true", help="send also what failed for a reason that stays")


def _discard(actions: Any, shared: argparse.ArgumentParser) -> None:
    parser = actions.add_parser(
        "discard",
        parents=[shared],
        help="write down that nothing more is to be done with them",
        description=f"""\
Write down that nothing more is to be done with open dead letters: the list leaves them out from then on.
{_SETTLING}

Nothing is deleted: `list --all` and `show` still know them until the topic's retention is over.""",
    )
    _settling(parser)


_SETTLING = """\
Without --execute it only says what would be done. On stdout one line per letter: what is done with it, then what `list`
shows. Letters that are redriven or discarded already are passed by. Each letter is one transaction, so the command
may be interrupted or killed at any time: the same command again does only the rest. A second call in the same
installation stops the first one."""


def _settling(parser: argparse.ArgumentParser) -> None:
    """Which letters, and how."""
    parser.add_argument("partition", nargs="?", type=_natural, metavar="PARTITION", help="one letter, as listed")
    parser.add_argument("offset", nargs="?", type=_natural, metavar="OFFSET")
    parser.add_argument("--code", metavar="CODE", help="those with this code, such as WORKER_KILLED")
    parser.add_argument("--job", metavar="JOB", help="those whose bytes or key name this job id")
    parser.add_argument("--topic", metavar="TOPIC", help="those whose originals were on this topic, such as jobs")
    parser.add_argument("--since", metavar="TIME", help="those parked since: 24h, 7d, or 2024-05-01T12:00Z")
    parser.add_argument("--until", metavar="TIME", help="those parked before: the same forms")
    parser.add_argument("--rate", type=_rate, metavar="N", help="at most N per second (default: no limit)")
    parser.add_argument("--by", metavar="NAME", help="who settles them (default: your login name)")
    execution = parser.add_mutually_exclusive_group()
    execution.add_argument("--execute", action="store_true", help="do it")
    execution.add_argument("--dry-run", action="store_true", help="only say what would be done; the default")


def _since(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--since",
        default=default,
        metavar="TIME",
        help="how far to look back: 24h, 7d, or an instant such as 2024-05-01T12:00Z (default: %(default)s)",
    )


def _timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", metavar="TIME", help="watch no longer than this, such as 30m (default: no end)")


def _natural(text: str) -> int:
    """0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 up")
    return int(text)


def _counting(text: str) -> int:
    """1, 2, ..."""
    if _natural(text) == 0:
        raise argparse.ArgumentTypeError("counted from 1")
    return int(text)


def _rate(text: str) -> float:
    """Above 0, such as 0.5."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return rate
