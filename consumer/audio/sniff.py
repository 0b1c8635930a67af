"""What a recording is, judged by its first bytes and never by its name: the allow-list of media types.

libmagic names the type; a small check of our own looks for MPEG and ADTS frames where libmagic shrugs (an MP3
without a tag begins with nothing that libmagic calls magic) and behind ID3 tags (which also stand before AAC and
FLAC). The type decides the demuxer: FFmpeg never guesses, so its two hundred other demuxers are out of reach.

Part of the decoder process: libmagic is C code that is fed by strangers, as FFmpeg is, and sits behind the same walls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

from consumer.audio.protocol import FOREIGN, CannotDecode

if TYPE_CHECKING:
    import magic

    from consumer.audio.served_file import ServedFile

FrameLength = Callable[[bytes], int | None]

HEAD_BYTES = 1 << 16
"""How much of a file is looked at: for its type, and for the length that its header announces."""
SYNC_SEARCH_BYTES = 1 << 12
"""How far into the file a first MPEG frame is looked for."""

MAX_TAGS = 8
"""ID3 tags in a row that are stepped over: careless programs put one before another, honest ones no third."""

UNKNOWN = "application/octet-stream"
NO_CHECK_CDF = 0x0040000
"""MAGIC_NO_CHECK_CDF of magic.h, whose name not every python-magic has."""

FRAMES_IN_A_ROW = 3
"""Frame headers that must follow each other: one alone turns up in any noise."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type of the allow-list, and the one FFmpeg demuxer that may read it."""

    name: str
    demuxer: str


WAV = MediaType("audio/wav", "wav")
WAVE64 = MediaType("audio/w64", "w64")
MP3 = MediaType("audio/mpeg", "mp3")
ADTS = MediaType("audio/aac", "aac")
FLAC = MediaType("audio/flac", "flac")
OGG = MediaType("audio/ogg", "ogg")
MP4_SOUND = MediaType("audio/mp4", "mov")
MP4 = MediaType("video/mp4", "mov")
QUICKTIME = MediaType("video/quicktime", "mov")
WEBM = MediaType("video/webm", "matroska")
MATROSKA = MediaType("video/x-matroska", "matroska")
AIFF = MediaType("audio/aiff", "aiff")
CAF = MediaType("audio/x-caf", "caf")
AU = MediaType("audio/basic", "au")
AMR = MediaType("audio/amr", "amr")

ALLOWED = {
    "audio/x-wav": WAV,
    "audio/wav": WAV,
    "audio/vnd.wave": WAV,
    "audio/x-w64": WAVE64,
    "audio/mpeg": MP3,
    "audio/aac": ADTS,
    "audio/x-aac": ADTS,
    "audio/x-hx-aac-adts": ADTS,
    "audio/flac": FLAC,
    "audio/x-flac": FLAC,
    "audio/ogg": OGG,
    "application/ogg": OGG,
    "video/ogg": OGG,
    "audio/mp4": MP4_SOUND,
    "audio/x-m4a": MP4_SOUND,
    "video/mp4": MP4,
    "video/x-m4v": MP4,
    "video/3gpp": MP4,
    "audio/3gpp": MP4_SOUND,
    "video/quicktime": QUICKTIME,
    "audio/webm": WEBM,
    "video/webm": WEBM,
    "audio/x-matroska": MATROSKA,
    "video/x-matroska": MATROSKA,
    "application/x-matroska": MATROSKA,
    "audio/x-aiff": AIFF,
    "audio/aiff": AIFF,
    "audio/x-caf": CAF,
    "audio/basic": AU,
    "audio/amr": AMR,
    "audio/AMR": AMR,
}

READABLE = "WAV, MP3, AAC, M4A/MP4/MOV/3GP, FLAC, OGG, WebM/Matroska, AIFF, CAF, AU or AMR"


def sniff(file: BinaryIO | ServedFile, head: bytes) -> MediaType:
    """The media type of a recording whose first HEAD_BYTES are `head`.

    Raises CannotDecode with the type found for all that is not on the allow-list.
    """
    media = _by_first_bytes(head) or _by_frames(file, head)
    if media is not None:
        return media
    found = _named(head)
    media = ALLOWED.get(found) or (_mpeg_frames(head) if found == UNKNOWN else None)
    if media is None:
        raise CannotDecode(FOREIGN, found)
    return media


def rehearse(wav: bytes) -> None:
    """Have libmagic load what it knows now: later no file can be opened."""
    assert ALLOWED[_named(wav)] is WAV


def _named(head: bytes) -> str:
    """The media type by libmagic; it gives up on what leads it in circles, which no honest file does."""
    found = _magic()
    import magic  # loaded already, after what it needs

    try:
        return str(found.from_buffer(head))
    except magic.MagicException:
        return UNKNOWN


@cache
def _magic() -> magic.Magic:
    """libmagic from its wheel. pylibmagic must come first: it tells python-magic where the library is.

    It looks only at the first bytes of media: what unpacks, or walks through the structure of archives, programs and
    office documents, has no work here, and is code that nobody has to trust then.
    """
    import pylibmagic  # noqa: F401
    import magic  # isort: skip

    found = magic.Magic(mime=True)
    no_walks = magic.MAGIC_NO_CHECK_COMPRESS | magic.MAGIC_NO_CHECK_TAR | magic.MAGIC_NO_CHECK_ELF
    magic.magic_setflags(found.cookie, found.flags | no_walks | NO_CHECK_CDF)
    return found


def _by_first_bytes(head: bytes) -> MediaType | None:
    """What libmagic does not know (the long-file variants of WAV, CAF), or not in all its forms (AU)."""
    if head[:6] == b"caff\0\1":
        return CAF
    if head[:4] == b".snd":
        return AU
    if head[:4] in (b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return WAV
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return WAVE64
    return None


def _by_frames(file: BinaryIO | ServedFile, head: bytes) -> MediaType | None:
    """What stands behind an ID3 tag; None where there is no tag, or nothing known behind it."""
    start, body = 0, head
    for _ in range(MAX_TAGS):
        if body[:3] != b"ID3" or len(body) < 10:
            break
        start += 10 + _syncsafe(body[6:10])
        file.seek(start)
        body = file.read(HEAD_BYTES)
    if not start:
        return None
    return FLAC if body[:4] == b"fLaC" else _mpeg_frames(body)


def _syncsafe(four: bytes) -> int:
    """ID3's 28-bit integer in four bytes of seven bits each."""
    size = 0
    for byte in four:
        size = size << 7 | byte & 0x7F
    return size


def _mpeg_frames(data: bytes) -> MediaType | None:
    """MP3 or ADTS where enough frame headers follow each other at the distances that they state."""
    for start in range(min(len(data), SYNC_SEARCH_BYTES)):
        if data[start] == 0xFF:
            for media, length_of in ((MP3, _mp3_frame_bytes), (ADTS, _adts_frame_bytes)):
                if _in_a_row(data, start, length_of):
                    return media
    return None


def _in_a_row(data: bytes, at: int, length_of: FrameLength) -> bool:
    seen = 0
    while seen < FRAMES_IN_A_ROW:
        length = length_of(data[at : at + 7])
        if length is None:
            return False
        seen += 1
        at += length
        if at == len(data):  # the file ends with this frame
            return seen >= 2
    return True


# kbit/s by bit rate index for MPEG-1 layer III and MPEG-2/2.5 layer III. Source: ISO/IEC 11172-3, 2.4.2.3; 13818-3.
_MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_HZ = (44_100, 48_000, 32_000)
_RATE_DIVISOR = {3: 1, 2: 2, 0: 4}  # MPEG-1, MPEG-2, MPEG-2.5


def _mp3_frame_bytes(head: bytes) -> int | None:
    """Length of the layer III frame with this header in bytes, or None when it is no header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return None
    kbits = (_MPEG1_KBITS if version == 3 else _MPEG2_KBITS)[bit_rate]
    hz = _MPEG1_HZ[rate] // _RATE_DIVISOR[version]
    return (144 if version == 3 else 72) * kbits * 1000 // hz + padding


def _adts_frame_bytes(head: bytes) -> int | None:
    """Length of the ADTS frame with this header in bytes, or None when it is no header. Source: ISO/IEC 13818-7."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 and head[2] >> 2 & 15 < 13 else None
