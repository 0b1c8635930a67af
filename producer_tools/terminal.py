"""Data goes to stdout, talk goes to stderr; a terminal gets lines that are redrawn in place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, TextIO

_CLEAR_LINE = "\x1b[2K"
_FALLBACK_WIDTH = 80
_FALLBACK_HEIGHT = 24


def printable(text: str) -> str:
    """Text from elsewhere, so that it cannot steer a terminal: control characters are escaped.

    printable("a\\tb\\x1b[31m") -> 'a\\\\tb\\\\x1b[31m'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@dataclass
class Terminal:
    """The two streams of a command. The lines that were drawn last stand at the end of stderr, to be drawn over."""

    out: TextIO
    err: TextIO
    _drawn: list[str] = field(default_factory=list, init=False)

    @property
    def interactive(self) -> bool:
        return self.err.isatty()

    def data(self, line: str) -> None:
        self.erase()
        self.out.write(line + "\n")
        self.out.flush()

    def bytes_out(self) -> BinaryIO:
        """stdout for bytes."""
        self.out.flush()
        return self.out.buffer

    def say(self, line: str) -> None:
        self.erase()
        self.err.write(line + "\n")
        self.err.flush()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those drawn before; without a terminal nothing is shown."""
        if not self.interactive:
            return
        width, height = _size(self.err)
        shown = list(lines[: height - 1])
        if len(shown) < len(lines):
            shown[-1] = f"... and {len(lines) - len(shown) + 1} more"
        shown = [line[: width - 1] for line in shown]
        if shown != self._drawn:
            self.erase()
            self.err.write("".join(f"{_CLEAR_LINE}{line}\n" for line in shown))
            self.err.flush()
            self._drawn = shown

    def erase(self) -> None:
        """Take the drawn lines away, so that other lines can come in their place."""
        if self._drawn:
            self.err.write(f"\x1b[{len(self._drawn)}F\x1b[J")
            self.err.flush()
            self._drawn = []


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the terminal behind the stream."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _FALLBACK_WIDTH, _FALLBACK_HEIGHT
    return found.columns or _FALLBACK_WIDTH, found.lines or _FALLBACK_HEIGHT


def duration(seconds: float) -> str:
    """duration(75) -> '1:15', duration(4000) -> '1:06:40'"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """size(123_000_000) -> '123 MB'"""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
