"""Decoders that are wrong on purpose: a program of the process that starts them, with a few lines more."""

from __future__ import annotations

from typing import Final

from consumer.audio.decoders import START

_LEAD: Final = "from consumer.audio.decoder_server import main"


def program_with(patch: str) -> str:
    """For `Decoders`: the lines run once, in the server, before it forks anything."""
    assert _LEAD in START
    return START.replace(_LEAD, f"{patch}\n{_LEAD}")
