"""Does the assembler stay below 2 GB for ten hours and twenty speakers, and its reduce step below 1 GB of its own?

    python -m benchmarks.assembler_memory                                 # 1, 3 and 10 hours; a minute or two
    python -m benchmarks.assembler_memory --hours 1 2 --speakers 4

Checkpoints of a made-up talk (made_up_talk.py; with text, two and a half words a second) lie in a folder, and
`Assemble` joins them in a process of its own with the demo models loaded. The baseline is pyannote's own `apply` over
the same scores and embeddings, in a process of its own too, for the first of the hours only: at ten it would take tens
of gigabytes. Prints JSON: resident memory in bytes, seconds, and the error rate against the truth of the talk.
`benchmarks.assembler_chart` draws it. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import made_up_talk as talk
from benchmarks.resident import KIB, peak_bytes
from benchmarks.speaker_errors import error_rates
from benchmarks.surroundings import Alone, FolderStore
from consumer.core import checkpoint
from consumer.core.layout import RunKeys
from consumer.core.speech import Activity, ChunkSpeech, Diarization, Segment, Turn, Word
from consumer.core.values import SAMPLE_RATE_HZ
from consumer.events import ChunkTimings, JobOptions, RecordingFacts
from consumer.functions.assemble import Assemble
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from consumer.work import AssemblyWork

MODELS = Path(__file__).parents[1] / "demo" / "models"
KEYS = RunKeys("memory", 1)
SEED = 1
CHUNK_WINDOWS = 600
WORDS_PER_S = 2.5
STATUS = Path("/proc/self/status")


def write_checkpoints(folder: Path, said: list[Turn], hours: float, speakers: int) -> int:
    """What the transcribers leave; the number of chunks comes back."""
    store = Folder(folder)
    length_s = CHUNK_WINDOWS * talk.STEP_S
    chunks = 0
    for activity in talk.activities(said, hours, speakers, SEED, windows_each=CHUNK_WINDOWS):
        turns = [turn for turn in said if chunks * length_s <= turn.start_s < (chunks + 1) * length_s]
        speech = ChunkSpeech(
            segments=tuple(_segment(turn) for turn in turns),
            activity=activity,
            language="en",
            language_probability=None,
            timings=ChunkTimings(),
            fingerprint="made up",
        )
        store.put("work", KEYS.checkpoint(chunks), checkpoint.encode(speech))
        chunks += 1
    return chunks


def _segment(turn: Turn) -> Segment:
    words = max(1, int((turn.end_s - turn.start_s) * WORDS_PER_S))
    times = np.linspace(turn.start_s, turn.end_s, words + 1).round(3).tolist()
    spoken = tuple(Word(f"word{n}", times[n], times[n + 1], 0.9) for n in range(words))
    text = "".join(f" {word.text}" for word in spoken)
    return Segment(turn.start_s, turn.end_s, text, spoken, timing="aligned")


def _work(hours: float, chunks: int) -> AssemblyWork:
    facts = RecordingFacts(
        bucket="calls",
        key="talk.wav",
        etag="1",
        size_bytes=round(hours * 3600 * SAMPLE_RATE_HZ * 2),
        media_type="audio/x-wav",
        duration_s=hours * 3600,
        speech_s=hours * 3600,
        channels=1,
        sample_rate_hz=SAMPLE_RATE_HZ,
    )
    return AssemblyWork(
        job_id=KEYS.job_id,
        run=KEYS.run,
        chunks_total=chunks,
        request_digest="0",
        recording=facts,
        options=JobOptions(),
        language="en",
        metadata={},
    )


class Folder(FolderStore):
    """Objects as files, and a missing one as the port has it."""

    def get(self, bucket: str, key: str, *, etag: str | None = None, version_id: str | None = None) -> bytes:
        self.stat(bucket, key)
        return super().get(bucket, key, etag=etag, version_id=version_id)


class WatchedEngine(SpeechEngine):
    """Notes what its reduce step takes, and keeps the turns."""

    turns: tuple[Turn, ...] = ()
    reduce_peak_bytes = 0
    reduce_s = 0.0

    @classmethod
    def warm(cls) -> WatchedEngine:
        """With the demo models loaded, and everything imported that a reduce step imports."""
        engine = cls(ModelSettings(directory=MODELS, allowed=("tiny",)), DeviceSettings(device="cpu"))
        said = talk.turns(0.02, 2, SEED)
        engine.join_speakers(talk.activities(said, 0.02, 2, SEED), int(72 * SAMPLE_RATE_HZ), JobOptions())
        return engine

    def join_speakers(self, activities: Iterable[Activity], recording_samples: int, options: JobOptions) -> Diarization:
        forget_peak()
        started_s = time.monotonic()
        joined = super().join_speakers(activities, recording_samples, options)
        self.reduce_s, self.reduce_peak_bytes = time.monotonic() - started_s, peak_bytes(STATUS)
        self.turns = joined.turns
        forget_peak()
        return joined


def resident_bytes() -> int:
    lines = [line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) * KIB


def forget_peak() -> None:
    """The peak of resident memory counts from here (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(folder: Path, hours: float, chunks: int) -> dict[str, Any]:
    """Assemble what is in `folder`, in this process."""
    engine = WatchedEngine.warm()
    loaded = resident_bytes()
    assemble = Assemble(Folder(folder), "work", "results", engine, 0, clock=time.monotonic)
    started_s = time.monotonic()
    finished = assemble(_work(hours, chunks), Alone())
    return {
        "assemble_s": round(time.monotonic() - started_s, 1),
        "reduce_s": round(engine.reduce_s, 1),
        "loaded_bytes": loaded,
        "peak_bytes": max(engine.reduce_peak_bytes, peak_bytes(STATUS)),
        "reduce_own_bytes": engine.reduce_peak_bytes - loaded,
        "speakers": len(finished.speakers),
        "turns": [(turn.start_s, turn.end_s, turn.speaker) for turn in engine.turns],
    }


def measure_pyannote(folder: Path) -> dict[str, Any]:
    """pyannote's own reduce step over what is in `folder`, in this process."""
    from pyannote.audio import Pipeline
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    WatchedEngine.warm()
    pipeline: Any = Pipeline.from_pretrained(str(MODELS / "tiny" / "diarization"))
    loaded = resident_bytes()
    forget_peak()
    started_s = time.monotonic()
    read = (checkpoint.decode(path.read_bytes()).activity for path in sorted(folder.rglob("*.npz")))
    parts = [activity for activity in read if activity is not None]
    grid = SlidingWindow(start=0.0, duration=float(talk.WINDOW_S), step=float(talk.STEP_S))
    scores = SlidingWindowFeature(np.concatenate([part.scores for part in parts]), grid)
    embeddings = np.nan_to_num(np.concatenate([part.embeddings for part in parts]), nan=1.0)
    pipeline.get_segmentations = lambda *_, **__: scores
    pipeline.get_embeddings = lambda *_, **__: embeddings
    found = pipeline.apply({"uri": "talk"}).speaker_diarization
    return {
        "reduce_s": round(time.monotonic() - started_s, 1),
        "loaded_bytes": loaded,
        "peak_bytes": peak_bytes(STATUS),
        "reduce_own_bytes": peak_bytes(STATUS) - loaded,
        "speakers": len(found.labels()),
        "turns": [
            (round(span.start, 3), round(span.end, 3), label) for span, _, label in found.itertracks(yield_label=True)
        ],
    }


def measure_apart(folder: Path, said: list[Turn], *arguments: str) -> dict[str, Any]:
    """What a process of its own measures, with the error rate in the place of its turns."""
    command = [sys.executable, "-m", "benchmarks.assembler_memory", "--folder", str(folder), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures | error_rates(said, (Turn(*turn) for turn in figures.pop("turns")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--speakers", type=int, default=20)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--chunks", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.folder:
        only = arguments.folder, arguments.hours[0], arguments.chunks
        print(json.dumps(measure(*only) if arguments.chunks else measure_pyannote(arguments.folder)))
        return
    assembler: list[dict[str, Any]] = []
    pyannote: dict[str, Any] = {}
    for hours in arguments.hours:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            said = talk.turns(hours, arguments.speakers, SEED)
            chunks = write_checkpoints(folder, said, hours, arguments.speakers)
            if not pyannote:
                pyannote = {"hours": hours} | measure_apart(folder, said)
            figures = measure_apart(folder, said, "--hours", str(hours), "--chunks", str(chunks))
            assembler.append({"hours": hours, "true_speakers": len({turn.speaker for turn in said})} | figures)
    print(json.dumps({"assembler": assembler, "pyannote": pyannote}, indent=2))


if __name__ == "__main__":
    main()
