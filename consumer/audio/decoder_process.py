"""The decoder: a process of its own that turns media bytes into 16 kHz mono samples, and can do nothing else.

A demuxer or decoder of FFmpeg that is taken over by a hostile file finds itself without files, network, privileges
and (much) memory. It gets the recording's bytes from its parent on request, and gives samples back.

What whisperx gets from `ffmpeg -f s16le -ac 1 -acodec pcm_s16le -ar 16000` is what comes out here: the same stream is
chosen, damaged packets are skipped, and the same libswresample mixes and resamples. Where channels are kept apart, each
is what `-af pan=mono|c0=cN` in front of the same arguments gives.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import wave
from collections.abc import Callable, Iterator
from typing import BinaryIO

import av
import av.error
import av.logging
import av.stream
import av.subtitles.stream
import av.video.stream
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from consumer.audio import sandbox
from consumer.audio.chained import next_link
from consumer.audio.confine import confine
from consumer.audio.protocol import (
    CRASHED,
    EXPANSION_FREE_BYTES,
    MAX_FRAME_BYTES,
    MAX_REREAD,
    MAX_STREAMS,
    PCM_BLOCK_BYTES,
    CannotDecode,
    Confinement,
    Ending,
    Facts,
    Kind,
    Order,
    Verdict,
    receive,
    send,
    send_json,
    send_read,
)
from consumer.audio.resampling import ChannelResampler, Resampler
from consumer.audio.riff import announced_end
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

DECODERS = (
    *("mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float", "aac", "aac_latm", "alac", "flac", "vorbis", "opus"),
    *(
        "libopus",
        "libvorbis",
        "ac3",
        "eac3",
        "amrnb",
        "amrwb",
        "adpcm_ms",
        "adpcm_ima_wav",
        "adpcm_ima_qt",
        "g722",
        "gsm_ms",
    ),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_s64le"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
)
"""The decoders that may run. FFmpeg itself keeps the list too, so that a video track opens no video decoder."""

GUESSED_LENGTHS = ("aac",)
"""Demuxers whose length is a guess from the size of the file and the first bit rates."""

HEAD_BYTES = 1 << 16
"""How much of a file is looked at for the length that its header announces."""

PACKETS_FREE_BYTES = 1 << 22
"""What any file may give more than it has: packets overlap in no honest one, and compressed ones are small."""

MAX_DAMAGED_IN_A_ROW = 5_000
"""Packets without a sample after which the rest is given up: two minutes of MP3."""


Link = tuple[InputContainer, AudioStream]
"""One of the recordings in a chained file, opened, with its sound track."""


class ServedFile:
    """A file object whose bytes come from the parent; `start` leaves out those before it."""

    def __init__(self, link: socket.socket, size_bytes: int, start: int = 0) -> None:
        self._link = link
        self._size_bytes = size_bytes - start
        self._start = start
        self._at = 0

    def behind(self, start: int) -> ServedFile:
        """The rest of the file as a file of its own."""
        return ServedFile(self._link, self._start + self._size_bytes, self._start + start)

    def read(self, length: int = -1) -> bytes:
        left = max(self._size_bytes - self._at, 0)
        length = min(left if length < 0 else length, left, MAX_FRAME_BYTES)
        if length == 0:
            return b""
        send_read(self._link, self._start + self._at, length)
        answer = receive(self._link)
        if answer is None or answer[0] is not Kind.DATA:
            os._exit(0)  # the parent is gone or has closed the link: nobody wants the samples
        self._at += len(answer[1])
        return answer[1]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True


def open_container(file: BinaryIO | ServedFile, demuxer: str, max_streams: int = MAX_STREAMS) -> InputContainer:
    """Nothing but this file is opened, whatever it refers to, with nothing but this demuxer."""
    options = {"codec_whitelist": ",".join(DECODERS), "protocol_whitelist": "none", "format_whitelist": demuxer}
    options["max_streams"] = str(max_streams + 1)  # time to open grows with the square of their number
    try:
        container = av.open(file, "r", format=demuxer, container_options=options, metadata_errors="replace")
    except MemoryError as exc:  # FFmpeg says the same to both
        reason = f"it has more than {max_streams} tracks, or cannot be opened in the memory that there is"
        raise CannotDecode("DecoderLimit", reason) from exc
    except (av.error.FFmpegError, EOFError, ValueError) as exc:
        raise CannotDecode("UnreadableAudio", f"no {demuxer} container: {_said(exc)}") from exc
    if len(container.streams) > max_streams:
        container.close()
        raise CannotDecode("DecoderLimit", f"it has more than {max_streams} tracks")
    return container


def choose_stream(container: InputContainer, track: int | None = None) -> AudioStream:
    """The sound track of that number, counted from 0; None: the one that FFmpeg's own command line would take."""
    tracks = container.streams.audio
    if track is not None and tracks and track >= len(tracks):
        has = "1 sound track, number 0" if len(tracks) == 1 else f"{len(tracks)} sound tracks, 0 to {len(tracks) - 1}"
        raise CannotDecode("MissingTrack", f"it has {has}")
    stream = tracks[track] if track is not None and tracks else container.streams.best("audio")
    if stream is None and tracks:  # what FFmpeg cannot count, such as 10,000 of them, is 0 to it
        raise CannotDecode("UnsupportedMedia", "its sound has no channels or no sample rate, or too many to decode")
    if not isinstance(stream, AudioStream):
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no track at all"
        raise CannotDecode("NoSoundTrack", f"it holds {kinds}")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    codec = stream.codec_context.name if stream.codec_context else "something unknown"
    if codec not in DECODERS:
        raise CannotDecode("UnsupportedMedia", f"its sound is coded as {codec}")
    return stream


def facts_of(container: InputContainer, stream: AudioStream, size: int) -> Facts:
    hint_s = None
    if stream.duration is not None and stream.time_base is not None:
        hint_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        hint_s = container.duration / av.time_base
    return Facts(
        codec=stream.codec_context.name,
        channels=stream.codec_context.channels or 0,
        sample_rate_hz=stream.codec_context.sample_rate or 0,
        duration_hint_s=hint_s,
        hint_is_exact=hint_s is not None and not _is_guess(container, stream, size, hint_s),
        track=[one.index for one in container.streams.audio].index(stream.index),
        tracks=len(container.streams.audio),
    )


def _is_guess(container: InputContainer, stream: AudioStream, size: int, hint_s: float) -> bool:
    """Whether the length was computed from the size of the file.

    An MP3 has a length of its own only in a Xing header; such a length promises more bytes than a file has that
    breaks off, whereas a guess always fits the file.
    """
    name = container.format.name
    if name == "mp3":
        return (stream.bit_rate or 0) * hint_s / 8 < size * 1.02
    return name in GUESSED_LENGTHS


class Decoding:
    """One pass over the sound track. `ending` tells, afterwards, how it went.

    `missing_bytes` is what the header announced beyond the end of the file, as far as that is known beforehand.
    `go_on` opens what follows where FFmpeg says that it does not go on, behind the packet at that byte.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        resampler: Resampler,
        missing_bytes: int = 0,
        go_on: Callable[[int], Link | None] | None = None,
    ) -> None:
        self._container = container
        self._stream = stream
        self._resampler = resampler
        self._go_on = go_on
        self._last_packet_at = 0
        self._missing_bytes = missing_bytes
        self._damaged = 0
        self._damaged_in_a_row = 0
        self._broken_off: str | None = None
        self._packet_bytes = 0
        self._most_bytes = container.size * MAX_REREAD + PACKETS_FREE_BYTES  # over all links of a chain
        self._sent_bytes = 0

    def pcm(self) -> Iterator[bytes]:
        for frame in self._frames():
            for block in self._resampler.feed(frame):
                self._sent_bytes += len(block)
                yield block
        for block in self._resampler.flush():
            self._sent_bytes += len(block)
            yield block

    def check_expansion(self, most: int) -> None:
        """Against the bytes of the packets so far: the parent sees only whole buffers, and those too late."""
        if self._sent_bytes / self._resampler.channels > max(EXPANSION_FREE_BYTES, self._packet_bytes * most):
            raise CannotDecode("DecoderLimit", f"it expands to more than {most} times its size")

    def ending(self, facts: Facts) -> Ending:
        return Ending(self._broken_off or self._missing(facts), self._damaged, self._resampler.channels_change)

    def _missing(self, facts: Facts) -> str | None:
        """More than a second, and more than a hundredth, less than the container says: the file was cut."""
        if self._missing_bytes > 0:
            return f"{self._missing_bytes} bytes are missing"
        decoded_s = self._sent_bytes / self._resampler.channels / BYTES_PER_SAMPLE / SAMPLE_RATE_HZ
        hint_s = facts.duration_hint_s or 0.0
        if facts.hint_is_exact and hint_s - decoded_s > max(1.0, hint_s / 100):
            return f"{decoded_s:.1f} s of {hint_s:.1f} s are there"
        return None

    def _frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded. Bad packets are skipped; at the very end they mean that it breaks off."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.FFmpegError as exc:
                self._skip(exc)
                continue
            if frames:
                self._damaged_in_a_row = 0
                yield from frames
        if self._damaged_in_a_row and self._broken_off is None:
            self._broken_off = "its last packet is incomplete"

    def _packets(self) -> Iterator[av.Packet[AudioStream]]:
        """Those of all links of a chain."""
        while True:
            try:
                yield from self._packets_of_link()
            except av.error.PatchWelcomeError as exc:
                following = self._go_on(self._last_packet_at) if self._go_on else None
                if following is None:
                    self._broken_off = f"reading stopped: {_said(exc)}"
                    return
                self._container.close()
                self._container, self._stream = following
                self._last_packet_at = 0
            else:
                return

    def _packets_of_link(self) -> Iterator[av.Packet[AudioStream]]:
        try:
            for packet in self._container.demux(self._stream):
                self._packet_bytes += packet.size
                if self._packet_bytes > self._most_bytes:  # from within FFmpeg's buffer, so that nobody else sees it
                    raise CannotDecode("DecoderLimit", f"it gives its own bytes more than {MAX_REREAD} times over")
                self._last_packet_at = packet.pos or self._last_packet_at
                yield packet
        except av.error.PatchWelcomeError:
            raise
        except (av.error.FFmpegError, EOFError) as exc:
            if isinstance(exc, MemoryError):
                raise
            self._broken_off = f"reading stopped: {_said(exc)}"
        except IndexError:
            return  # PyAV 18.1 stumbles over a track that has turned up in mid-file, behind the last packet of ours

    def _skip(self, exc: av.error.FFmpegError) -> None:
        if isinstance(exc, MemoryError):
            raise exc
        self._damaged += 1
        self._damaged_in_a_row += 1
        if self._damaged_in_a_row > MAX_DAMAGED_IN_A_ROW:
            raise CannotDecode(
                "UnreadableAudio", f"{self._damaged_in_a_row} packets in a row are damaged: {_said(exc)}"
            )


def _said(error: Exception) -> str:
    """FFmpeg's sentence without its number, and without the name that our file does not have."""
    return getattr(error, "strerror", None) or str(error)


def decode(link: socket.socket, order: Order) -> None:
    """Send facts, samples and the ending. Raises CannotDecode."""
    file = ServedFile(link, order.size_bytes)
    missing_bytes = (announced_end(file.read(HEAD_BYTES)) or 0) - order.size_bytes
    file.seek(0)
    with open_container(file, order.demuxer, order.max_streams) as container:
        stream = choose_stream(container, order.track)
        facts = facts_of(container, stream, order.size_bytes)
        send_json(link, Kind.FACTS, facts)
        resampler = ChannelResampler(max(facts.channels, 1)) if order.by_channel else Resampler()
        decoding = Decoding(container, stream, resampler, missing_bytes, Links(file, order).open_next)
        for block in gathered(decoding.pcm(), resampler.channels):
            decoding.check_expansion(order.max_expansion)
            send(link, Kind.PCM, block)
        send_json(link, Kind.END, decoding.ending(facts))


class Links:
    """The links of a chained file that FFmpeg does not go on into, opened one after the other."""

    def __init__(self, file: ServedFile, order: Order) -> None:
        self._file = file
        self._order = order

    def open_next(self, at: int) -> Link | None:
        """The link behind the page at that byte of the link before; None where none can be opened."""
        start = next_link(self._file, at) if self._order.demuxer == "ogg" else None
        if start is None:
            return None
        self._file = self._file.behind(start)
        try:
            container = open_container(self._file, self._order.demuxer, self._order.max_streams)
            return container, choose_stream(container, self._order.track)
        except CannotDecode:
            return None


def rehearse() -> None:
    """Decode a little silence from memory, so that everything that PyAV imports late is imported before `confine`.

    And have the walls ready: what a library looks for once is found here, and not in each decoder.
    """
    sandbox.rehearse()
    wav = io.BytesIO()
    with wave.open(wav, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(bytes(44_100))
    wav.seek(0)
    with open_container(wav, "wav") as container:
        stream = choose_stream(container)
        facts = facts_of(container, stream, len(wav.getvalue()))
        decoding = Decoding(container, stream, Resampler())
        assert any(decoding.pcm())
        assert decoding.ending(facts) == Ending()


def gathered(blocks: Iterator[bytes], channels: int = 1) -> Iterator[bytes]:
    """Small blocks joined, large ones cut between frames, so that each message has about PCM_BLOCK_BYTES."""
    size = PCM_BLOCK_BYTES - PCM_BLOCK_BYTES % (channels * BYTES_PER_SAMPLE)
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


def run(link: socket.socket, order: Order, parent_pid: int) -> int:
    """Confine this process, and decode. Returns the exit code."""
    av.logging.set_level(None)
    missing = confine(order.memory_bytes, order.cpu_s, parent_pid)
    with contextlib.suppress(ConnectionError):  # the parent has closed the link: nobody wants to know more
        send_json(link, Kind.CONFINED, Confinement(missing))
        verdict = verdict_of(link, order)
        if verdict is not None:
            send_json(link, Kind.VERDICT, verdict)
    return 0


def verdict_of(link: socket.socket, order: Order) -> Verdict | None:
    """Decode; None when all was well. Raises ConnectionError when the parent has closed the link."""
    try:
        decode(link, order)
    except CannotDecode as exc:
        return exc.verdict
    except MemoryError:
        return Verdict("DecoderLimit", f"it needs more than {order.memory_bytes} bytes of memory")
    except ConnectionError:
        raise
    except Exception as exc:  # noqa: BLE001  (a bug: nobody but the parent can say which one)
        return Verdict(CRASHED, f"{type(exc).__name__}: {exc}")
    return None
