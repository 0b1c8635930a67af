"""Decode a recording in a confined child process: bytes in by request, 16 kHz samples out, mixed or by channel.

    with decode(source, limits) as decoding:
        decoding.facts                      # known before the first sample
        for samples in decoding.blocks():   # int16, (n_samples,), about two seconds each
            ...
        decoding.warnings                   # known after the last one

    with decode(source, limits, track=1, by_channel=True) as decoding:
        for samples in decoding.channels():  # int16, (channels, n_samples)
            ...

A file that breaks off is not refused: what can be decoded is used, and RECORDING_TRUNCATED says so. Whether that is
enough is for the sender to judge; an interview of an hour that lost its last minute is worth having. Only a file
without a single decodable sample is refused.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from consumer import errors
from consumer.audio import protocol
from consumer.audio.decoders import SHARED, Decoder, Decoders, NoDecoder
from consumer.audio.effort import Effort
from consumer.audio.limits import DecodeLimits
from consumer.audio.protocol import (
    CRASHED,
    EXPANSION_FREE_BYTES,
    FOREIGN,
    MAX_REREAD,
    REREAD_FREE_BYTES,
    BrokenProtocol,
    Confinement,
    Ending,
    Facts,
    Kind,
    Order,
)
from consumer.audio.sniff import ALLOWED, READABLE
from consumer.audio.source import RangeSource, ReadAhead
from consumer.core.values import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, to_seconds
from consumer.events import Problem

log = logging.getLogger(__name__)

Block = NDArray[np.int16]
T = TypeVar("T")

LOWEST_SAMPLE_RATE_HZ: Final = 1_000
"""Below it there is no speech, and each sample becomes thousands."""

START_S: Final = 30.0
"""What a decoder process gets at least to start in, on a busy machine."""

LEAST_CPU_S: Final = 600
"""Processor time that every decoder gets, in seconds."""

LEAST_SPEED: Final = 10
"""And beyond that a decoder must be at least this many times faster than real time."""

NAMES: Final = frozenset(media.name for media in ALLOWED.values())
"""What a recording can be called in results."""

_VERDICTS = {
    "UnreadableAudio": (errors.UnreadableAudio, "cannot be decoded", "check that it plays, and upload it again"),
    "NoSoundTrack": (errors.NoSoundTrack, "has no sound track", "send a recording with sound"),
    "MissingTrack": (errors.MissingTrack, "has no sound track of that number", "send the job with another track"),
    "UnsupportedMedia": (errors.UnsupportedMedia, "cannot be decoded here", "convert it to FLAC, MP3, AAC or Opus"),
    "DecoderLimit": (errors.DecoderLimit, "goes over the decoder's limits", "convert it to FLAC or MP3"),
}


class Decoding:
    """A running decoder. `facts` is set from the start, `warnings` when `blocks` has ended."""

    def __init__(
        self,
        source: ReadAhead,
        limits: DecodeLimits,
        decoders: Decoders,
        track: int | None = None,
        *,
        by_channel: bool = False,
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._on_read = on_read
        self._limits = limits
        self._by_channel = by_channel
        self._received_bytes = 0  # of each channel
        self._decoder = self._started(decoders, track)
        self._link = self._decoder.link
        self._patience_s = max(limits.decoder_stall_s, START_S)
        self._served_bytes = 0
        self._effort = self._begun()
        self._facts: Facts | None = None
        self.warnings: tuple[Problem, ...] = ()

    @property
    def facts(self) -> Facts:
        """What the container says of its sound track; waits for it the first time."""
        if self._facts is None:
            _tell_once(self._parsed(protocol.parse_confinement, self._expect(Kind.CONFINED)))
            self._effort = self._begun()  # what it took to start is our affair
            self._facts = self._accepted(self._parsed(protocol.parse_facts, self._expect(Kind.FACTS)))
            self._patience_s = self._limits.decoder_stall_s
        return self._facts

    @property
    def process_id(self) -> int:
        return self._decoder.process_id

    @property
    def streams(self) -> int:
        """Channels that come out."""
        return self.facts.channels if self._by_channel else 1

    @property
    def _audio_s(self) -> float:
        return to_seconds(self._received_bytes // BYTES_PER_SAMPLE)

    def blocks(self) -> Iterator[Block]:
        """Samples as they are decoded, (n_samples,), of the only stream; raises what `channels` raises."""
        assert self.streams == 1, "several streams come by channel"
        return (samples[0] for samples in self.channels())

    def channels(self) -> Iterator[Block]:
        """Samples as they are decoded, (streams, n_samples): each channel, or the one that all are mixed to.

        Raises UnreadableAudio, UnsupportedMedia, NoSoundTrack, DecoderLimit, RecordingTooLong, EmptyRecording (not
        one sample), DecoderCrashed, and what the source raises.
        """
        streams = self.streams
        while True:
            kind, payload = self._next()
            if kind is Kind.END:
                self._finish(self._parsed(protocol.parse_ending, payload))
                return
            if kind is not Kind.PCM or len(payload) % (streams * BYTES_PER_SAMPLE):
                raise self._crashed(f"{kind.name} of {len(payload)} bytes came among the samples")
            self._received_bytes += len(payload) // streams
            self._check_length()
            yield np.ascontiguousarray(np.frombuffer(payload, dtype="<i2").reshape(-1, streams).T)

    def close(self) -> None:
        """End the child, whatever it does."""
        self._decoder.close()

    def _started(self, decoders: Decoders, track: int | None) -> Decoder:
        limits = self._limits
        order = Order(
            self._source.size_bytes,
            limits.decoder_memory_bytes,
            _cpu_s(limits),
            track=track,
            by_channel=self._by_channel,
            max_streams=limits.max_streams,
            max_expansion=limits.max_expansion,
        )
        try:
            return decoders.start(order, START_S)
        except (NoDecoder, TimeoutError) as exc:
            raise self._crashed(f"before it began: {exc}") from exc

    def _begun(self) -> Effort:
        limits = self._limits
        return Effort(self._decoder.process_id, limits.decoder_grace_s, limits.decoder_s_per_audio_s)

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expect(self, expected: Kind) -> bytes:
        kind, payload = self._next()
        if kind is not expected:
            raise self._crashed(f"{kind.name} came instead of {expected.name}")
        return payload

    def _next(self) -> tuple[Kind, bytes]:
        """The next message that is not a request for bytes; those are answered on the way."""
        while True:
            kind, payload = self._receive()
            if kind is Kind.VERDICT:
                raise self._refusal(self._parsed(protocol.parse_verdict, payload))
            if excess := self._effort.excess(self._audio_s, self._served_bytes):
                raise self._limit(excess)
            if kind is not Kind.READ:
                return kind, payload
            self._serve(payload)

    def _receive(self) -> tuple[Kind, bytes]:
        try:
            with self._effort.waiting():
                message = protocol.receive(self._link, self._patience_s)
        except TimeoutError as exc:
            raise self._limit(f"nothing came from its decoder for {self._patience_s:g} s") from exc
        except BrokenProtocol as exc:
            raise self._crashed(str(exc)) from exc
        except ConnectionError as exc:
            raise self._died() from exc
        if message is None:
            raise self._died()
        return message

    def _serve(self, payload: bytes) -> None:
        offset, length = self._parsed(protocol.parse_read, payload)
        if length > protocol.MAX_FRAME_BYTES:
            raise self._crashed(f"it asked for {length} bytes at once")
        self._on_read()
        data = self._source.read(offset, length)
        read_bytes = max(self._source.fetched_bytes, self._served_bytes)
        if read_bytes > self._source.size_bytes * MAX_REREAD + REREAD_FREE_BYTES:
            raise self._limit(f"it would be read more than {MAX_REREAD} times over")
        self._served_bytes += len(data)
        try:
            self._link.settimeout(self._patience_s)
            protocol.send(self._link, Kind.DATA, data)
        except TimeoutError as exc:
            raise self._limit("its decoder does not take the bytes that it asked for") from exc
        except ConnectionError as exc:
            raise self._died() from exc

    # ── judgements ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _accepted(self, facts: Facts) -> Facts:
        limits = self._limits
        if facts.media_type not in NAMES:
            raise self._crashed("it tells a media type that is not on the list")
        if not 0 < facts.channels <= limits.max_channels:
            raise self._unsupported(f"{facts.channels} channels (1 to {limits.max_channels} are taken)")
        if self._by_channel and facts.channels > limits.max_transcribed_channels:
            raise self._too_many_channels(facts.channels)
        if not LOWEST_SAMPLE_RATE_HZ <= facts.sample_rate_hz <= limits.max_sample_rate_hz:
            taken = f"{LOWEST_SAMPLE_RATE_HZ} to {limits.max_sample_rate_hz} are taken"
            raise self._unsupported(f"{facts.sample_rate_hz} Hz ({taken})")
        announced_s = facts.duration_hint_s if facts.hint_is_exact else None
        if announced_s is not None:
            if announced_s > limits.max_duration_s:
                raise self._too_long(announced_s)
            self._check_expansion(announced_s * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE, self._source.size_bytes)
        return facts

    def _check_length(self) -> None:
        if self._audio_s > self._limits.max_duration_s:
            raise self._too_long(self._audio_s)
        self._check_expansion(self._received_bytes, min(self._served_bytes, self._source.size_bytes))

    def _check_expansion(self, samples_bytes: float, of_bytes: int) -> None:
        most = self._limits.max_expansion
        if samples_bytes > max(EXPANSION_FREE_BYTES, of_bytes * most):
            raise self._limit(f"it expands to more than {most} times its size")

    def _finish(self, ending: Ending) -> None:
        name = self._source.name
        if not self._received_bytes:
            if ending.broken_off or ending.damaged_packets:
                reason = ending.broken_off or f"all of its {ending.damaged_packets} packets are damaged"
                raise self._refusal(protocol.Verdict("UnreadableAudio", reason))
            raise errors.EmptyRecording(f"{name} has a sound track without samples; record it again", key=name)
        self.warnings = tuple(_warnings(name, ending))

    # ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _refusal(self, verdict: protocol.Verdict) -> errors.WhisperXError:
        if verdict.error == CRASHED:
            return self._crashed(verdict.reason)
        if verdict.error == FOREIGN:
            return self._foreign(verdict.reason)
        if verdict.error not in _VERDICTS:
            return self._crashed(f"an unknown verdict: {verdict.error}")
        error, what, cure = _VERDICTS[verdict.error]
        return error(f"{self._source.name} {what} ({verdict.reason}); {cure}", key=self._source.name)

    def _foreign(self, found: str) -> errors.UnsupportedMedia:
        return errors.UnsupportedMedia(
            f"{self._source.name} is {found} by its content, whatever its name says; send {READABLE}",
            key=self._source.name,
            media_type=found,
        )

    def _limit(self, reason: str) -> errors.WhisperXError:
        return self._refusal(protocol.Verdict("DecoderLimit", reason))

    def _unsupported(self, reason: str) -> errors.WhisperXError:
        return self._refusal(protocol.Verdict("UnsupportedMedia", reason))

    def _too_long(self, duration_s: float) -> errors.RecordingTooLong:
        limit_s = self._limits.max_duration_s
        return errors.RecordingTooLong(
            f"{self._source.name} is longer than {limit_s:g} s ({duration_s:.0f} s so far); cut it into parts",
            key=self._source.name,
            limit_s=limit_s,
        )

    def _too_many_channels(self, channels: int) -> errors.TooManyChannels:
        limit = self._limits.max_transcribed_channels
        return errors.TooManyChannels(
            f"{self._source.name} has {channels} channels, and at most {limit} are transcribed apart; send the job "
            "without multichannel, or a recording with the channels that matter",
            key=self._source.name,
            channels=channels,
        )

    def _died(self) -> errors.WhisperXError:
        """What to say when the child is gone without a verdict."""
        try:
            code = self._decoder.exit_code(self._limits.decoder_stall_s)
        except TimeoutError:
            return self._crashed("it closed its link and went on")
        if code is None:
            return self._crashed("so did the process that watched it")
        if code == -signal.SIGXCPU:
            return self._limit("its decoder used up its processor time")
        return self._crashed(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _crashed(self, how: str) -> errors.DecoderCrashed:
        return errors.DecoderCrashed(
            f"the decoder of {self._source.name} died ({how}); tried again, and refused if it goes on",
            key=self._source.name,
            how=how,
        )

    def _parsed(self, parse: Callable[[bytes], T], payload: bytes) -> T:
        try:
            return parse(payload)
        except BrokenProtocol as exc:
            raise self._crashed(str(exc)) from exc


@contextlib.contextmanager
def decode(
    source: RangeSource,
    limits: DecodeLimits,
    decoders: Decoders = SHARED,
    *,
    track: int | None = None,
    by_channel: bool = False,
    on_read: Callable[[], None] = lambda: None,
) -> Iterator[Decoding]:
    """A decoder that runs as long as the block does; `facts` are there at once.

    `on_read` is called before each range is read, so that somebody hears of a decoder that only reads, and can end it
    by raising: the sound of a film may stand gigabytes apart.
    `track` counts sound tracks from 0; None is the one that FFmpeg's command line would take. Raises EmptyRecording,
    UnsupportedMedia (a type, codec, channels or a rate that we do not take), UnreadableAudio, NoSoundTrack,
    MissingTrack, TooManyChannels (to be kept apart), DecoderLimit, RecordingTooLong (by the header), DecoderCrashed,
    and what the source raises.
    """
    if source.size_bytes == 0:
        raise errors.EmptyRecording(f"{source.name} has no bytes; upload the recording again", key=source.name)
    with contextlib.ExitStack() as open_here:
        ahead = source if isinstance(source, ReadAhead) else open_here.enter_context(ReadAhead(source))
        decoding = Decoding(ahead, limits, decoders, track, by_channel=by_channel, on_read=on_read)
        open_here.callback(decoding.close)
        _ = decoding.facts
        yield decoding


@functools.cache
def _tell_once(confinement: Confinement) -> None:
    """Say what the decoders of this process do without, once and not for every recording."""
    if confinement.missing:
        log.warning("Recordings are decoded with fewer walls around them", extra={"missing": confinement.missing})


def _cpu_s(limits: DecodeLimits) -> int:
    return max(LEAST_CPU_S, int(limits.max_duration_s / LEAST_SPEED))


def _warnings(name: str, ending: Ending) -> Iterator[Problem]:
    if ending.broken_off:
        yield Problem(
            code="RECORDING_TRUNCATED",
            message=f"{name} breaks off ({ending.broken_off}); what could be decoded was used; check the upload",
            stage="plan",
        )
    elif ending.damaged_packets:
        yield Problem(
            code="RECORDING_DAMAGED",
            message=f"{ending.damaged_packets} packets of {name} are damaged and were left out; check the upload",
            stage="plan",
        )
    if ending.channels_change:
        yield Problem(
            code="CHANNELS_CHANGE",
            message=f"parts of {name} have another number of channels than its start: those that are missing are "
            "silent, those that are more are mixed to the others; record all of it in one way",
            stage="plan",
        )
