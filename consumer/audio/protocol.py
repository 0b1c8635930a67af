"""How the decoder process and its parent talk: frames of a kind, a length and a payload over one socket.

    child  → parent    CONFINED json          (once, before anything else)
    child  → parent    READ offset length     parent → child    DATA bytes
    child  → parent    FACTS json             (once, before the first PCM)
    child  → parent    PCM samples            (16 kHz s16le, channels interleaved, any number of times)
    child  → parent    END json               (the sound track is over)
    child  → parent    VERDICT json           (this cannot be decoded; the reason)

Both sides use only the standard library here, so the child starts small.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

MAX_FRAME_BYTES = 1 << 20
"""Longest payload that either side accepts; the parent does not trust the child with its memory."""

PCM_BLOCK_BYTES = 1 << 16  # 65_536 bytes = 2.05 s
"""Samples are gathered to about this size before they are sent; a message holds whole frames of all channels."""

MAX_ORDER_BYTES = 1 << 12

MAX_STREAMS = 1_000
"""Tracks of one file that FFmpeg takes by itself."""

MAX_EXPANSION = 3_000
EXPANSION_FREE_BYTES = 1 << 25  # 33_554_432 bytes = 17 minutes
"""What any file may expand to, so that a short header does not count."""

CRASHED = "DecoderCrashed"
"""Verdict on itself, of a decoder that came upon a bug."""

FOREIGN = "ForeignMedia"
"""Verdict on what is not on the allow-list of media types; the reason is the type that was found."""

MAX_REREAD = 20
"""Times that a file may be read over: a container can point to the same bytes again and again."""

REREAD_FREE_BYTES = 1 << 26

PACKETS_AT_ONCE = 100_000
"""Of the index of an MP4, what is given to FFmpeg at a time: 7 MB there, 35 minutes of AAC at 48 kHz."""

MAX_NUMBER = 1 << 31
"""What FFmpeg counts with; an event has no room for more."""

MAX_S = 1e30
"""Headers that lie come to less; NaN, infinity and integers of 400 digits do not pass."""

NUMBER = struct.Struct("!i")
"""What a keeper sends, twice: the decoder's process id, and later its exit code, negative for a signal."""

_HEAD = struct.Struct("!BI")
_READ = struct.Struct("!QI")


class Kind(IntEnum):
    READ = 1
    DATA = 2
    FACTS = 3
    PCM = 4
    END = 5
    VERDICT = 6
    CONFINED = 7


class BrokenProtocol(Exception):
    """The other side sent what no honest other side sends."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a decoder is to be started for, and what it may use beyond its start.

    `track` counts the sound tracks of the recording from 0; None is the one that FFmpeg's command line would take.
    With `by_channel` the channels of the track come side by side, else mixed to one.
    """

    size_bytes: int
    memory_bytes: int
    cpu_s: int
    track: int | None = None
    by_channel: bool = False
    max_streams: int = MAX_STREAMS
    max_expansion: int = MAX_EXPANSION
    packets_at_once: int = PACKETS_AT_ONCE


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the child could not take from itself: each wall that its machine lacks, with the reason."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the recording is by its content, and what the container says of its sound track.

    `media_type` is one of the allow-list. `duration_hint_s` is None where the container has none. `hint_is_exact`
    tells a length that is written in the file from one that was guessed from its size.
    """

    media_type: str
    codec: str
    channels: int
    sample_rate_hz: int
    duration_hint_s: float | None
    hint_is_exact: bool
    track: int = 0
    """Its number among the sound tracks of the recording, counted from 0."""
    tracks: int = 1
    """How many of them there are."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the sound track ended. `broken_off` holds the reason when it ended before its time.

    `channels_change` says that parts of it have another number of channels than the facts; only asked where channels
    are kept apart.
    """

    broken_off: str | None = None
    damaged_packets: int = 0
    channels_change: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the child gave up: the name of the error that the parent raises, and the reason."""

    error: str
    reason: str


class CannotDecode(Exception):
    """The verdict: which error the parent raises, and why."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = Verdict(error, reason)


def pack_order(order: Order) -> bytes:
    return json.dumps(asdict(order)).encode()


def parse_order(payload: bytes) -> Order:
    return Order(**_parse(payload))


def send(link: socket.socket, kind: Kind, payload: bytes) -> None:
    link.sendall(_HEAD.pack(kind, len(payload)) + payload)


def send_json(link: socket.socket, kind: Kind, value: Confinement | Facts | Ending | Verdict) -> None:
    send(link, kind, json.dumps(asdict(value)).encode())


def send_read(link: socket.socket, offset: int, length: int) -> None:
    send(link, Kind.READ, _READ.pack(offset, length))


def receive(link: socket.socket, within_s: float | None = None) -> tuple[Kind, bytes] | None:
    """The next frame; None when the other side is gone.

    Raises BrokenProtocol, and TimeoutError when all of it is not there in time, however it trickles in.
    """
    until_s = None if within_s is None else time.monotonic() + within_s
    head = _receive_exactly(link, _HEAD.size, until_s)
    if head is None:
        return None
    number, length = _HEAD.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise BrokenProtocol(f"a frame of {length} bytes")
    payload = _receive_exactly(link, length, until_s)
    try:
        return None if payload is None else (Kind(number), payload)
    except ValueError as exc:
        raise BrokenProtocol(f"a frame of kind {number}") from exc


def _receive_exactly(link: socket.socket, length: int, until_s: float | None) -> bytes | None:
    parts: list[bytes] = []
    while length > 0:
        if until_s is not None:
            link.settimeout(max(until_s - time.monotonic(), 0.001))
        part = link.recv(min(length, 1 << 18))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def parse_read(payload: bytes) -> tuple[int, int]:
    """Offset and length of a READ."""
    if len(payload) != _READ.size:
        raise BrokenProtocol(f"a read request of {len(payload)} bytes")
    offset, length = _READ.unpack(payload)
    return offset, length


def parse_confinement(payload: bytes) -> Confinement:
    missing = _parse(payload).get("missing")
    if not isinstance(missing, list):
        raise BrokenProtocol("a confinement of another shape")
    return Confinement(tuple(_text(wall, 200) for wall in missing[:10]))


def parse_facts(payload: bytes) -> Facts:
    value = _parse(payload)
    hint = value.get("duration_hint_s")
    try:
        return Facts(
            media_type=_text(value["media_type"], 64),
            codec=_text(value["codec"], 64),
            channels=_count(value["channels"]),
            sample_rate_hz=_count(value["sample_rate_hz"]),
            duration_hint_s=None if hint is None else _seconds(hint),
            hint_is_exact=bool(value["hint_is_exact"]),
            track=_count(value["track"]),
            tracks=_count(value["tracks"]),
        )
    except KeyError as exc:
        raise BrokenProtocol("facts of another shape") from exc


def parse_ending(payload: bytes) -> Ending:
    value = _parse(payload)
    reason = value.get("broken_off")
    try:
        return Ending(
            broken_off=None if reason is None else _text(reason, 500),
            damaged_packets=_count(value["damaged_packets"]),
            channels_change=bool(value["channels_change"]),
        )
    except KeyError as exc:
        raise BrokenProtocol("an ending of another shape") from exc


def parse_verdict(payload: bytes) -> Verdict:
    value = _parse(payload)
    return Verdict(_text(value.get("error"), 64), _text(value.get("reason"), 500))


def _text(value: object, most: int) -> str:
    """What can stand in an event and in a terminal: the reason of a decoder that was taken over is anybody's."""
    if not isinstance(value, str):
        raise BrokenProtocol("something else where a text belongs")
    return "".join(one if one.isprintable() else "\ufffd" for one in value[:most])


def _count(value: object) -> int:
    if not isinstance(value, int) or not -MAX_NUMBER <= value < MAX_NUMBER:
        raise BrokenProtocol("something else where a count belongs")
    return int(value)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not -MAX_S < value < MAX_S:
        raise BrokenProtocol("something else where a length belongs")
    return float(value)


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise BrokenProtocol("no JSON") from exc
    if not isinstance(value, dict):
        raise BrokenProtocol("no JSON object")
    return value
