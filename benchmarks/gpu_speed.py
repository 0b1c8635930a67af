"""How fast does the transcriber work on a GPU, and how much of its memory does it take (10 to 70 times, 12 GB)?

    python -m benchmarks.gpu_speed                                          # an hour of speech, shapes of large-v3
    python -m benchmarks.gpu_speed --minutes 10 --batch-size 32 --compute-type int8_float16
    python -m benchmarks.gpu_speed --model tiny --device cpu --minutes 5    # the demo models; on any machine

The demo conversation over and over is cut into windows and chunks by the service's own policy and settings, and the
real Transcribe takes its chunks one by one from a store in memory, in a process of its own. The first chunk is done
once before, uncounted, and once more at the end, to see whether the same comes out twice. `large-v3` and `base`
have random weights (see base_size_model.py): what they hear is noise, every window ends after 100 tokens, and a real
conversation has fewer. The store, the decoder and joining the speakers of the recording are not in the figures.

Prints JSON: times real time (seconds of sound by seconds of work) for each stage and in all; the card's memory before,
and at the peak (by nvidia-smi, every 0.1 s: CTranslate2 allocates beside torch); resident memory after each chunk and
at the peak, which is while the model is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base_size_model import SIZES, make
from benchmarks.made_recordings import RATE_HZ, voice
from benchmarks.resident import measured, resident
from benchmarks.surroundings import Alone
from consumer.adapters.memory_store import MemoryStore
from consumer.audio.vad_silero import silero_windows
from consumer.core import checkpoint
from consumer.core.chunks import ChunkShape
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.speech import ChunkSpeech
from consumer.core.values import to_seconds
from consumer.core.windows import Decided
from consumer.events import ChunkTimings, JobOptions, VadOptions
from consumer.functions.transcribe import Transcribe
from consumer.settings import ChunkSettings, DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from consumer.work import ChunkWork

DEMO_MODELS = Path(__file__).parents[1] / "demo" / "models"
BUCKET, JOB = "transcription-work", "talk"
STAGES = ("transcribe", "align", "diarize")


def plan(
    store: MemoryStore, engine: SpeechEngine, options: JobOptions, minutes: float, longest_s: float
) -> list[ChunkWork]:
    """The chunks of a conversation of so many minutes, stored as the planner stores them."""
    settings, keys = ChunkSettings(), RunKeys(JOB, 1)
    samples = np.resize(voice(), int(minutes * 60 * RATE_HZ))
    max_window_s = min(engine.max_window_s(options.model), longest_s)
    min_overlap_s = engine.min_overlap_s(options.model)
    policy = silero_windows(VadOptions(), max_window_s)
    windows = (*policy.feed(samples).windows, *policy.finish().windows)
    planner = ChunkShape(settings.length_s, settings.overlap_s, settings.max_bytes).planner(max_window_s, min_overlap_s)
    works = []
    for chunk in planner.finish(Decided(windows, len(samples)), len(samples)):
        audio = samples[chunk.audio.start : chunk.audio.end].tobytes()
        document = ChunkPlan.of(chunk, hashlib.sha256(audio).hexdigest(), len(samples) if chunk.is_last else None)
        store.put(BUCKET, keys.chunk_audio(chunk.index), audio)
        store.put(BUCKET, keys.chunk_plan(chunk.index), document.model_dump_json().encode())
        length_s = to_seconds(chunk.span.length)
        works.append(
            ChunkWork(job_id=JOB, run=1, chunk_index=chunk.index, audio_s=length_s, options=options, language="en")
        )
    return works


def transcribe(models: Path, model: str, device: DeviceSettings, minutes: float, longest_s: float) -> dict[str, Any]:
    """All chunks in this process, one after the other."""
    started_s = time.monotonic()
    engine, store = SpeechEngine(ModelSettings(directory=models, allowed=(model,)), device), MemoryStore(BUCKET)
    engine.warm_up(model)
    loaded_s = time.monotonic()
    works = plan(store, engine, JobOptions(model=model, language="en"), minutes, longest_s)
    function = Transcribe(store, BUCKET, engine, time.monotonic)
    first = alone(function, store, works[0])
    spent, found, wall_s, resident_bytes = [], Counter[str](), [], []
    warnings = set[str]()
    for work in works:
        begun_s = time.monotonic()
        speech = alone(function, store, work)
        wall_s.append(time.monotonic() - begun_s)
        spent.append(speech.timings)
        found.update(contents(speech))
        warnings.update(warning.message for warning in speech.warnings)
        resident_bytes.append((resident(os.getpid()) or (0, 0))[0])
    audio_s = sum(work.audio_s for work in works)
    return {
        "model": model,
        "device": engine.device,
        "max_window_s": longest_s,
        "batch_size": device.cpu_batch_size if engine.device.startswith("cpu") else device.batch_size,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "ctranslate2", "whisperx")},
        "load_s": round(loaded_s - started_s, 1),
        "chunks": len(works),
        "audio_s": round(audio_s, 1),
        "wall_s": round(sum(wall_s), 2),
        "chunk_wall_s": [round(one, 2) for one in wall_s],
        "stage_s": {stage: round(total(spent, stage), 2) for stage in STAGES},
        "times_real_time": {
            "all": round(audio_s / sum(wall_s), 1),
            **{stage: round(audio_s / total(spent, stage), 1) for stage in STAGES},
        },
        "work": dict(found),
        "warnings": sorted(warnings),
        "twice": compared(first, alone(function, store, works[0])),
        "resident_after_chunk_bytes": resident_bytes,
    }


def alone(function: Transcribe, store: MemoryStore, work: ChunkWork) -> ChunkSpeech:
    """What one chunk gives; nothing of it stays in the store."""
    key = RunKeys(work.job_id, work.run).checkpoint(work.chunk_index)
    function(work, Alone())
    stored = store.get(BUCKET, key)
    store.delete(BUCKET, [key])
    return checkpoint.decode(stored)


def total(spent: Sequence[ChunkTimings], stage: str) -> float:
    seconds: float = sum(getattr(one, f"{stage}_s") for one in spent)
    return max(seconds, 1e-9)


def contents(speech: ChunkSpeech) -> dict[str, int]:
    """How much was recognised and looked at, so that nobody takes an idle stage for a fast one."""
    segments, activity = speech.segments, speech.activity
    return {
        "windows": len({segment.window_index for segment in segments}),
        "characters": sum(len(segment.text) for segment in segments),
        "words_with_times": sum(word.start_s is not None for segment in segments for word in segment.words),
        "diarization_windows": 0 if activity is None else len(activity.scores),
        "voices_embedded": 0 if activity is None else int((~np.isnan(activity.embeddings[..., 0])).sum()),
    }


def compared(one: ChunkSpeech, other: ChunkSpeech) -> dict[str, Any]:
    """The greatest differences of scores and embeddings, where there are any."""
    found: dict[str, Any] = {
        "same_text": [segment.text for segment in one.segments] == [segment.text for segment in other.segments],
        "same_segments_and_words": one.segments == other.segments,
    }
    if one.activity is not None and other.activity is not None:
        for name in ("scores", "embeddings"):
            apart = np.abs(getattr(one.activity, name) - getattr(other.activity, name))
            found[f"{name}_apart"] = float(np.nanmax(apart, initial=0.0))
    return found


# ── the card, from outside ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Card:
    """Memory that a card holds for all processes together."""

    name: str
    used_bytes: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        before, peak = self.used_bytes[0], max(self.used_bytes)
        return {"name": self.name, "before_bytes": before, "peak_bytes": peak, "own_peak_bytes": peak - before}


@contextmanager
def watched_card() -> Iterator[Card | None]:
    """The first card; None where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        yield None
        return
    ask = ["nvidia-smi", "--id=0", "--format=csv,noheader,nounits"]
    card = Card(subprocess.check_output([*ask, "--query-gpu=name"], text=True).strip())
    loop = [*ask, "--query-gpu=memory.used", "--loop-ms=100"]
    with subprocess.Popen(loop, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None, "it was asked for"
        card.used_bytes.append(_bytes(watch.stdout.readline()))
        reader = threading.Thread(target=lambda: card.used_bytes.extend(map(_bytes, watch.stdout or ())))
        reader.start()
        try:
            yield card
        finally:
            watch.terminate()
            reader.join()


def _bytes(mebibytes: str) -> int:
    return int(mebibytes) << 20


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    models: Path = arguments.models or (DEMO_MODELS if arguments.model == "tiny" else folder)
    if not (models / arguments.model / "model.json").is_file():
        make(models / arguments.model, arguments.model)
    command = ["-m", "benchmarks.gpu_speed", "--measure", "--models", str(models), "--model", arguments.model]
    for name in ("device", "compute_type", "batch_size", "minutes", "max_window_s"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    with watched_card() as card:
        found = measured(command)
    return {**found.answer, "card": card and card.figures(), "resident_peak_bytes": found.own.peak_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", *SIZES), default="large-v3", help="demo models, or a size")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the recording")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="cuda")
    parser.add_argument("--compute-type", default="auto", help="of the recogniser")
    parser.add_argument("--batch-size", type=int, default=DeviceSettings().batch_size, help="windows at once, on a GPU")
    parser.add_argument("--max-window-s", type=float, default=30.0, help="shorter windows are more, and fill the batch")
    parser.add_argument("--models", type=Path, help="folder of model directories; a missing one is made and kept there")
    parser.add_argument("--output", type=Path, help="file for the JSON")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        device = DeviceSettings(
            device=arguments.device, compute_type=arguments.compute_type, batch_size=arguments.batch_size
        )
        print(
            json.dumps(transcribe(arguments.models, arguments.model, device, arguments.minutes, arguments.max_window_s))
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    if arguments.output:
        arguments.output.write_text(json.dumps(result) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
