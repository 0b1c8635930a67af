"""Loops that do not poll for longer than `kafka.max_poll_interval_s`: the group puts them out, and they come back.

They are held where it hurts most, after a poll and before what they have made is published.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from consumer.bootstrap import Role
from consumer.core.layout import Topic
from consumer.events import ChunkTranscribed, JobFinished, JobStatus
from tests.integration.server_system import ALL, server_system
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

MAX_POLL_S = 6.0
HELD_S = MAX_POLL_S + 1.5
PROTOCOLS = [
    "classic",
    pytest.param(
        "consumer",
        marks=pytest.mark.skipif(
            "WHISPERX_TEST_POLL_INTERVAL" not in os.environ,
            reason="45 s of waiting, run with WHISPERX_TEST_POLL_INTERVAL=1; test_zombies has this protocol each time",
        ),
    ),
]
LANES = 8
"""Groups of all roles together: intake and transcribe read two topics each."""


class Hold:
    """Holds the thread that comes to a step of a loop, once, as soon as `moment` is true there."""

    def __init__(self, owner: Any, step: str, moment: Callable[[], bool] = lambda: True) -> None:
        self._step: Callable[..., object] = getattr(owner, step)
        self._moment = moment
        self.over = threading.Event()
        setattr(owner, step, self._held_step)

    def _held_step(self, *arguments: object) -> object:
        if not self.over.is_set() and self._moment():
            threading.Event().wait(HELD_S)  # the very thing under test is time that passes without a poll
            self.over.set()
        return self._step(*arguments)


def while_idle(loops: Mapping[Role, Any]) -> list[Hold]:
    return [Hold(loop, "_tick" if role is Role.COORDINATE else "_watch") for role, loop in loops.items()]


def while_busy(loops: Mapping[Role, Any], failing: bytes) -> list[Hold]:
    """With the failure of this job's plan collected, with a chunk in work, and with events that are only applied."""
    publisher, transcribe, coordination = loops[Role.PLAN]._publisher, loops[Role.TRANSCRIBE], loops[Role.COORDINATE]

    def has_failed() -> bool:
        return any(output.finished and output.task.job == failing for output in publisher._waiting)

    def is_working() -> bool:
        return any(task.runs for task in transcribe._tasks)

    def has_read() -> bool:
        return any(held.next_offset not in (None, held.committed) for held in coordination._partitions.values())

    return [
        Hold(publisher, "publish_due", has_failed),
        Hold(transcribe, "_watch", is_working),
        Hold(coordination, "_tick", has_read),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_loops_that_were_held_past_their_poll_interval_go_on_and_every_job_ends_once(
    kafka: Kafka, minio: Minio, topic_prefix: str, protocol: str
) -> None:
    """While idle, while work is running, and with an answer that is made and not published."""
    times = {"KAFKA__GROUP_PROTOCOL": protocol, "KAFKA__MAX_POLL_INTERVAL_S": str(MAX_POLL_S)}
    with server_system(kafka, minio, topic_prefix, **times) as system:
        member = system.start(ALL, chunk_s=0.2)

        def lost() -> float:
            return member.value("rebalances_total", kind="lost")

        system.wait(lambda: member.value("rebalances_total", kind="assigned") >= LANES)
        idle = while_idle(member.system._runners)
        system.wait(lambda: all(hold.over.is_set() for hold in idle))
        system.wait(lambda: lost() >= LANES, what="every loop lost what it had")

        busy = while_busy(member.system._runners, b"fails")
        system.upload()
        system.submit("fails", key="missing.flac")
        system.submit("works")
        results = system.finish("fails", "works")
        assert all(hold.over.is_set() for hold in busy)
        assert lost() >= LANES + len(busy)

        assert results["fails"].status is JobStatus.FAILED
        assert results["works"].status is JobStatus.COMPLETED
        told = Counter(one.job_id for one in system.all_events(Topic.RESULTS, JobFinished))
        assert told == {"fails": 1, "works": 1}
        partials = Counter(one.chunk_index for one in system.all_events(Topic.PARTIALS, ChunkTranscribed))
        assert partials == dict.fromkeys(range(results["works"].chunks_total), 1)
        assert system.attempts() == {1}, "being put out of a group is no failure of the work"
