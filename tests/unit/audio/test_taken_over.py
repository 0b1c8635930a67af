"""A decoder that was taken over says what it likes to us, as the link is all that it has: each lie has its code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial

import pytest

from consumer.audio.decode import decode
from consumer.audio.decoders import Decoders
from consumer.audio.protocol import Kind
from consumer.errors import DecoderCrashed, UnreadableAudio, UnsupportedMedia
from consumer.functions import plan
from consumer.settings import LimitSettings
from tests.unit.audio.sources import BytesSource, Decoded, read_out
from tests.unit.functions.test_plan import BUCKET, DictStore, RecordedAttempt, make_plan, work
from tests.wrong_decoders import program_with

ORDERED = """
from consumer.audio import decoder_process
from consumer.audio.protocol import Kind, send
from consumer.audio.served_file import ServedFile

def lie(link, order):
    for kind, payload in eval(ServedFile(link, order.size_bytes).read()):
        send(link, Kind(kind), payload)

decoder_process.decode = lie
"""
"""What the decoder says stands in the recording that takes it over."""

SHAPE = "no JSON|of another shape|belongs"
HONEST = {"media_type": "audio/mpeg", "codec": "mp3", "channels": 1, "sample_rate_hz": 16_000, "duration_hint_s": 1}
HONEST |= {"hint_is_exact": False, "track": 0, "tracks": 1}


def short(lie: object) -> str:
    return str(lie)[:12]


@pytest.fixture(scope="module")
def liars() -> Iterator[Decoders]:
    with contextlib.closing(Decoders(program_with(ORDERED))) as decoders:
        yield decoders


def told(liars: Decoders, *messages: tuple[Kind, str]) -> Decoded:
    """What we make of these messages; their contents are expressions."""
    with decode(BytesSource(recording(*messages)), LimitSettings(), liars) as decoding:
        return read_out(decoding)


def recording(*messages: tuple[Kind, str]) -> bytes:
    return f"[{', '.join(f'({int(kind)}, {content})' for kind, content in messages)}]".encode()


def facts(**lies: object) -> tuple[Kind, str]:
    return Kind.FACTS, repr(json.dumps(HONEST | lies).encode())


def ending(**lies: object) -> tuple[Kind, str]:
    said = {"broken_off": None, "damaged_packets": 0, "channels_change": False} | lies
    return Kind.END, repr(json.dumps(said).encode())


def test_the_truth_is_taken(liars: Decoders) -> None:
    decoded = told(liars, facts(), (Kind.PCM, "bytes(32_000)"), ending())
    assert (len(decoded.samples), decoded.codec, decoded.warnings) == (16_000, "mp3", ())


@pytest.mark.parametrize("kind", [Kind.VERDICT, Kind.FACTS])
@pytest.mark.parametrize("content", ["b'x'", "b'[' * 100_000", "b'{}'", r"b'\xff'"])
def test_a_message_of_another_shape_is_a_crash_of_the_decoder(liars: Decoders, kind: Kind, content: str) -> None:
    with pytest.raises(DecoderCrashed, match=SHAPE):
        told(liars, (kind, content))


@pytest.mark.parametrize("name", ["channels", "sample_rate_hz", "track", "tracks"])
@pytest.mark.parametrize("lie", [float("inf"), 1 << 31, 10**300, "1", None, [[]]], ids=short)
def test_a_count_that_is_none_is_a_crash_of_the_decoder(liars: Decoders, name: str, lie: object) -> None:
    with pytest.raises(DecoderCrashed, match=SHAPE):
        told(liars, facts(**{name: lie}))


@pytest.mark.parametrize("lie", [float("nan"), float("inf"), 10**400, "long"], ids=short)
def test_a_length_that_no_event_can_hold_is_a_crash_of_the_decoder(liars: Decoders, lie: object) -> None:
    with pytest.raises(DecoderCrashed, match=SHAPE):
        told(liars, facts(duration_hint_s=lie))


@pytest.mark.parametrize("lie", ["audio/x-evil", "", "a" * 100_000, None, [[]], 7], ids=short)
def test_a_media_type_that_is_not_on_the_list_is_a_crash_of_the_decoder(liars: Decoders, lie: object) -> None:
    with pytest.raises(DecoderCrashed, match=f"{SHAPE}|not on the list"):
        told(liars, facts(media_type=lie))


def test_a_type_that_is_refused_can_be_written_into_an_event_and_shown_in_a_terminal(liars: Decoders) -> None:
    found = "\ud800 \x1b[31m\r\n" + "x" * 1_000
    with pytest.raises(UnsupportedMedia) as refused:
        told(liars, (Kind.VERDICT, repr(json.dumps({"error": "ForeignMedia", "reason": found}).encode())))
    for text in (refused.value.message, str(refused.value.facts["media_type"])):
        assert text.encode().decode().isprintable()
        assert 400 < len(text) < 1_000


@pytest.mark.parametrize("lie", [{"damaged_packets": float("inf")}, {"damaged_packets": 10**40}, {"broken_off": [[]]}])
def test_an_ending_of_another_shape_is_a_crash_of_the_decoder(liars: Decoders, lie: dict[str, object]) -> None:
    with pytest.raises(DecoderCrashed, match=SHAPE):
        told(liars, facts(), (Kind.PCM, "bytes(32_000)"), ending(**lie))


def test_a_reason_can_be_written_into_an_event_and_shown_in_a_terminal(liars: Decoders) -> None:
    reason = "\ud800 \x1b[31m\r\n" + "x" * 1_000
    with pytest.raises(UnreadableAudio) as refused:
        told(liars, (Kind.VERDICT, repr(json.dumps({"error": "UnreadableAudio", "reason": reason}).encode())))
    (warning,) = told(liars, facts(), (Kind.PCM, "bytes(32_000)"), ending(broken_off=reason)).warnings
    for message in (refused.value.message, warning.message):
        assert message.encode().decode().isprintable()
        assert 500 < len(message) < 1_000


@pytest.mark.parametrize(("lie", "taken"), [(9e29, LimitSettings().max_duration_s), (-9e29, None), (0, None)])
def test_a_length_that_is_made_up_counts_for_no_more_than_the_longest_recording(
    liars: Decoders, monkeypatch: pytest.MonkeyPatch, lie: float, taken: float | None
) -> None:
    """Else other jobs would wait for a plan of so many seconds before theirs begins."""
    hostile = recording(facts(duration_hint_s=lie), (Kind.PCM, "bytes(32_000)"), ending())
    monkeypatch.setattr(plan, "decode", partial(decode, decoders=liars))
    store = DictStore({(BUCKET, "talk.mp3"): hostile})
    attempt = RecordedAttempt(store)
    make_plan(store)(work(), attempt)
    assert attempt.started.duration_hint_s == taken
