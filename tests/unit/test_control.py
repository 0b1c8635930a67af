"""Which runs a worker leaves: told by the control topic, where a cancel stays long after its run."""

from __future__ import annotations

from consumer.adapters.memory_broker import MemoryBroker, MemoryTail
from consumer.control import ControlWatch
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
SECOND = JobControl(job_id="job", action="restarted", run=2)


def test_a_cancel_means_its_job_and_no_other() -> None:
    watch = watch_of(CANCEL)
    assert watch.cancelled("job", 1)
    assert not watch.cancelled("other", 1)


def test_a_cancel_does_not_mean_a_later_run_even_before_its_note_is_read() -> None:
    for watch in (watch_of(CANCEL), watch_of(CANCEL, SECOND)):
        assert watch.cancelled("job", 1)
        assert not watch.cancelled("job", 2)


def test_a_cancel_after_the_note_means_the_new_run() -> None:
    assert watch_of(CANCEL, SECOND, CANCEL).cancelled("job", 2)
    assert watch_of(SECOND, SECOND.model_copy(update={"run": 1}), CANCEL).cancelled("job", 2)


def test_a_retry_that_was_asked_for_lifts_no_cancel() -> None:
    assert watch_of(CANCEL, JobControl(job_id="job", action="retry", run=1)).cancelled("job", 1)
