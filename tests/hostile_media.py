"""Recordings that an attacker would send: lying headers, bombs, and files that point elsewhere. Built byte by byte.

Sources: ISO/IEC 14496-12 (MP4), RFC 8794 and 9559 (Matroska), RFC 3533 (Ogg), RFC 9639 (FLAC), EBU Tech 3306 (RF64).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests import media

YEARS_100_S = 100 * 365 * 86_400
SECOND = media.wav(media.tone(1))[44:]
"""32,000 bytes of s16le at 16 kHz."""


# ── WAV and its long forms ──────────────────────────────────────────────────────────────────────────────────────────


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk, padded to an even size; `size` is what it says instead of the truth."""
    return name + struct.pack("<I", len(data) if size is None else size) + data + bytes(len(data) % 2)


def wav_format(
    rate_hz: int = 16_000, channels: int = 1, bits: int = 16, block: int | None = None, tag: int = 1
) -> bytes:
    block = channels * bits // 8 if block is None else block
    bytes_per_s = min(rate_hz * block, 0xFFFFFFFF)
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate_hz, bytes_per_s, block & 0xFFFF, bits))


def riff(*chunks: bytes, size: int | None = None, kind: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if size is None else size) + body


def wav(
    rate_hz: int = 16_000, channels: int = 1, bits: int = 16, data: bytes = SECOND, block: int | None = None
) -> bytes:
    return riff(wav_format(rate_hz, channels, bits, block), chunk(b"data", data))


def rf64(data_bytes: int, samples: int, data: bytes = SECOND, table_entries: int = 0, table: bytes = b"") -> bytes:
    ds64 = struct.pack("<QQQI", data_bytes + 80 & 0xFFFFFFFFFFFFFFFF, data_bytes, samples, table_entries) + table
    return riff(chunk(b"ds64", ds64), wav_format(), chunk(b"data", data, 0xFFFFFFFF), size=0xFFFFFFFF, kind=b"RF64")


def wave64(data_bytes: int, data: bytes = SECOND) -> bytes:
    tail = bytes.fromhex("2e91cf11a5d628db04c10000")
    wave_tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    fmt = wav_format()[8:]
    chunks = b"wave" + wave_tail
    chunks += b"fmt " + wave_tail + struct.pack("<Q", 24 + len(fmt)) + fmt
    chunks += b"data" + wave_tail + struct.pack("<Q", data_bytes) + data
    return b"riff" + tail + struct.pack("<Q", 24 + len(chunks)) + chunks


def nested_lists(depth: int) -> bytes:
    inner = chunk(b"LIST", b"INFO")
    for _ in range(depth):
        inner = chunk(b"LIST", b"INFO" + inner)
    return inner


# ── MP4 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def box(name: bytes, *parts: bytes, size: int | None = None) -> bytes:
    """An atom; `size` is what it says instead of the truth."""
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8 if size is None else size, name) + body


def long_box(name: bytes, body: bytes, size: int) -> bytes:
    """An atom with a size of 64 bits."""
    return struct.pack(">I4sQ", 1, name, size) + body


def full_box(name: bytes, *parts: bytes, version: int = 0, flags: int = 0, size: int | None = None) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *parts, size=size)


def table(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


SELF_CONTAINED = full_box(b"url ", flags=1)
FIRST_BYTE = 48
"""Where the samples begin: behind ftyp and the head of mdat, both of which `mp4` writes first."""


@dataclass(frozen=True)
class Track:
    """A sound track of s16le at 16 kHz, with the tables that say where its samples are."""

    samples: int = 16_000
    sample_bytes: int = 2
    chunks: Sequence[int] = (FIRST_BYTE,)
    samples_per_chunk: int = 16_000
    references: Sequence[bytes] = (SELF_CONTAINED,)
    codec: bytes = b"sowt"
    rate_hz: int = 16_000
    channels: int = 1
    duration: int = 16_000
    stts: bytes | None = None
    stsz: bytes | None = None
    stco: bytes | None = None
    stsc: bytes | None = None

    def atom(self, number: int = 1) -> bytes:
        entry = bytes(6) + struct.pack(">H", len(self.references)) + bytes(8)
        entry += struct.pack(">HHHHI", self.channels, 16, 0, 0, (self.rate_hz & 0xFFFF) << 16)
        tables = (
            full_box(b"stsd", table(1), box(self.codec, entry)),
            self.stts or full_box(b"stts", table(1, self.samples, 1)),
            self.stsc or full_box(b"stsc", table(1, 1, self.samples_per_chunk, 1)),
            self.stsz or full_box(b"stsz", table(self.sample_bytes, self.samples)),
            self.stco or full_box(b"stco", table(len(self.chunks), *self.chunks)),
        )
        references = full_box(b"dref", table(len(self.references)), *self.references)
        inner = box(b"minf", full_box(b"smhd", bytes(4)), box(b"dinf", references), box(b"stbl", *tables))
        described = full_box(b"mdhd", table(0, 0, self.rate_hz, self.duration), bytes(4))
        sound = full_box(b"hdlr", bytes(4), b"soun", bytes(12), b"\0")
        header = full_box(b"tkhd", table(0, 0, number, 0, self.duration), bytes(60), flags=7)
        return box(b"trak", header, box(b"mdia", described, sound, inner))


def mp4(*tracks: Track, data: bytes = SECOND, duration: int = 1_000, extra: bytes = b"") -> bytes:
    header = full_box(b"mvhd", table(0, 0, 1_000, duration), bytes(80))
    atoms = [track.atom(number) for number, track in enumerate(tracks, 1)]
    start = box(b"ftyp", b"qt  ", bytes(4), b"qt  ", bytes(FIRST_BYTE - 28)) + box(b"mdat", data)
    return start + box(b"moov", header, *atoms, extra)


def nested_boxes(depth: int, name: bytes = b"udta") -> bytes:
    inner = b""
    for _ in range(depth):
        inner = box(name, inner)
    return inner


def url_reference(url: str) -> bytes:
    """A data reference that says: the samples are over there."""
    return full_box(b"url ", url.encode() + b"\0")


def alias_reference(path: str) -> bytes:
    """A classic Mac OS alias record to a file, in the parts that FFmpeg looks at."""
    name = path.rsplit("/", 1)[-1].encode()[:63]
    record = bytes(10) + bytes([4]) + b"disk".ljust(27, b"\0") + bytes(12)
    record += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    for kind, text in ((2, path.replace("/", ":").encode()), (18, path.encode())):
        record += struct.pack(">HH", kind, len(text)) + text + bytes(len(text) % 2)
    record += struct.pack(">hH", -1, 0)
    return full_box(b"alis", record)


# ── Matroska ────────────────────────────────────────────────────────────────────────────────────────────────────────


def element(number: int, data: bytes = b"", size: bytes | None = None) -> bytes:
    """An EBML element; `size` is what it says instead of the truth, as it is written."""
    name = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return name + (struct.pack(">Q", 1 << 56 | len(data)) if size is None else size) + data


def uint(number: int, value: int) -> bytes:
    return element(number, value.to_bytes(max((value.bit_length() + 7) // 8, 1), "big"))


UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
EBML = element(0x1A45DFA3, uint(0x42F7, 1) + b"\x42\x82\x88matroska" + uint(0x4287, 4) + uint(0x4285, 2))
"""The size of the name is written in one byte, as every muxer does and libmagic expects."""


def mkv_track(number: int = 1, encoding: bytes = b"") -> bytes:
    """A sound track of s16le at 16 kHz."""
    sound = element(0xE1, element(0xB5, struct.pack(">d", 16_000.0)) + uint(0x9F, 1) + uint(0x6264, 16))
    return element(
        0xAE,
        uint(0xD7, number) + uint(0x73C5, number) + uint(0x83, 2) + element(0x86, b"A_PCM/INT/LIT") + sound + encoding,
    )


def compression(algorithm: int, settings: bytes = b"") -> bytes:
    """0 is zlib, 3 strips `settings` off the head of each block."""
    inner = uint(0x4254, algorithm) + (element(0x4255, settings) if settings else b"")
    return element(0x6D80, element(0x6240, uint(0x5033, 0) + element(0x5034, inner)))


def cluster(*blocks: bytes, time: int = 0) -> bytes:
    parts = [element(0xA3, b"\x81" + struct.pack(">hB", 0, 0x80) + block) for block in blocks]
    return element(0x1F43B675, uint(0xE7, time) + b"".join(parts))


def mkv(
    tracks: Iterable[bytes] = (),
    clusters: Iterable[bytes] = (),
    duration: float | None = None,
    extra: bytes = b"",
    info: bytes = b"",
    size: bytes | None = None,
) -> bytes:
    length = b"" if duration is None else element(0x4489, struct.pack(">d", duration))
    info = element(0x1549A966, uint(0x2AD7B1, 1_000_000) + length + info)
    tracks = tuple(tracks) or (mkv_track(),)
    body = info + element(0x1654AE6B, b"".join(tracks)) + extra + b"".join(tuple(clusters) or (cluster(SECOND),))
    return EBML + element(0x18538067, body, size)


def zlib_mkv(seconds: int) -> bytes:
    """Each block is a megabyte of silence in a kilobyte."""
    block = zlib.compress(bytes(1_000_000), 9)
    blocks = -(-seconds * 32_000 // 1_000_000)
    clusters = (cluster(block, time=at * 31_250) for at in range(blocks))
    return mkv([mkv_track(encoding=compression(0))], clusters)


# ── Ogg, FLAC, MP3 ──────────────────────────────────────────────────────────────────────────────────────────────────


def ogg_page(
    segments: bytes, body: bytes, *, serial: int = 1, sequence: int = 0, granule: int = 0, flags: int = 0
) -> bytes:
    head = b"OggS" + struct.pack("<BBqIII", 0, flags, granule, serial, sequence, 0) + bytes([len(segments)]) + segments
    return with_checksum(head + body)


def with_checksum(page: bytes) -> bytes:
    """The page with the checksum that it ought to have."""
    blank = page[:22] + bytes(4) + page[26:]
    return blank[:22] + struct.pack("<I", ogg_checksum(blank)) + blank[26:]


def ogg_checksum(page: bytes) -> int:
    """CRC-32 with the polynomial 0x04c11db7, no reflection. Source: RFC 3533, section 6."""
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _OGG_CRC[crc >> 24 ^ byte]
    return crc


def _ogg_crc_of(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


_OGG_CRC = tuple(map(_ogg_crc_of, range(256)))


def with_last_granule(ogg: bytes, granule: int) -> bytes:
    """The same Ogg file, whose last page tells another length."""
    at = ogg.rindex(b"OggS")
    page = bytearray(ogg[at:])
    page[6:14] = struct.pack("<q", granule)
    return ogg[:at] + with_checksum(bytes(page))


def with_flac_info(flac: bytes, *, samples: int | None = None, rate_hz: int | None = None) -> bytes:
    """The same FLAC file with another STREAMINFO."""
    out = bytearray(flac)
    packed = int.from_bytes(out[18:26], "big")
    if samples is not None:
        packed = packed & ~((1 << 36) - 1) | samples
    if rate_hz is not None:
        packed = packed & ((1 << 44) - 1) | rate_hz << 44
    out[18:26] = packed.to_bytes(8, "big")
    return bytes(out)


def flac_bomb(frames: int, rate_hz: int = 8_000) -> bytes:
    """Frames of 65,535 equal samples in about 14 bytes each; the header does not say how many there are."""
    info = struct.pack(">HH", 65_535, 65_535) + bytes(6) + (rate_hz << 44 | 15 << 36).to_bytes(8, "big") + bytes(16)
    return b"fLaC" + b"\x80\x00\x00\x22" + info + b"".join(map(_constant_flac_frame, range(frames)))


def _constant_flac_frame(number: int) -> bytes:
    head = b"\xff\xf8\x70\x00" + _like_utf8(number) + struct.pack(">H", 65_534)
    frame = head + bytes([_crc(head, 0x07, 8)]) + bytes(3)  # one subframe: constant, and the 16 bits of its value
    return frame + _crc(frame, 0x8005, 16).to_bytes(2, "big")


def _like_utf8(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    crc, top = 0, 1 << bits - 1
    for byte in data:
        crc ^= byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc & top else 0)) & (1 << bits) - 1
    return crc


def flac_picture_link(url: str) -> bytes:
    """A PICTURE block whose picture is a link; see RFC 9639, section 8.8."""
    body = (
        struct.pack(">II", 3, 3)
        + b"-->"
        + struct.pack(">I", 0)
        + bytes(16)
        + struct.pack(">I", len(url))
        + url.encode()
    )
    return bytes([6]) + struct.pack(">I", len(body))[1:] + body


def with_flac_block(flac: bytes, block: bytes) -> bytes:
    """The same FLAC file with a further block behind its STREAMINFO."""
    first = bytearray(flac[: 4 + 4 + 34])
    is_last, first[4] = first[4] & 0x80, first[4] & 0x7F
    return bytes(first) + bytes([block[0] | is_last]) + block[1:] + flac[42:]


def id3(*frames: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = b"".join(name + struct.pack(">I", len(data)) + bytes(2) + data for name, data in frames)
    length = len(body) if size is None else size
    return b"ID3\x03\x00\x00" + bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0)) + body


def with_xing(mp3_frames: bytes, frames: int) -> bytes:
    """MPEG-2 layer III frames at 16 kHz mono with a first one that says how many there are."""
    frame = bytearray(mp3_frames[: mp3_frames.index(mp3_frames[:2], 4)])
    frame[4:] = bytes(len(frame) - 4)
    frame[13:29] = b"Xing" + struct.pack(">III", 3, frames, min(frames * len(frame), 0xFFFFFFFF))
    return bytes(frame) + mp3_frames


# ── playlists ───────────────────────────────────────────────────────────────────────────────────────────────────────


def playlists(url: str) -> dict[str, bytes]:
    """Files that are not sound but say where it is."""
    return {
        "HLS": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n".encode(),
        "M3U": f"{url}\n".encode(),
        "PLS": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n".encode(),
        "DASH": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
            f'mimeType="audio/mp4"><Representation id="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet>'
            "</Period></MPD>"
        ).encode(),
        "concat script": f"ffconcat version 1.0\nfile '{url}'\n".encode(),
        "SDP": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n",
        "ASX": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode(),
        "XSPF": f'<?xml version="1.0"?><playlist version="1"><trackList><track><location>{url}</location></track>'
        "</trackList></playlist>".encode(),
        "QuickTime link": f'<?xml version="1.0"?><?quicktime type="application/x-quicktime-media-link"?>'
        f'<embed src="{url}"/>'.encode(),
        "SMIL": f'<smil><body><audio src="{url}"/></body></smil>'.encode(),
        "ffmetadata": f";FFMETADATA1\ntitle={url}\n".encode(),
        "IMF": f'<?xml version="1.0"?><CompositionPlaylist><Path>{url}</Path></CompositionPlaylist>'.encode(),
    }
