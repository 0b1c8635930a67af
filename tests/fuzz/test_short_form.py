"""Some of the cases of `make fuzz` in every test run, and builds with a fault, each of which must be found out."""

from __future__ import annotations

import pytest

from tests.fuzz.case import Kind
from tests.fuzz.run import Found, Plan, run
from tests.fuzz.watch import cannot_watch
from tests.fuzz.wrong_builds import Wrong

SEED = 1
watched_only = pytest.mark.skipif(cannot_watch() is not None, reason=str(cannot_watch()))


@pytest.mark.parametrize(("kind", "count"), [("media", 200), ("events", 400)])
def test_whatever_is_spoiled_ends_with_a_code_and_opens_nothing(kind: Kind, count: int) -> None:
    found = run(Plan(kind, SEED, count, watch=cannot_watch() is None))
    assert found.findings == []
    assert sum(found.codes.values()) == count
    assert found.codes["completed"] > count / 20, "or nothing comes far enough to do harm"
    assert len(found.codes) > 5


def found_by(wrong: Wrong, *, watch: bool, limit_s: float = 60.0) -> Found:
    return run(Plan("media", SEED, 2, workers=1, limit_s=limit_s, wrong=wrong, watch=watch))


@watched_only
@pytest.mark.parametrize(
    ("wrong", "call"),
    [
        (Wrong.DECODER_LOOKS, 'openat(AT_FDCWD, "/etc/hostname"'),
        (Wrong.DECODER_CALLS, "socket(AF_INET"),
        (Wrong.PLANNER_WRITES, 'openat(AT_FDCWD, "/tmp/recording-that-is-kept"'),
    ],
)
def test_a_build_that_opens_something_is_found_out_even_if_it_is_denied(wrong: Wrong, call: str) -> None:
    found = found_by(wrong, watch=True)
    assert found.findings
    assert {one.what for one in found.findings} == {"opened"}
    assert all(one.detail.startswith(call) for one in found.findings)


@pytest.mark.parametrize(
    ("wrong", "what", "detail"),
    [
        (Wrong.RAISES, "death", "LookupError: a bug"),
        (Wrong.DIES, "death", "its process ended with -11"),
        (Wrong.HANGS, "hang", "nothing for 3 s"),
        (Wrong.GROWS, "memory", "bytes more"),
    ],
)
def test_a_build_that_ends_its_worker_is_found_out(wrong: Wrong, what: str, detail: str) -> None:
    found = found_by(wrong, watch=False, limit_s=3.0 if wrong is Wrong.HANGS else 60.0)
    assert found.findings
    assert {one.what for one in found.findings} == {what}
    assert detail in found.findings[0].detail
