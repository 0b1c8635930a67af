"""The process that makes decoders: whoever of the three dies, no decoder is left behind and the next one starts."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import consumer
from consumer.audio.decode import decode
from consumer.audio.decoders import START, Decoder, Decoders, NoDecoder
from consumer.audio.protocol import Order
from consumer.errors import DecoderCrashed
from consumer.settings import LimitSettings
from tests import media
from tests.unit.audio.sources import BytesSource, read_out

ORDER = Order(size_bytes=1, memory_bytes=1 << 28, cpu_s=60)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with contextlib.closing(Decoders()) as started:
        yield started


def parent_of(process_id: int) -> int:
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[1])


def wait_for_the_end_of(*process_ids: int) -> None:
    """Of processes that are not our children; fails after ten seconds."""
    for process_id in process_ids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process_id)
            with open(descriptor, "rb"):
                assert select.select([descriptor], [], [], 10)[0], f"{process_id} goes on"


@contextlib.contextmanager
def one(decoders: Decoders) -> Iterator[Decoder]:
    with contextlib.closing(decoders.start(ORDER, 10)) as decoder:
        yield decoder


def test_all_come_from_one_server(decoders: Decoders) -> None:
    with one(decoders) as first, one(decoders) as second:
        servers = {parent_of(parent_of(decoder.process_id)) for decoder in (first, second)}
    assert len(servers) == 1


def test_a_server_that_was_ended_is_started_anew_and_its_decoders_go_on(decoders: Decoders) -> None:
    with one(decoders) as before:
        server = parent_of(parent_of(before.process_id))
        os.kill(server, signal.SIGKILL)
        with one(decoders) as after:
            assert parent_of(parent_of(after.process_id)) != server
            os.kill(before.process_id, 0)


def test_a_keeper_takes_its_decoder_along(decoders: Decoders) -> None:
    source = BytesSource(media.wav(media.tone(300)))
    with decode(source, LimitSettings(), decoders) as decoding:
        os.kill(parent_of(decoding.process_id), signal.SIGKILL)
        with pytest.raises(DecoderCrashed, match="watched"):
            read_out(decoding)
        wait_for_the_end_of(decoding.process_id)


def test_nothing_is_left_when_our_process_is_killed() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(consumer.__file__).parent.parent)!r})
from consumer.audio.decoders import Decoders
from consumer.audio.protocol import Order
decoder = Decoders().start(Order(1, 1 << 28, 60), 10)
print(decoder.process_id, flush=True)
sys.stdin.read()
"""
    ours = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with ours:
        assert ours.stdout is not None
        decoder = int(ours.stdout.readline())
        keeper = parent_of(decoder)
        server = parent_of(keeper)
        ours.kill()
        wait_for_the_end_of(decoder, keeper, server)


def test_a_decoder_is_ended_also_without_its_keeper(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.audio.decoders.CLOSE_S", 0.2)
    with contextlib.closing(decoders.start(ORDER, 10)) as decoder:
        keeper = parent_of(decoder.process_id)
        os.kill(keeper, signal.SIGSTOP)
        gone = os.pidfd_open(decoder.process_id)
    try:
        with open(gone, "rb"):
            assert select.select([gone], [], [], 10)[0], "the decoder goes on"
    finally:
        os.kill(keeper, signal.SIGCONT)


def test_a_copy_of_the_line_in_a_forked_process_does_not_keep_us(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forks while a decoder is started inherits the sockets that are on their way to it."""
    copies: list[socket.socket] = []
    ask = Decoders._ask

    def asked_while_somebody_forks(decoders: Decoders, server: Any, order: Order, *sockets: socket.socket) -> None:
        copies.extend(one.dup() for one in sockets)
        ask(decoders, server, order, *sockets)

    monkeypatch.setattr(Decoders, "_ask", asked_while_somebody_forks)
    monkeypatch.setattr("consumer.audio.decoders.CLOSE_S", 60.0)
    decoder = decoders.start(ORDER, 10)
    closing = threading.Thread(target=decoder.close, daemon=True)
    closing.start()
    closing.join(10)
    hangs = closing.is_alive()
    for copy in copies:
        copy.close()
    assert not hangs
    wait_for_the_end_of(decoder.process_id)


def test_a_server_that_does_not_answer_is_ended_and_the_next_order_has_another(tmp_path: Path) -> None:
    once = f"import pathlib, signal\nif not pathlib.Path({str(tmp_path / 'begun')!r}).exists():\n"
    once += f"    pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n    signal.pause()\n"
    with contextlib.closing(Decoders(once + START)) as decoders:
        with pytest.raises(TimeoutError):
            decoders.start(ORDER, 1)
        with one(decoders) as decoder:
            os.kill(decoder.process_id, 0)


def test_a_thread_that_finds_the_server_gone_leaves_the_new_one_of_another_thread_alone(decoders: Decoders) -> None:
    """Both had an order in the server that died; whoever is first starts the next one."""
    with one(decoders) as before:
        server = parent_of(parent_of(before.process_id))
        old = decoders._server
        os.kill(server, signal.SIGKILL)
        with one(decoders) as after:
            decoders._end(old)  # the second thread, which comes late
            with one(decoders) as last:
                assert parent_of(parent_of(last.process_id)) == parent_of(parent_of(after.process_id)) != server


def test_a_program_that_never_comes_up_is_no_decoder() -> None:
    with contextlib.closing(Decoders("raise SystemExit(1)")) as broken, pytest.raises(NoDecoder):
        broken.start(ORDER, 10)
