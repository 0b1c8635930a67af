"""Nothing lost, nothing twice: what the topics and the store hold after a run, against what was submitted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from consumer.core import dead_letters as dead
from consumer.core.retries import RetryPolicy, delay_s
from tests.chaos.evidence import Attempted, DeadLetter, Evidence, RunKey, Submission
from tests.chaos.scenario import DEAD, JOBS, Kind
from tests.chaos.verdict import Verdict, verdict

ENDINGS = {
    Kind.JOB: {"completed"},
    Kind.CANCELLED_JOB: {"cancelled", "completed"},
    Kind.MISSING_BUCKET: {"failed"},
    Kind.REFUSED: {"failed"},
}
CODES = {Kind.UNREADABLE: {"EVENT_UNREADABLE", "EVENT_INVALID"}, Kind.CONFLICTING: {"JOB_CONFLICT"}}
HEADERS = (dead.TOPIC, dead.PARTITION, dead.OFFSET, dead.TIMESTAMP, dead.CODE, dead.MESSAGE)
CLOCK_SLACK_S = 0.005
"""Record times are whole milliseconds."""


def terminal_events(seen: Evidence) -> Verdict:
    """P1 and P2: every run exactly one terminal event, of a kind that its request leads to, and no run from nowhere."""
    counts = Counter(result.run for result in seen.results)
    requests = {s.job: s for s in seen.submissions if s.kind in JOBS}
    lost = [job for job, s in requests.items() if s.confirmed and not counts[job, 1]]
    twice = [f"{run} has {count} terminal events" for run, count in counts.items() if count > 1]
    alien = [f"{run} was never asked for" for run in counts if run[0] not in requests or run[1] != 1]
    return verdict(
        "terminal-events",
        [*(f"{job} has no terminal event" for job in lost), *twice, *alien, *_wrong_endings(seen, requests)],
        runs=len(counts),
        lost_runs=len(lost),
        double_terminals=len(twice),
    )


def _wrong_endings(seen: Evidence, requests: dict[str, Submission]) -> Iterator[str]:
    for result in seen.results:
        request = requests.get(result.run[0])
        if request is not None and result.status not in ENDINGS[request.kind]:
            yield f"{result.run[0]} ({request.kind}) ended as {result.status} with {result.code}"


def partials(seen: Evidence) -> Verdict:
    """P2: a committed reader sees one partial per chunk, and all of a completed run."""
    counts = Counter((partial.run, partial.chunk) for partial in seen.partials)
    twice = [f"chunk {chunk} of {run} has {n} partials" for (run, chunk), n in counts.items() if n > 1]
    expected = {(r.run, chunk) for r in seen.results if r.status == "completed" for chunk in range(r.chunks_total)}
    lost = sorted(expected - counts.keys())
    return verdict(
        "partials",
        [*twice, *(f"chunk {chunk} of {run} has no partial" for run, chunk in lost)],
        partials=sum(counts.values()),
        lost_partials=len(lost),
        double_partials=len(twice),
    )


def transcripts(seen: Evidence) -> Verdict:
    """P4: every file of every completed run has the bytes of the run without faults."""
    recordings = {s.job: s.recording for s in seen.submissions if s.kind in JOBS}
    findings, compared = [], 0
    for result in seen.results:
        if result.status != "completed" or result.run[0] not in recordings:
            continue
        expected = seen.references.get(recordings[result.run[0]], {})
        compared += 1
        if not expected or dict(result.artifacts) != dict(expected):
            findings.append(f"{result.run[0]}: {_different(result.artifacts, expected)} differ from the reference")
    return verdict("transcripts", findings, transcripts_compared=compared, transcripts_different=len(findings))


def _different(found: object, expected: object) -> str:
    assert isinstance(found, dict)
    assert isinstance(expected, dict)
    return ", ".join(sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name)))


def dead_letters(seen: Evidence) -> Verdict:
    """Exactly the unreadable and the conflicting events, each once, with key, bytes, headers, position and reason."""
    sent = [s for s in seen.submissions if s.kind in DEAD]
    found: dict[tuple[str, str, str], list[DeadLetter]] = defaultdict(list)
    for letter in seen.dead_letters:
        headers = dict(letter.headers)
        where = tuple(headers.get(name, b"").decode() for name in (dead.TOPIC, dead.PARTITION, dead.OFFSET))
        found[where[0], where[1], where[2]].append(letter)
    findings: list[str] = []
    for one in sent:
        letters = found.pop((one.topic, str(one.partition), str(one.offset)), [])
        if one.confirmed and len(letters) != 1:
            findings.append(f"{one.kind} {one.job} has {len(letters)} dead letters")
        findings += [f"{one.kind} {one.job}: {fault}" for letter in letters for fault in _faults_of(letter, one)]
    findings += [f"a dead letter of {where} that was neither" for where in found if not _may_be_unknown(sent)]
    return verdict("dead-letters", findings, dead_letters=len(seen.dead_letters))


def _may_be_unknown(sent: list[Submission]) -> bool:
    """Whether some event's position is not known, so that a letter without a match may be its."""
    return any(not one.confirmed for one in sent)


def _faults_of(letter: DeadLetter, sent: Submission) -> Iterator[str]:
    headers = dict(letter.headers)
    if letter.key != sent.key or letter.value != sent.value:
        yield "its key or bytes are not the original ones"
    if tuple(h for h in letter.headers if h[0] not in HEADERS) != sent.headers:
        yield "its original headers are not kept"
    if missing := [name for name in HEADERS if not headers.get(name)]:
        yield f"it lacks {missing}"
    if headers.get(dead.CODE, b"").decode() not in CODES[sent.kind]:
        yield f"its code is {headers.get(dead.CODE)!r}"


def due_times(seen: Evidence) -> Verdict:
    """Nothing is sent again before it was due: work times against the failure before, by the coordinator's own rule."""
    policy = RetryPolicy(99, seen.retry_base_s, seen.retry_max_s)
    failures: dict[tuple[str, int], float] = {}
    for failure in seen.attempts:
        if failure.failed:
            failures.setdefault((failure.name, failure.attempt), failure.time_s)
    again = [work for work in seen.attempts if not work.failed and work.attempt > 1]
    findings = []
    for work in again:
        failed_s = failures.get((work.name, work.attempt - 1))
        if failed_s is None:
            findings.append(f"{work.name} was sent a {work.attempt}. time although its try before did not fail")
        elif work.time_s + CLOCK_SLACK_S < failed_s + delay_s(work.attempt - 1, policy, work.name):
            findings.append(
                f"{work.name} was sent a {work.attempt}. time {work.time_s - failed_s:.3f} s after its failure"
            )
    return verdict("due-times", [*findings, *_sent_twice(seen.attempts)], sent_again=len(again))


def _sent_twice(attempts: tuple[Attempted, ...]) -> Iterator[str]:
    """One transaction sends each attempt once. A run that ended early is cleaned twice, each time from attempt 1."""
    counts = Counter((work.run, work.name, work.attempt, work.kind) for work in attempts if not work.failed)
    for (_, name, attempt, kind), count in counts.items():
        if count > (2 if kind == "cleanup" else 1):
            yield f"attempt {attempt} of {name} was sent {count} times"


def progress(seen: Evidence) -> Verdict:
    """Progress of a run never goes back, and no number of it comes twice."""
    last: dict[RunKey, tuple[int, float]] = {}
    findings = []
    for told in seen.progress:
        sequence, fraction = last.get(told.run, (0, 0.0))
        if told.sequence <= sequence or told.fraction < fraction:
            findings.append(f"{told.run}: {told.sequence}/{told.fraction} after {sequence}/{fraction}")
        last[told.run] = told.sequence, told.fraction
    return verdict("progress", findings, progress_events=len(seen.progress))


def lag(seen: Evidence) -> Verdict:
    """Every group stands at the very end of its topics soon after the last result."""
    findings: list[str] = []
    if seen.lag_zero_after_s is None:
        findings += [f"{lag} records of lag are left on {topic}" for topic, lag in seen.lag_left.items()]
        findings = findings or ["lag 0 was not reached in time"]
    elif seen.lag_zero_after_s > 60.0:
        findings.append(f"lag 0 was reached {seen.lag_zero_after_s:.0f} s after the last result")
    return verdict("lag", findings, lag_zero_after_s=seen.lag_zero_after_s)
