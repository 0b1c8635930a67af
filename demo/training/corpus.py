"""The training corpus: utterances with text, speaker and word times.

On disk: `audio.i16`, all utterances one after the other, 16 kHz mono; `utterances.jsonl`, one line each.
"""

import json
import multiprocessing
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from demo.training import grammar, voices
from demo.training.espeak import Espeak
from demo.training.speech import SAMPLE_RATE_HZ, Samples, Word

SPEAKERS = 330
SHARDS = 16
"""Fixed, and each made by a fresh process: the corpus does not depend on the number of processes."""


@dataclass(frozen=True)
class CorpusSize:
    """Utterances of each kind; the numbers of the full corpus give 28 hours."""

    english: int = 26_000
    flite: int = 2_600
    german: int = 2_000
    demo: int = 14_000


@dataclass(frozen=True)
class Utterance:
    first_sample: int
    n_samples: int
    text: str
    language: str
    speaker: int
    words: tuple[Word, ...]


Order = tuple[int, str]
"""The seed and the kind of one utterance to make."""


def orders(size: CorpusSize) -> list[Order]:
    """What to say, shuffled; seeds of two kinds never meet."""
    every = [(i, "english") for i in range(size.english)]
    every += [(10_000_000 + i, "flite") for i in range(size.flite)]
    every += [(20_000_000 + i, "german") for i in range(size.german)]
    every += [(30_000_000 + i, "demo") for i in range(size.demo)]
    random.Random(0).shuffle(every)
    return every


def synthesise(folder: Path, size: CorpusSize, processes: int) -> None:
    """Write the corpus; does nothing when it is there, and keeps the finished shards of a killed run."""
    if (folder / "utterances.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    every = orders(size)
    work = [(folder / f"shard-{k:02}", every[k::SHARDS]) for k in range(SHARDS)]
    # One shard per process, since espeak-ng keeps state between calls. Forked: nothing has started threads yet.
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        pool.starmap(_make_shard, work, chunksize=1)
    _join([shard for shard, _ in work], folder)


def _make_shard(shard: Path, work: Sequence[Order]) -> None:
    if shard.with_suffix(".jsonl").exists():
        return
    espeak, position, lines = Espeak(), 0, []
    with shard.with_suffix(".i16").open("wb") as audio:
        for order in work:
            made = _say(espeak, order, position)
            if made is not None:
                utterance, samples = made
                audio.write((samples * 32767).astype(np.int16).tobytes())
                position += utterance.n_samples
                lines.append(json.dumps(asdict(utterance)))
    _write_whole(shard.with_suffix(".jsonl"), lines)


def _say(espeak: Espeak, order: Order, position: int) -> tuple[Utterance, Samples] | None:
    """None for what is too short to be speech or too long for a window."""
    seed, kind = order
    r = random.Random(seed)
    language = "de" if kind == "german" else "en"
    text = grammar.sentence(language, r)
    voice = _voice(kind, seed, r)
    speech = voices.say(espeak, text, voice, r, language)
    n = len(speech.samples)
    if not 0.2 * SAMPLE_RATE_HZ <= n <= 11 * SAMPLE_RATE_HZ:
        return None
    words = tuple(Word(word.text, round(float(word.start_s), 3), round(float(word.end_s), 3)) for word in speech.words)
    return Utterance(position, n, text, language, voice.id, words), speech.samples


def _voice(kind: str, seed: int, r: random.Random) -> voices.Voice:
    if kind == "flite":
        return voices.flite_voice(seed)
    if kind == "demo":
        return voices.demo_voice(r.randrange(100_000))
    return voices.espeak_voice(r.randrange(SPEAKERS))


def _join(shards: Sequence[Path], folder: Path) -> None:
    first_sample, lines = 0, []
    with (folder / "audio.i16").open("wb") as audio:
        for shard in shards:
            raw = shard.with_suffix(".i16").read_bytes()
            audio.write(raw)
            for line in shard.with_suffix(".jsonl").read_text().splitlines():
                utterance = json.loads(line)
                lines.append(json.dumps(utterance | {"first_sample": utterance["first_sample"] + first_sample}))
            first_sample += len(raw) // 2
    _write_whole(folder / "utterances.jsonl", lines)
    for shard in shards:
        shard.with_suffix(".i16").unlink()
        shard.with_suffix(".jsonl").unlink()


def _write_whole(path: Path, lines: Sequence[str]) -> None:
    """The file is there with all lines or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(line + "\n" for line in lines))
    unfinished.replace(path)


class Corpus:
    """The corpus on disk, read through a memory map.

    Utterances of the demo voices are kept apart (`demo`), so that each training decides about them.
    """

    def __init__(self, folder: Path) -> None:
        self._audio = np.memmap(folder / "audio.i16", np.int16, "r")
        every = [_utterance(line) for line in (folder / "utterances.jsonl").read_text().splitlines()]
        self.hours = len(self._audio) / SAMPLE_RATE_HZ / 3600
        self.demo = [u for u in every if u.speaker >= voices.FIRST_DEMO_ID]
        self.english = [u for u in every if u.language == "en" and u.speaker < voices.FIRST_DEMO_ID]
        self.german = [u for u in every if u.language == "de"]

    def samples(self, utterance: Utterance) -> Samples:
        first = utterance.first_sample
        pcm = self._audio[first : first + utterance.n_samples]
        return pcm.astype(np.float32) / np.float32(32768)


def _utterance(line: str) -> Utterance:
    fields = json.loads(line)
    return Utterance(**fields | {"words": tuple(Word(**word) for word in fields["words"])})
