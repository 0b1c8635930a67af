"""How soon another takes over, what is computed again, and whether anything stands still."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator

from consumer.exit_codes import ExitCode
from tests.chaos.evidence import Evidence, FaultDone, Life, Place, Standing
from tests.chaos.timeline import SERVER_FAULTS, SETTLE_S, Owners, Weather
from tests.chaos.verdict import Verdict, percentile, verdict

MOST_AGAIN_PER_FAULT = 1.1
CHUNK_TIMES = 3.0
FIRST_LOOK_S = 5.0
"""A second process that looked for the checkpoint before the first had stored it may begin so much later."""
GOOD_ENDINGS = frozenset({ExitCode.OK, ExitCode.UNAVAILABLE, ExitCode.BROKEN_WORKER})


def faults(seen: Evidence) -> Verdict:
    """All faults that were asked for happened, and processes that were asked to end did so by themselves."""
    findings = [f"fault {one.number} ({one.kind} of {one.target}) failed: {one.detail}" for one in _failed(seen)]
    if len(seen.faults) < seen.asked_faults:
        findings.append(f"only {len(seen.faults)} of {seen.asked_faults} faults happened")
    findings += [f"{one.target} did not end after SIGTERM" for one in seen.faults if "did not end" in one.detail]
    return verdict("faults", findings, faults=len(seen.faults), faults_by_kind=Counter(f.kind for f in seen.faults))


def _failed(seen: Evidence) -> list[FaultDone]:
    return [one for one in seen.faults if not one.ok]


def endings(seen: Evidence) -> Verdict:
    """No process ended by a bug or by its settings; a server that is away and a broken worker are what faults do."""
    codes = Counter(life.code for life in seen.lives if life.code is not None)
    bad = [life for life in seen.lives if life.code is not None and life.code >= 0 and life.code not in GOOD_ENDINGS]
    return verdict(
        "endings",
        [f"{life.name} ended with {life.code}" for life in bad],
        starts=len(seen.lives),
        not_alive=len(seen.not_alive),
        endings={str(code): count for code, count in sorted(codes.items())},
    )


def takeovers(seen: Evidence) -> Verdict:
    """P95 of the time from kill -9 to the first partition of the dead process in other hands.

    A kill that meets another fault of the servers or of its own group waits for that one too: it is counted apart.
    """
    owners, alone, all_of_them, last = Owners(seen), [], [], []
    for fault, life in _kills(seen):
        killed_s = life.end_s or fault.end_s
        moved = [owners.next_owner_s(place, killed_s, life.name) for place in owners.of(life.name, killed_s)]
        known = [time_s - killed_s for time_s in moved if time_s is not None]
        if known:
            all_of_them.append(min(known))
            last.append(max(known))
            if _is_alone(seen, fault, life, killed_s):
                alone.append(min(known))
    limit_s = seen.session_timeout_s + SETTLE_S
    p95 = percentile(alone, 0.95)
    findings = (
        [f"p95 of {len(alone)} takeovers is {p95:.1f} s, more than {limit_s:.0f} s"] if (p95 or 0) > limit_s else []
    )
    return verdict(
        "takeovers",
        findings,
        takeovers=len(alone),
        takeover_p95_s=_rounded(p95),
        takeovers_with_others=len(all_of_them),
        takeover_p95_with_others_s=_rounded(percentile(all_of_them, 0.95)),
        takeover_whole_p95_with_others_s=_rounded(percentile(last, 0.95)),
    )


def _kills(seen: Evidence) -> Iterator[tuple[FaultDone, Life]]:
    lives = {life.name: life for life in seen.lives}
    for fault in seen.faults:
        if fault.kind in ("kill", "torn") and fault.target in lives:
            yield fault, lives[fault.target]


def _is_alone(seen: Evidence, fault: FaultDone, life: Life, killed_s: float) -> bool:
    """No fault of the servers and none of the same kind of process near it."""
    window_s = seen.session_timeout_s + SETTLE_S
    kind_of_place = life.place.rpartition("-")[0]
    return not any(
        other.start_s < killed_s + window_s and other.end_s + window_s > killed_s
        for other in seen.faults
        if other.number != fault.number
        and (other.kind in SERVER_FAULTS or other.target.rpartition("-")[0] == kind_of_place)
    )


def computed_again(seen: Evidence) -> Verdict:
    """P3: at most what was in flight is computed again, and nothing that was finished."""
    begun: dict[tuple[object, int], list[float]] = defaultdict(list)
    for one in seen.computations:
        if one.step == "begun":
            begun[one.run, one.chunk].append(one.time_s)
    again = sum(len(times) - 1 for times in begun.values())
    rate = again / max(1, len(seen.faults))
    findings = list(_finished_again(seen, begun))
    if rate > MOST_AGAIN_PER_FAULT:
        findings.append(f"{again} chunks were begun again in {len(seen.faults)} faults")
    return verdict(
        "computed-again", findings, chunks=len(begun), computed_again=again, computed_again_per_fault=round(rate, 3)
    )


def _finished_again(seen: Evidence, begun: dict[tuple[object, int], list[float]]) -> Iterator[str]:
    frozen = [fault for fault in seen.faults if fault.kind == "freeze"]
    for one in seen.computations:
        if one.step != "stored":
            continue
        for time_s in begun[one.run, one.chunk]:
            late = time_s > one.time_s + FIRST_LOOK_S
            if late and not any(f.start_s < time_s and f.end_s + FIRST_LOOK_S > time_s for f in frozen):
                yield f"chunk {one.chunk} of {one.run} was begun {time_s - one.time_s:.1f} s after it was finished"


def standstill(seen: Evidence) -> Verdict:
    """In calm times no process that has chunk work to do moves nothing for longer than a few chunk times."""
    p99 = percentile([one.duration_s for one in seen.computations if one.step == "stored"], 0.99)
    longest_s, who = _longest_standstill(seen)
    limit_s = CHUNK_TIMES * p99 if p99 else None
    findings = []
    if limit_s is not None and longest_s > limit_s:
        findings.append(f"{who} had work and moved nothing for {longest_s:.1f} s, more than {limit_s:.1f} s")
    return verdict("standstill", findings, chunk_p99_s=_rounded(p99), longest_standstill_s=round(longest_s, 1))


def _longest_standstill(seen: Evidence) -> tuple[float, str]:
    owners, weather = Owners(seen), Weather(seen)
    longest_s, who = 0.0, ""
    for life in (life for life in seen.lives if "transcribe" in life.roles):
        since: Standing | None = None
        for standing in seen.standings:
            waiting = _waiting(seen, owners, weather, life, standing)
            if not waiting or since is None or _moved(since, standing, waiting):
                since = standing if waiting else None
            elif standing.time_s - since.time_s > longest_s:
                longest_s, who = standing.time_s - since.time_s, life.name
    return longest_s, who


def _waiting(seen: Evidence, owners: Owners, weather: Weather, life: Life, standing: Standing) -> frozenset[Place]:
    """The partitions of this process with work on them, in a calm time; nothing in any other."""
    now_s, settle_s = standing.time_s, seen.session_timeout_s + SETTLE_S
    lived = life.start_s < now_s and (life.end_s is None or now_s < life.end_s)
    if not lived or not weather.is_calm(life, now_s, now_s):
        return frozenset()
    held = owners.of(life.name, now_s)
    if not held or now_s - owners.last_change_s(life.name, now_s) < settle_s:
        return frozenset()
    return frozenset(place for place in held if _has_work(seen, place, standing))


def _has_work(seen: Evidence, place: Place, standing: Standing) -> bool:
    """A chunk lies between the committed position and the end: markers alone are no work."""
    committed, end = standing.places.get(place, (0, 0))
    offsets = seen.records.get(place, ())
    at = bisect_left(offsets, committed)
    return at < len(offsets) and offsets[at] < end


def _moved(before: Standing, now: Standing, places: frozenset[Place]) -> bool:
    return any(now.places.get(place, (0, 0))[0] != before.places.get(place, (0, 0))[0] for place in places)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
