"""Does the transcriber stay under 2 GB (promise P5), and does it grow from chunk to chunk?

    python -m benchmarks.transcriber_memory                                # the demo models, two hours of speech
    python -m benchmarks.transcriber_memory --model base --seconds 1200    # base size, as far as it comes in 20 minutes
    python -m benchmarks.transcriber_memory --quick                        # ten minutes of speech

The demo conversation over and over is planned into a MinIO that is started for this run; then the real Transcribe
function takes its chunks one by one in a process of its own, on the CPU. `base` has random weights in the shapes of
Whisper base, wav2vec2 base and pyannote's networks (see base_size_model.py). Prints JSON: resident memory over time,
before the models were loaded (the baseline), the peak, and the slope over the last three quarters of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.base_size_model import make
from benchmarks.planner_memory import BUCKET, WORK_BUCKET, environment_of, plan, put_recording, settings_of
from benchmarks.resident import measured, resident
from benchmarks.surroundings import Alone
from consumer.adapters.object_store import S3Store
from consumer.core.layout import RunKeys
from consumer.core.manifest import ChunkPlan
from consumer.core.values import to_seconds
from consumer.events import JobOptions
from consumer.functions.transcribe import Transcribe
from consumer.settings import DeviceSettings, ModelSettings, StoreSettings
from consumer.speech.engine import SpeechEngine
from consumer.work import ChunkWork
from tests.servers.minio import own_minio

DEMO_MODELS = Path(__file__).parents[1] / "demo" / "models"
KEY = "talk.wav"
JOB = "talk-wav"
BYTES_PER_S = 32_000


def transcribe(models: Path, model: str, seconds: float) -> dict[str, Any]:
    """Chunk after chunk in this process, until the recording or the time is over."""
    store = S3Store.of(StoreSettings.model_validate_json(os.environ["BENCHMARK_STORE"]))
    before = resident(os.getpid())
    engine = SpeechEngine(ModelSettings(directory=models, allowed=(model,)), DeviceSettings(device="cpu"))
    engine.warm_up(model)
    loaded = resident(os.getpid())
    function = Transcribe(store, WORK_BUCKET, engine, time.monotonic)
    keys, options = RunKeys(JOB, 1), JobOptions(model=model, language="en")
    audio_s, text, index, started_s = 0.0, 0, 0, time.monotonic()
    plans = sorted(key for key in store.list_keys(WORK_BUCKET, keys.work_prefix + "chunks/") if key.endswith(".json"))
    while index < len(plans) and time.monotonic() - started_s < seconds:
        span = ChunkPlan.model_validate_json(store.get(WORK_BUCKET, plans[index])).chunk().span
        length_s = to_seconds(span.length)
        work = ChunkWork(job_id=JOB, run=1, chunk_index=index, audio_s=length_s, options=options, language="en")
        done = function(work, Alone())
        text += sum(len(one.text) for one in getattr(done, "segments", ()))
        audio_s += length_s
        index += 1
    return {
        "model": model,
        "chunks": index,
        "chunks_planned": len(plans),
        "audio_s": round(audio_s),
        "transcribe_s": round(time.monotonic() - started_s),
        "characters": text,
        "baseline_bytes": before[0] if before else 0,
        "models_loaded_bytes": loaded[0] if loaded else 0,
    }


def measure(model: str, hours: float, seconds: float, folder: Path) -> dict[str, Any]:
    models = DEMO_MODELS
    if model == "base":
        models = folder / "models"
        make(models / "base")
    with own_minio(folder) as minio:
        store = S3Store.of(settings_of(minio))
        for bucket in (BUCKET, WORK_BUCKET):
            store.make_bucket(bucket)
        put_recording(store, "wav", KEY, int(hours * 3600 * BYTES_PER_S), folder)
        os.environ.update(environment_of(minio))
        plan(KEY, 30.0 if model == "base" else 12.0)
        command = ["-m", "benchmarks.transcriber_memory", "--measure", str(models), "--model", model]
        found = measured([*command, "--seconds", str(seconds)])
    return {**found.answer, "transcriber": found.own.figures()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "base"), default="tiny", help="demo models or base size")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the recording")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further chunk after this long")
    parser.add_argument("--quick", action="store_true", help="ten minutes of speech")
    parser.add_argument("--output", type=Path, help="file for the JSON")
    parser.add_argument("--measure", type=Path, metavar="MODELS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(transcribe(arguments.measure, arguments.model, arguments.seconds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        hours = 1 / 6 if arguments.quick else arguments.hours
        result = measure(arguments.model, hours, arguments.seconds, Path(folder))
    if arguments.output:
        arguments.output.write_text(json.dumps(result) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
