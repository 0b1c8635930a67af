"""Who makes a decoder work and gives nothing for it is refused; who is decoded slowly by a slow machine is not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from consumer.audio import effort
from consumer.audio.decode import decode
from consumer.audio.decoders import Decoders
from consumer.audio.effort import Effort
from consumer.errors import DecoderLimit
from consumer.settings import LimitSettings
from tests import media
from tests.unit.audio.sources import BytesSource, read_out
from tests.wrong_decoders import program_with


class Hours:
    """A clock on which nothing passes but what is added."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    made = Hours()
    monkeypatch.setattr(effort, "time", SimpleNamespace(monotonic=made.monotonic, clock_gettime=lambda _: 0.0))
    return made


class TestEffort:
    def test_has_a_grace_and_earns_more_with_sound_and_with_bytes(self, hours: Hours) -> None:
        one = Effort(os.getpid(), grace_s=30, s_per_audio_s=0.5)
        for _ in range(50):
            with one.waiting():
                hours.now_s += 2
        assert one.excess(audio_s=100, read_bytes=0) == "its decoder was waited for 100.0 s for 100.0 s of sound"
        assert one.excess(audio_s=141, read_bytes=0) is None
        assert one.excess(audio_s=0, read_bytes=701 << 20) is None

    def test_counts_only_what_is_waited_for_the_decoder(self, hours: Hours) -> None:
        one = Effort(os.getpid(), grace_s=30, s_per_audio_s=0.5)
        with one.waiting():
            pass
        hours.now_s += 3600
        assert one.excess(audio_s=0, read_bytes=0) is None

    def test_does_not_take_a_suspended_machine_for_a_decoder_that_does_nothing(self, hours: Hours) -> None:
        one = Effort(os.getpid(), grace_s=30, s_per_audio_s=0.5)
        with one.waiting():
            hours.now_s += 3600
        assert one.excess(audio_s=0, read_bytes=0) is None

    def test_counts_the_processor_time_of_the_process(self) -> None:
        assert str(Effort(os.getpid(), 1e-9, 1e-9).excess(1, 0)).startswith("its decoder worked ")
        assert Effort(os.getpid(), time.process_time() + 60, 1).excess(0, 0) is None

    def test_knows_nothing_of_a_process_that_is_gone(self) -> None:
        gone = os.fork() or os._exit(0)
        os.waitpid(gone, 0)
        assert Effort(gone, 1e-9, 1e-9).excess(1, 0) is None


MINUTE = media.wav(media.tone(60, 8_000), 8_000)


def test_neither_a_slow_store_nor_a_busy_planner_is_the_recordings_fault(hours: Hours) -> None:
    def an_hour_each(_offset: int) -> None:
        hours.now_s += 3600

    limits = LimitSettings(decoder_grace_s=1, decoder_s_per_audio_s=0.001)
    with decode(BytesSource(MINUTE, before_read=an_hour_each), limits) as decoding:
        for _ in decoding.blocks():
            hours.now_s += 3600
    assert hours.now_s > 10 * 3600


def decoders(how: str) -> Decoders:
    """Decoder processes whose blocks of samples come as `how` says, a generator of Python."""
    patch = f"""
import time
from consumer.audio import decoder_process, protocol
whole = decoder_process.gathered
def slowly(blocks, *rest):
    for block in whole(blocks, *rest):
{how}
decoder_process.gathered = slowly
"""
    return Decoders(program_with(patch))


WORKS = """
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        yield block[:2]
"""
SLEEPS = """
        time.sleep(0.2)
        yield block[:2]
"""


@pytest.fixture(params=[WORKS, SLEEPS], ids=["that works", "that sleeps"])
def trickling(request: pytest.FixtureRequest) -> Iterator[Decoders]:
    with closing(decoders(request.param)) as made:
        yield made


def test_a_decoder_that_gives_a_trickle_is_ended_long_before_its_file_is(trickling: Decoders) -> None:
    limits = LimitSettings(decoder_grace_s=0.3)
    with decode(BytesSource(MINUTE), limits, trickling) as decoding, pytest.raises(DecoderLimit, match="of sound"):
        read_out(decoding)


BYTE_BY_BYTE = """
        link = decoder_process.LINK
        link.sendall(b"\\x04\\x00\\x00\\xff\\xff")
        while True:
            link.sendall(b"x")
            time.sleep(0.05)
        yield block
"""


def test_a_frame_that_never_gets_whole_is_no_sign_of_life() -> None:
    hold = "decoder_process.decode = (lambda real: lambda link, *order: (setattr(decoder_process, 'LINK', link), "
    hold += "real(link, *order)))(decoder_process.decode)\n"
    program = decoders(BYTE_BY_BYTE)._program.replace("sys.exit(main", hold + "sys.exit(main")
    with closing(Decoders(program)) as made:
        limits = LimitSettings(decoder_stall_s=0.5)
        with decode(BytesSource(MINUTE), limits, made) as decoding, pytest.raises(DecoderLimit, match=r"0\.5 s"):
            read_out(decoding)
