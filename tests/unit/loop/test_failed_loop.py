"""A loop that ends by an error leaves its group in good order, and says and takes back nothing on its way out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumer.broker import Inbox, Marks
from consumer.errors import BrokenGpuContext, Fenced
from consumer.loop import Loop
from consumer.ports import Outgoing, Received
from consumer.tasks import Ticket
from tests.unit.loop.rig import OUT, WORK, GatedHandler, Rig


class BrokenHandler(GatedHandler):
    """A record `deadly` takes the device down with it."""

    def __call__(self, record: Received, ticket: Ticket) -> Sequence[Outgoing]:
        if record.value == b"deadly":
            raise BrokenGpuContext("the CUDA context is lost (an illegal memory access was encountered)")
        return super().__call__(record, ticket)


def run(loop: Loop) -> None:
    """As the program runs it: joining, working, leaving the group."""
    loop.run()


def test_a_record_that_breaks_its_process_in_good_order_is_given_up_all_the_same() -> None:
    """A Python error leaves the group by the book, and the group's farewell must not wipe the count."""
    rig = Rig()
    rig.put(b"deadly", b"fine")
    for _ in range(3):
        loop, _ = rig.worker(BrokenHandler(), capacity=1.0, opened=False)
        with pytest.raises(BrokenGpuContext):
            run(loop)
    loop, _ = rig.worker(BrokenHandler(), capacity=1.0)
    rig.turn_until(lambda: len(rig.out()) == 2, loop)
    assert rig.out() == [b"gave up after 3", b"done:fine"]


def test_what_waited_beside_it_is_not_counted() -> None:
    rig = Rig()
    rig.put(b"deadly", b"innocent")
    for _ in range(2):
        loop, _ = rig.worker(BrokenHandler(), capacity=5.0, opened=False)
        with pytest.raises(BrokenGpuContext):
            run(loop)
    assert rig.note() == "0:2"


def test_a_fenced_process_publishes_nothing_on_its_way_out() -> None:
    """Else it would start a producer under the shared id once more, and fence the process that replaced it."""
    rig, asked = Rig(), 0

    def fenced(records: Sequence[Outgoing], marks: Sequence[tuple[Inbox, Marks]]) -> None:
        nonlocal asked
        asked += 1
        raise Fenced("another process uses the transactional id")

    rig.put(b"r")
    loop, _ = rig.worker(GatedHandler(), opened=False)
    loop._outbox.publish = fenced  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        run(loop)
    assert asked == 1
    assert rig.broker.records(OUT) == []
    successor, _ = rig.worker(GatedHandler())
    rig.turn_until(lambda: rig.out() == [b"done:r"], successor)
    assert rig.broker.lag(WORK, "group") == 0
