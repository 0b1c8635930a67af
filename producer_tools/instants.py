"""Points in time as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from producer_tools.faults import WrongUsage

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def duration_from(text: str) -> timedelta:
    """duration_from("90m") -> 1:30:00. Raises WrongUsage."""
    match = _DURATION.fullmatch(text.strip())
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])}) if match else _refuse(text)
    except OverflowError:
        return _refuse(text)


def _refuse(text: str) -> timedelta:
    raise WrongUsage(f"{text!r} is no length of time; write 90s, 15m, 24h or 7d")


def instant_from(text: str, now: datetime, *, ahead: bool) -> datetime:
    """An instant as ISO 8601, or as a distance from now: ahead of it, or back. Raises WrongUsage.

    instant_from("2h", now, ahead=True) -> now + 2 hours
    """
    if _DURATION.fullmatch(text.strip()):
        distance = duration_from(text)
        try:
            return now + distance if ahead else max(now - distance, datetime(1970, 1, 1, tzinfo=UTC))
        except OverflowError as exc:
            raise WrongUsage(f"{text!r} leads out of the calendar") from exc
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise WrongUsage(f"{text!r} is no time; write 2024-05-01T12:00:00Z, or a distance such as 24h") from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)
