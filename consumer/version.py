"""Which version this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Of the installed package; a checkout that was never installed has none."""
    try:
        return metadata.version("whisperx-consumer")
    except metadata.PackageNotFoundError:
        return "0+unknown"
