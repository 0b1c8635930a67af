"""The decoder: a process of its own that judges media bytes, turns them into 16 kHz samples, and can do nothing else.

What of FFmpeg or libmagic is taken over by a hostile file finds itself without files, network, privileges
and (much) memory. It gets the recording's bytes from its parent on request, and gives samples back.

What whisperx gets from `ffmpeg -f s16le -ac 1 -acodec pcm_s16le -ar 16000` is what comes out here: the same stream is
chosen, damaged packets are skipped, and the same libswresample mixes and resamples. Where channels are kept apart, each
is what `-af pan=mono|c0=cN` in front of the same arguments gives.
"""

from __future__ import annotations

import contextlib
import io
import socket
import wave
from collections.abc import Callable, Iterator

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
from consumer.audio.confine import confine
from consumer.audio.opening import Link, Links, Windows, choose_stream, facts_of, open_container, opened, said
from consumer.audio.protocol import (
    CRASHED,
    EXPANSION_FREE_BYTES,
    MAX_REREAD,
    PCM_BLOCK_BYTES,
    CannotDecode,
    Confinement,
    Ending,
    Facts,
    Kind,
    Order,
    Verdict,
    send,
    send_json,
)
from consumer.audio.resampling import ChannelResampler, Resampler
from consumer.audio.riff import announced_end
from consumer.audio.served_file import ServedFile
from consumer.audio.sniff import HEAD_BYTES, WAV, sniff
from consumer.audio.sniff import rehearse as rehearse_sniffing
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

PACKETS_FREE_BYTES = 1 << 22
"""What any file may give more than it has: packets overlap in no honest one, and compressed ones are small."""

MAX_DAMAGED_IN_A_ROW = 5_000
"""Packets without a sample after which the rest is given up: two minutes of MP3."""


class Decoding:
    """One pass over the sound track. `ending` tells, afterwards, how it went.

    `missing_bytes` is what the header announced beyond the end of the file, as far as that is known beforehand.
    `go_on` opens what follows where FFmpeg says that it does not go on, behind the packet at that byte. `windows` are
    those that follow the first, for the same decoder.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        resampler: Resampler,
        missing_bytes: int = 0,
        go_on: Callable[[int], Link | None] | None = None,
        windows: Windows | None = None,
    ) -> None:
        self._container = container
        self._stream = stream
        self._decoder = stream.codec_context
        self._windows = windows
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
        broken_off = self._broken_off or (self._windows.broken_off if self._windows else None)
        return Ending(broken_off or self._missing(facts), self._damaged, self._resampler.channels_change)

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
                frames = self._decoder.decode(packet)
            except av.error.FFmpegError as exc:
                self._skip(exc)
                continue
            if frames:
                self._damaged_in_a_row = 0
                yield from frames
        if self._damaged_in_a_row and self._broken_off is None:
            self._broken_off = "its last packet is incomplete"

    def _packets(self) -> Iterator[av.Packet[AudioStream] | None]:
        """Those of all links of a chain, and of all windows; None at the end, for what the decoder still holds."""
        while True:
            try:
                yield from self._packets_of_link()
            except av.error.PatchWelcomeError as exc:
                following = self._go_on(self._last_packet_at) if self._go_on else None
                if following is None:
                    self._broken_off = f"reading stopped: {said(exc)}"
                    break
                self._container.close()
                self._container, self._stream = following
                self._decoder = self._stream.codec_context
                self._last_packet_at = 0
            else:
                following = self._windows.open_next() if self._windows and not self._broken_off else None
                if following is None:
                    break
                self._container, self._stream = following
        yield None

    def _packets_of_link(self) -> Iterator[av.Packet[AudioStream]]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 and packet.dts is None:  # PyAV's sign of the end of this link
                    continue
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
            self._broken_off = f"reading stopped: {said(exc)}"
        except IndexError:
            return  # PyAV 18.1 stumbles over a track that has turned up in mid-file, behind the last packet of ours

    def _skip(self, exc: av.error.FFmpegError) -> None:
        if isinstance(exc, MemoryError):
            raise exc
        self._damaged += 1
        self._damaged_in_a_row += 1
        if self._damaged_in_a_row > MAX_DAMAGED_IN_A_ROW:
            raise CannotDecode("UnreadableAudio", f"{self._damaged_in_a_row} packets in a row are damaged: {said(exc)}")


def decode(link: socket.socket, order: Order) -> None:
    """Send facts, samples and the ending. Raises CannotDecode."""
    file = ServedFile(link, order.size_bytes)
    head = file.read(HEAD_BYTES)
    missing_bytes = (announced_end(head) or 0) - order.size_bytes
    media = sniff(file, head)
    container, stream, facts, windows = opened(file, media, order)
    with container:
        send_json(link, Kind.FACTS, facts)
        resampler = ChannelResampler(max(facts.channels, 1)) if order.by_channel else Resampler()
        decoding = Decoding(container, stream, resampler, missing_bytes, Links(file, media, order).open_next, windows)
        for block in gathered(decoding.pcm(), resampler.channels):
            decoding.check_expansion(order.max_expansion)
            send(link, Kind.PCM, block)
        send_json(link, Kind.END, decoding.ending(facts))


def rehearse() -> None:
    """Decode a little silence from memory: all that PyAV and libmagic load late is there before `confine` then.

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
    rehearse_sniffing(wav.getvalue())
    with open_container(wav, WAV.demuxer) as container:
        stream = choose_stream(container)
        facts = facts_of(container, stream, len(wav.getvalue()), WAV)
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
