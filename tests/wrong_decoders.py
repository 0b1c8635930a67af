"""Decoders that are wrong on purpose: a program of the process that starts them, with a few lines more."""

from __future__ import annotations

from typing import Final

from consumer.audio.decoders import START
from consumer.audio.sniff import MediaType

_LEAD: Final = "from consumer.audio.decoder_server import main"


def program_with(patch: str) -> str:
    """For `Decoders`: the lines run once, in the server, before it forks anything."""
    assert _LEAD in START
    return START.replace(_LEAD, f"{patch}\n{_LEAD}")


def deceived(media: MediaType) -> str:
    """For `Decoders`: every recording is taken for that type, whatever it is."""
    return program_with(
        "from consumer.audio import decoder_process, sniff\n"
        f"decoder_process.sniff = lambda *_: sniff.MediaType({media.name!r}, {media.demuxer!r})"
    )
