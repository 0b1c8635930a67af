"""Which runs a worker leaves: told by the control topic, where a cancel stays long after its run."""

from __future__ import annotations

import pytest

from consumer.adapters.memory_broker import MemoryBroker, MemoryTail
from consumer.control import Cancel, ControlWatch
from consumer.core.layout import Topic
from consumer.events import JobControl
from consumer.ports import Outgoing
from consumer.roles import Post
from consumer.wire import Codec

POST = Post(Codec(None, "/test"), "t.", lambda: 1000.0)


def watch_of(*controls: JobControl) -> ControlWatch:
    broker = MemoryBroker({"t.control": 1})
    for control in controls:
        broker.append(POST.record(Topic.CONTROL, control))
    broker.append(Outgoing("t.control", b"job", b"garbage"))
    watch = ControlWatch(MemoryTail(broker, "t.control"), POST.codec)
    watch.look()
    return watch


CANCEL = JobControl(job_id="job", action="cancel")
"""As a sender writes it."""
SECOND = JobControl(job_id="job", action="cancel", run=2, requested_by="coordinate")
"""As the coordinator names the run that it ends early."""


def test_a_cancel_means_its_job_and_no_other() -> None:
    watch = watch_of(CANCEL)
    assert watch.cancelled("job", 1)
    assert not watch.cancelled("other", 1)


def test_who_asked_first_for_the_end_of_a_run_is_remembered() -> None:
    asked = [CANCEL.model_copy(update={"requested_by": name}) for name in ("ada", "bob")]
    watch = watch_of(*asked)
    assert watch.cancelled("job", 1) == Cancel(1, "ada")
    assert watch_of(*asked, SECOND).cancelled("job", 1) == Cancel(2, "coordinate")


def test_a_cancel_does_not_mean_a_later_run() -> None:
    assert not watch_of(CANCEL, CANCEL).cancelled("job", 2)


@pytest.mark.parametrize("controls", [(SECOND,), (CANCEL, SECOND), (SECOND, CANCEL)])
def test_a_cancel_that_names_a_run_means_it_and_those_before_in_whatever_order_it_is_read(
    controls: tuple[JobControl, ...],
) -> None:
    watch = watch_of(*controls)
    assert [watch.cancelled("job", run) is not None for run in (1, 2, 3)] == [True, True, False]


def test_a_retry_that_was_asked_for_neither_cancels_nor_lifts_a_cancel() -> None:
    retry = JobControl(job_id="job", action="retry", run=1)
    assert watch_of(CANCEL, retry).cancelled("job", 1)
    assert not watch_of(retry).cancelled("job", 1)
