"""Spoiled recordings: every ordinary and every hostile one that the tests know, and what can be made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Final

from tests.fuzz.case import Case
from tests.fuzz.spoiling import RECORDING_WAYS, spoiled, with_true_checksums
from tests.hostile_cases import CASES
from tests.odd_media import RECORDINGS

ASKED: Final = b'{"recording": {"bucket": "recordings", "key": "a"}}'
MOST_SOUND_BYTES: Final = 1 << 19
"""Larger ones show no more, and take longer."""

_MAKERS: Final[dict[str, Callable[[], bytes]]] = {
    **{name: one.make for name, one in RECORDINGS.items()},
    **{f"hostile: {name}": one.make for name, one in CASES.items()},
}


def media_case(seed: int, number: int) -> Case:
    """The same for the same seed and number, but for the ids that some containers draw when their sound is made."""
    r = Random(f"media/{seed}/{number}")
    name = _draw(r)
    data, ways = spoiled(r, _sound(name), [_sound(_draw(r))], RECORDING_WAYS)
    if r.random() < 0.8:
        data = with_true_checksums(data)
    return Case((name, *ways), data, ASKED)


def _draw(r: Random) -> str:
    names = tuple(_MAKERS)
    while len(_sound(name := r.choice(names))) > MOST_SOUND_BYTES:
        pass
    return name


@cache
def _sound(name: str) -> bytes:
    return _MAKERS[name]()
