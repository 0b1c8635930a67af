"""The audit trail: every event of it that docs/audit.md promises, each once, and nothing of what was said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from consumer.core import dead_letters as dead
from consumer.core.audit import NO_RUN, Action
from consumer.errors import Cancelled
from tests.chaos.evidence import Evidence, Noted, Result, RunKey
from tests.chaos.scenario import JOBS, Kind
from tests.chaos.verdict import Verdict, verdict

WITH_RESULT = frozenset({"completed", "partial"})
BY_REQUEST = frozenset({Action.JOB_ACCEPTED, Action.JOB_REFUSED, Action.REQUEST_REPEATED})
"""One for each request that the broker accepted, unless it is parked."""
BY_TRY = frozenset({Action.DATA_REMOVED, Action.RESULTS_EXPIRED})
"""One for each cleanup that is done. One that is given up has another outcome, which is nobody's promise."""


def audit_trail(seen: Evidence) -> Verdict:
    """All events that are due, no other ones, none twice; the log echoes them; and none says what was said."""
    twice = list(_twice(seen.noted))
    wrong = [*_of_runs(seen), *_of_requests(seen), *_of_parked(seen)]
    telling = list(_telling(seen))
    return verdict(
        "audit-trail",
        [*twice, *wrong, *_outcomes(seen), *_only_logged(seen), *telling],
        audit_events=len(seen.noted),
        audit_events_twice=len(twice),
        audit_events_telling=len(telling),
        audit_log_lines=len(seen.logged),
    )


def _twice(noted: Iterable[Noted]) -> Iterator[str]:
    """By the id that readers go by, and by what it says."""
    ids, facts = Counter(one.id for one in noted), Counter(noted)
    yield from (f"{count} events of the audit trail have the id {name}" for name, count in ids.items() if count > 1)
    yield from (f"{_said(one)} is in the audit trail {count} times" for one, count in facts.items() if count > 1)


def _of_runs(seen: Evidence) -> Iterator[str]:
    """Each run has exactly what it led to; a run without a result is judged by terminal-events."""
    found: dict[RunKey, Counter[str]] = defaultdict(Counter)
    for one in seen.noted:
        if one.action not in (Action.EVENT_PARKED, Action.REQUEST_REPEATED):
            found[one.run][one.action] += one.action not in BY_TRY or one.outcome == "ok"
    results = {result.run: result for result in seen.results}
    for run, result in results.items():
        yield from _differences(f"{run} ({result.status})", found[run], _due(seen, result))
    for run, actions in found.items():
        if run not in results and (run[1] == NO_RUN or actions[Action.JOB_FINISHED]):
            yield f"{run} has {sorted(actions)} in the audit trail, and no result"


def _due(seen: Evidence, result: Result) -> Counter[str]:
    """What a run must have in the trail, how often, by what else the topics hold of it."""
    run, kinds = result.run, {s.kind for s in seen.submissions if s.job == result.run[0]}
    return Counter(
        {
            Action.JOB_REFUSED if Kind.REFUSED in kinds else Action.JOB_ACCEPTED: 1,
            Action.JOB_FINISHED: 1,
            Action.RESULT_WRITTEN: int(result.status in WITH_RESULT),
            Action.JOB_CANCELLED: int(result.code == Cancelled.code),
            Action.RECORDING_READ: sum(one == run for one, _ in seen.readings),
            Action.DATA_REMOVED: seen.cleanings.count((run, False)),
            Action.RESULTS_EXPIRED: seen.cleanings.count((run, True)),
        }
    )


def _differences(whose: str, found: Mapping[str, int], due: Mapping[str, int]) -> Iterator[str]:
    for action in sorted({*found, *due}):
        if (there := found.get(action, 0)) != (asked := due.get(action, 0)):
            yield f"{whose} has {there} {action} in the audit trail, and {asked} are due"


def _of_requests(seen: Evidence) -> Iterator[str]:
    """Nothing that was asked for is without an event; of what nobody confirmed there may be one."""
    found = Counter(one.run[0] for one in seen.noted if one.action in BY_REQUEST)
    sent = [s for s in seen.submissions if s.kind in JOBS or s.kind is Kind.DUPLICATE]
    most, least = Counter(s.job for s in sent), Counter(s.job for s in sent if s.confirmed)
    for job in sorted({*found, *most}):
        if not least[job] <= found[job] <= most[job]:
            yield f"{job} was asked for {most[job]} times, and {found[job]} requests are in the audit trail"


def _of_parked(seen: Evidence) -> Iterator[str]:
    """Each dead letter has its event, by position and code, and no other event is said to be parked."""
    letters = [dict(letter.headers) for letter in seen.dead_letters]
    due = Counter(
        f"{_text(of, dead.TOPIC)}/{_text(of, dead.PARTITION)}@{_text(of, dead.OFFSET)} with {_text(of, dead.CODE)}"
        for of in letters
    )
    found = Counter(f"{one.target} with {one.outcome}" for one in seen.noted if one.action == Action.EVENT_PARKED)
    for place in sorted({*found, *due}):
        if found[place] != due[place]:
            yield f"{place} was parked {due[place]} times, and the audit trail says {found[place]} times"


def _text(headers: Mapping[str, bytes], name: str) -> str:
    return headers.get(name, b"").decode()


def _outcomes(seen: Evidence) -> Iterator[str]:
    """The end of a run has the code of its result, and what has no code is ok."""
    codes = {result.run: result.code or "ok" for result in seen.results}
    for one in seen.noted:
        match one.action:
            case Action.JOB_FINISHED | Action.JOB_REFUSED:
                due = codes.get(one.run, one.outcome)
            case Action.JOB_ACCEPTED | Action.RESULT_WRITTEN | Action.JOB_CANCELLED | Action.REQUEST_REPEATED:
                due = "ok"
            case _:
                continue
        if one.outcome != due:
            yield f"{_said(one)} should be {due}"


def _only_logged(seen: Evidence) -> Iterator[str]:
    """A line is written when its event is visible, once. A process that dies in between leaves none."""
    alone = Counter(seen.logged) - Counter(seen.noted)
    yield from (
        f"{_said(one)} is logged {count} times more than it is in the audit trail" for one, count in alone.items()
    )


def _telling(seen: Evidence) -> Iterator[str]:
    for one in (*seen.noted, *seen.logged):
        text = one.said.decode(errors="replace")
        if words := [word for word in seen.words if word in text]:
            yield f"{_said(one)} holds {len(words)} words that are not its to tell"


def _said(one: Noted) -> str:
    return f"{one.run}: {one.action} of {one.target} ({one.outcome}) at {one.happened_at}"
