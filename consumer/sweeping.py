"""`whisperx-consumer sweep`: the command around `sweep`, with the real store, broker and audit trail."""

from __future__ import annotations

import argparse
import getpass
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

from consumer.adapters.kafka_tail import KafkaTail
from consumer.adapters.object_store import S3Store
from consumer.audit import echoed, log_published
from consumer.bootstrap import Parts
from consumer.broker import Outbox, PublishAborted, PublishInDoubt
from consumer.coordinator.state import JobState
from consumer.core.audit import NO_RUN, Action
from consumer.core.identity import job_id_from_position
from consumer.core.layout import Topic
from consumer.core.orphans import Folder
from consumer.errors import BrokerUnavailable
from consumer.events import AuditRecorded
from consumer.exit_codes import ExitCode
from consumer.settings import Settings
from consumer.sweep import Found, Needed, Sweep, runs_needed

READ_S = 300.0
"""For the states of all jobs, the first time; the next times only a few are new."""
CLOSE_S = 5.0
MOST_HOURS = 24 * 3650
MARGIN_HOURS = 24
"""How much older than any open job a folder has to be, unless the operator says otherwise."""


def add_sweep(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Find what no job needs any more in the work and results buckets: work of runs that have ended, result files "
        "without a manifest, probes. Whatever an open run, a retry or a cleanup still needs stays, by the job states "
        "in Kafka; while the brokers are away nothing is removed. On stdout one line per folder: what was done, why, "
        "objects, bytes, place."
    )
    command.add_argument("--delete", action="store_true", help="remove it; without this it is only shown")
    command.add_argument(
        "--older-than",
        type=_hours,
        metavar="HOURS",
        help="only what was last written so long ago (default: the longer retention of requests and work, and a day)",
    )
    command.add_argument("--per-second", type=_rate, metavar="N", help="at most so many folders per second")
    command.add_argument("--as", dest="operator", metavar="NAME", help="who does it (default: your login name)")
    command.add_argument("--json", action="store_true", help="one JSON object per line on stdout")
    command.set_defaults(act=sweep)


def _hours(text: str) -> float:
    if not 0 <= (hours := _number(text)) <= MOST_HOURS:
        raise argparse.ArgumentTypeError(f"give hours from 0 to {MOST_HOURS}")
    return hours


def _number(text: str) -> float:
    """Not a number is within no bounds."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _rate(text: str) -> float:
    if not (rate := _number(text)) > 0:
        raise argparse.ArgumentTypeError("give a rate above 0")
    return rate


def sweep(arguments: argparse.Namespace) -> int:
    """One pass. It may be interrupted at any time: the same command again does the rest."""
    settings = Settings()
    parts = Parts(settings)
    hours = default_hours(settings) if arguments.older_than is None else arguments.older_than
    with (
        _trail(parts, arguments.operator or getpass.getuser(), arguments.delete) as note,
        closing(KafkaTail(settings.kafka, parts.topic(Topic.JOB_STATE))) as states,
    ):
        made = Sweep(
            S3Store.of(settings.store),
            (settings.store.work_bucket, settings.store.results_bucket),
            NeededRuns(states).read,
            datetime.now(UTC) - timedelta(hours=hours),
            note,
        )
        found: Counter[str] = Counter()
        size_bytes = 0
        for one in made.run():
            print(_line(one, as_json=arguments.json), flush=True)
            found[one.outcome] += 1
            size_bytes += one.folder.size_bytes
            if arguments.per_second:
                time.sleep(1 / arguments.per_second)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found.items()) or "nothing found"
    print(f"{counts}; {size_bytes} bytes; {made.foreign} objects in no place of ours are left alone", file=sys.stderr)
    if found["found"]:
        print("nothing was changed; --delete does it", file=sys.stderr)
    return ExitCode.FAILED if set(found) - {"found", "removed"} else ExitCode.OK


def default_hours(settings: Settings) -> float:
    """Older than any job that can be open, whatever became of its state."""
    return max(settings.topics.work_retention_hours, settings.topics.jobs_retention_hours) + MARGIN_HOURS


class NeededRuns:
    """Which runs are needed, by the job states. The first reading is of all of them, each later one of what is new."""

    def __init__(self, states: KafkaTail) -> None:
        self._states = states
        self._of_jobs: dict[tuple[int, bytes | None], Needed] = {}
        """Only of jobs that need any. Where the number of partitions was changed, one may have states in two of them:
        what either needs is needed."""

    def read(self) -> Needed:
        """As of now. Raises BrokerUnavailable, Misconfigured."""
        newest = {(record.partition, record.key): record.value for record in self._states.read_on(READ_S)}
        for key, value in newest.items():
            needed = frozenset() if value is None else runs_needed([JobState.from_bytes(value)])
            if needed:
                self._of_jobs[key] = needed
            else:
                self._of_jobs.pop(key, None)
        return frozenset().union(*self._of_jobs.values())


@contextmanager
def _trail(parts: Parts, operator: str, delete: bool) -> Iterator[Callable[[Folder, str], None] | None]:
    if not delete:
        yield None
        return
    outbox = parts.named_outbox("sweep")
    try:
        with echoed(parts.settings):
            yield lambda folder, outcome: _note(parts, outbox, operator, folder, outcome)
    finally:
        outbox.close(CLOSE_S)


def _note(parts: Parts, outbox: Outbox, operator: str, folder: Folder, outcome: str) -> None:
    job_id, run = folder.run or (job_id_from_position(folder.bucket, 0, 0), NO_RUN)
    line = AuditRecorded(
        job_id=job_id,
        run=run,
        actor=f"sweep, {operator}",
        action=Action.ORPHANS_SWEPT,
        target=f"{folder.bucket}/{folder.prefix} ({len(folder.keys)} objects)",
        outcome=outcome,
        happened_at=datetime.now(UTC),
    )
    try:
        record = parts.post.record(Topic.AUDIT, line)
        outbox.publish([record], [])
    except (PublishAborted, PublishInDoubt) as exc:
        raise BrokerUnavailable(
            f"stopped at {folder.bucket}/{folder.prefix}: the audit trail cannot be written ({exc}); "
            "the same command again does the rest"
        ) from exc
    log_published([record])


def _line(one: Found, *, as_json: bool) -> str:
    place = f"{one.folder.bucket}/{one.folder.prefix}"
    objects, size_bytes = len(one.folder.keys), one.folder.size_bytes
    if as_json:
        return json.dumps(
            {"outcome": one.outcome, "why": one.why, "objects": objects, "size_bytes": size_bytes, "place": place}
        )
    return f"{one.outcome}\t{one.why}\t{objects}\t{size_bytes}\t{ascii(place)[1:-1]}"
