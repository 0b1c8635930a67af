"""A recording opened: its container, the sound track that is heard, what it says of itself, and what follows it.

Part of the decoder process: see `decoder_process`. What follows are links of a chain (Ogg), and windows of a long index
or of many fragments (MP4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import BinaryIO

import av
import av.error
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.stream import Disposition

from consumer.audio.chained import next_link
from consumer.audio.mp4_boxes import Unusual
from consumer.audio.mp4_fragments import FragmentedMp4, FragmentWindow, in_fragments
from consumer.audio.mp4_index import LongMp4, Window, taken_apart
from consumer.audio.protocol import MAX_STREAMS, CannotDecode, Facts, Order
from consumer.audio.served_file import ServedFile
from consumer.audio.sniff import MediaType

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

WITHOUT_A_LOOK = MappingProxyType({"probesize": "32", "analyzeduration": "1"})
"""To open what a decoder is there for: FFmpeg looks at pictures too, and all of a window is read."""

Link = tuple[InputContainer, AudioStream]
"""One of the recordings in a chained file, or one window of a long one, opened, with its sound track."""


def opened(
    file: BinaryIO | ServedFile, media: MediaType, order: Order
) -> tuple[InputContainer, AudioStream, Facts, Windows | None]:
    """The recording with its sound track and facts, in windows where its index is long or comes in fragments.

    Raises CannotDecode.
    """
    long: LongMp4 | FragmentedMp4 | None = None
    if media.demuxer == "mov":
        long = taken_apart(file, order.size_bytes, order.packets_at_once)
        long = long or in_fragments(file, order.size_bytes, order.packets_at_once)
    if long is not None:
        with contextlib.suppress(Unusual, CannotDecode):
            return Windows.begin(long, media, order)
    file.seek(0)
    container = open_container(file, media.demuxer, order.max_streams)
    stream = choose_stream(container, order.track)
    return container, stream, facts_of(container, stream, order.size_bytes, media), None


class Windows:
    """The windows of a long MP4 behind the first, opened one after the other.

    `broken_off` says what, if anything, shows that the file was cut or is damaged from some place on.
    """

    def __init__(
        self, long: LongMp4 | FragmentedMp4, media: MediaType, order: Order, first: Window | FragmentWindow
    ) -> None:
        self._long = long
        self._media = media
        self._order = order
        self._window = first
        self._open: InputContainer | None = None
        self._unread: str | None = None

    @property
    def broken_off(self) -> str | None:
        return self._unread or self._long.broken_off

    @classmethod
    def begin(
        cls, long: LongMp4 | FragmentedMp4, media: MediaType, order: Order
    ) -> tuple[InputContainer, AudioStream, Facts, Windows]:
        """The first one. Raises CannotDecode and Unusual; then the file is tried as a whole."""
        window = long.first()
        container = open_container(window, media.demuxer, order.max_streams)
        if len(container.streams.audio) != len(long.tracks):
            raise Unusual("FFmpeg sees other tracks than we do")
        if order.track is None and not _is_plain(container.streams.audio):
            raise Unusual("FFmpeg would choose among sound tracks by their bit rates, which are others in a window")
        stream = choose_stream(container, order.track)
        facts = facts_of(container, stream, order.size_bytes, media)
        track = long.choose(facts.track)
        facts = replace(facts, duration_hint_s=track.duration_s, hint_is_exact=track.is_exact)
        return container, stream, facts, cls(long, media, order, window)

    def open_next(self) -> Link | None:
        """None behind the last one, and where the file breaks off."""
        if self._open is not None:
            self._open.close()
        if self._window.ran_out or not self._long.has_more:
            return None
        try:
            self._window = self._long.following()
            self._open = open_container(self._window, self._media.demuxer, self._order.max_streams, WITHOUT_A_LOOK)
            return self._open, choose_stream(self._open, self._long.further_track)
        except (Unusual, CannotDecode) as exc:
            self._unread = f"reading stopped: {exc}"
            return None


def open_container(
    file: BinaryIO | ServedFile | Window | FragmentWindow,
    demuxer: str,
    max_streams: int = MAX_STREAMS,
    more: Mapping[str, str] = MappingProxyType({}),
) -> InputContainer:
    """Nothing but this file is opened, whatever it refers to, with nothing but this demuxer."""
    options = {"codec_whitelist": ",".join(DECODERS), "protocol_whitelist": "none", "format_whitelist": demuxer}
    options |= {"max_streams": str(max_streams + 1), **more}  # time to open grows with the square of their number
    try:
        container = av.open(file, "r", format=demuxer, container_options=options, metadata_errors="replace")
    except MemoryError as exc:  # FFmpeg says the same to both
        reason = f"it has more than {max_streams} tracks, or cannot be opened in the memory that there is"
        raise CannotDecode("DecoderLimit", reason) from exc
    except (av.error.FFmpegError, EOFError, ValueError) as exc:
        raise CannotDecode("UnreadableAudio", f"no {demuxer} container: {said(exc)}") from exc
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


def _is_plain(tracks: Sequence[AudioStream]) -> bool:
    """Whether one of them comes first by its marks alone, as `av_find_best_stream` counts them."""
    marks = [
        bool(one.disposition & Disposition.default)
        + (not one.disposition & (Disposition.hearing_impaired | Disposition.visual_impaired))
        for one in tracks
    ]
    return marks.count(max(marks)) == 1


def facts_of(container: InputContainer, stream: AudioStream, size: int, media: MediaType) -> Facts:
    hint_s = None
    if stream.duration is not None and stream.time_base is not None:
        hint_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        hint_s = container.duration / av.time_base
    return Facts(
        media_type=media.name,
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


class Links:
    """The links of a chained file that FFmpeg does not go on into, opened one after the other."""

    def __init__(self, file: ServedFile, media: MediaType, order: Order) -> None:
        self._file = file
        self._media = media
        self._order = order

    def open_next(self, at: int) -> Link | None:
        """The link behind the page at that byte of the link before; None where none can be opened."""
        start = next_link(self._file, at) if self._media.demuxer == "ogg" else None
        if start is None:
            return None
        self._file = self._file.behind(start)
        try:
            container = open_container(self._file, self._media.demuxer, self._order.max_streams)
            return container, choose_stream(container, self._order.track)
        except CannotDecode:
            return None


def said(error: Exception) -> str:
    """FFmpeg's sentence without its number, and without the name that our file does not have."""
    return getattr(error, "strerror", None) or str(error)
