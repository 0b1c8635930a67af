"""Numbers as Avro writes them, for those who want to write wrong ones."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """An Avro long: zigzag, seven bits a byte."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F or number < 0:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
