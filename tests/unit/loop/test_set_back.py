"""A client that is set back within one assignment gives records again that the loop has in hand."""

from __future__ import annotations

from tests.unit.loop.rig import GatedHandler, Rig


def test_a_record_that_comes_again_is_neither_a_bug_nor_done_twice() -> None:
    rig, handler = Rig(), GatedHandler()
    rig.put(b"first", b"wait-second")
    loop, inbox = rig.worker(handler)
    rig.turn_until(lambda: handler.begun == [b"first", b"wait-second"], loop)
    inbox.seek(0, 0)
    rig.turn_until(lambda: inbox.position(0) == 2, loop)
    handler.open(b"wait-second")
    rig.put(b"third")
    rig.turn_until(lambda: b"done:third" in rig.out(), loop)
    assert rig.out() == [b"done:first", b"done:wait-second", b"done:third"]
    assert rig.committed() == 3
