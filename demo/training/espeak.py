"""espeak-ng through its C library: about 600 times faster than real time, and it tells where each word starts.

The word events are the truth for word times: they hold the sample at which a word begins.
Source of the interface: espeak-ng/speak_lib.h (version 1.5x).
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from demo.training.speech import Samples, Word

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the callback is called inside the call
_PHONEME_EVENTS, _DO_NOT_EXIT = 0x0001, 0x8000
_END, _WORD, _PHONEME = 0, 1, 7
_RATE, _PITCH, _RANGE, _WORDGAP = 1, 3, 4, 7
_UTF8, _BY_CHARACTER = 1, 1


class MissingSynthesiser(RuntimeError):
    """espeak-ng or flite is not installed; only training and the making of recordings need them."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was not found. Install the packages: apt-get install libespeak-ng1 flite")


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _EventStruct(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EventStruct))


@dataclass(frozen=True)
class _Event:
    kind: int
    text_position: int
    sample: int
    phoneme: bytes

    @property
    def is_pause(self) -> bool:
        return self.kind == _PHONEME and self.phoneme[:1] in (b"_", b"")


class Espeak:
    """One instance per process: the library is not re-entrant."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as exc:
            raise MissingSynthesiser("The library libespeak-ng.so.1") from exc
        self.rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DO_NOT_EXIT)
        if self.rate_hz <= 0:
            raise MissingSynthesiser("The data of espeak-ng (package espeak-ng-data)")
        self._pieces: list[np.ndarray] = []
        self._events: list[_Event] = []
        self._callback = _CALLBACK(self._collect)  # kept: the library holds only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(
        self, text: str, voice: str, *, speed_wpm: int, pitch: int, pitch_range: int
    ) -> tuple[Samples, list[Word]]:
        """Samples at `rate_hz` and words, none where espeak-ng merged the first ones.

        `voice` is a file name of a voice with a variant, such as "gmw/en-US+f2".
        """
        self._pieces, self._events = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        settings = {_RATE: speed_wpm, _PITCH: pitch, _RANGE: pitch_range, _WORDGAP: 0}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, int(value), 0)
        raw = text.encode()
        self._library.espeak_Synth(raw, len(raw) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._pieces) if self._pieces else np.zeros(1, np.int16)
        return samples.astype(np.float32) / np.float32(32768), self._words(text, len(samples))

    def _collect(self, wav: "ctypes._Pointer[ctypes.c_short]", n: int, events: "ctypes._Pointer[_EventStruct]") -> int:
        if n > 0 and wav:
            self._pieces.append(np.ctypeslib.as_array(wav, (n,)).copy())
        i = 0
        while events[i].type != _END:
            event = events[i]
            if event.type in (_WORD, _PHONEME):
                phoneme = event.id.string if event.type == _PHONEME else b""
                self._events.append(_Event(event.type, event.text_position, event.sample, phoneme))
            i += 1
        return 0

    def _words(self, text: str, n_samples: int) -> list[Word]:
        pauses = [*sorted(event.sample for event in self._events if event.is_pause), n_samples]
        starts = self._starts(text, speech_end=pauses[-2] if len(pauses) > 1 else n_samples)
        words = []
        for k, (word, start) in enumerate(starts):
            following = starts[k + 1][1] if k + 1 < len(starts) else n_samples
            pause = next((sample for sample in pauses if sample > start + 200), n_samples)
            words.append(Word(word, start / self.rate_hz, min(following, pause) / self.rate_hz))
        return words

    def _starts(self, text: str, speech_end: int) -> list[tuple[str, int]]:
        """Each word of the text with its first sample; empty if the first word has no event."""
        sample_at: dict[int, int] = {}
        for event in self._events:
            if event.kind == _WORD:
                sample_at.setdefault(event.text_position - 1, event.sample)
        words, position = [], 0
        for word in text.split():
            position = text.index(word, position)
            words.append((word, sample_at.get(position)))
            position += len(word)
        return _interpolated(words, speech_end)


def _interpolated(words: Sequence[tuple[str, int | None]], speech_end: int) -> list[tuple[str, int]]:
    """espeak-ng gives merged words ("of the") one event: share their time by their length in letters."""
    known = [(i, start) for i, (_, start) in enumerate(words) if start is not None]
    if not known or known[0][0] != 0:
        return []
    known.append((len(words), speech_end))
    full: list[tuple[str, int]] = []
    for (i, start), (j, end) in pairwise(known):
        letters = np.cumsum([0, *(len(words[k][0]) for k in range(i, j))])
        shares = letters / letters[-1]
        full += [(words[k][0], int(start + (end - start) * shares[k - i])) for k in range(i, j)]
    return full
