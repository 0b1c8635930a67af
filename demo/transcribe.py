"""The demo: the whole system in one process, on an embedded broker and an embedded store.

There is no way around the real parts: files are uploaded, job events published, and the same intake, coordinator,
planner, transcriber, assembler and cleanup run as in a cluster. Only the two servers are small.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from consumer import logs, topics
from consumer.adapters.kafka_outbox import PlainOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.bootstrap import Parts, Role, System
from consumer.core.identity import job_id_from_position
from consumer.core.layout import Topic
from consumer.errors import InvalidOption, Misconfigured, Rejected
from consumer.events import (
    DiarizeOptions,
    Event,
    JobControl,
    JobFinished,
    JobOptions,
    JobProgress,
    JobRequested,
    JobStatus,
    RecordingRef,
    Stage,
    VadOptions,
)
from consumer.exit_codes import ExitCode
from consumer.hard_end import end_now
from consumer.settings import (
    ChunkSettings,
    CoordinatorSettings,
    KafkaSettings,
    LogSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    TopicSettings,
)
from demo.embedded.broker import CLIENT_SETTINGS, EmbeddedBroker
from demo.embedded.store import EmbeddedStore

RECORDINGS = "recordings"
DEMO_MODEL = Path(__file__).parent / "models" / "tiny"
TOPICS = TopicSettings(
    work_partitions=1, state_partitions=1, public_partitions=1, replication_factor=1, min_insync_replicas=1
)


@dataclass
class Job:
    """One file on its way."""

    job_id: str
    file: Path
    key: str
    """Of the recording in the embedded store."""
    folder: str
    """Of its results, named as the file is."""
    told: JobProgress | None = None
    result: JobFinished | None = None


@dataclass
class Screen:
    """Talk on stderr: one line that is drawn again on a terminal, plain lines elsewhere."""

    live: bool = field(default_factory=sys.stderr.isatty)
    last: str = ""

    def say(self, sentence: str) -> None:
        if self.live and self.last:
            print(file=sys.stderr)
        self.last = ""
        print(sentence, file=sys.stderr, flush=True)

    def progress(self, line: str) -> None:
        if line == self.last:
            return
        if self.live:
            print(f"\r{line:<{len(self.last)}}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
        self.last = line


def main(arguments: argparse.Namespace) -> int:
    """The command `whisperx-consumer transcribe`."""
    screen = Screen()
    options = _options(arguments)
    _require_writable(arguments.output_dir)
    level = "INFO" if arguments.verbose else "ERROR"
    logs.configure(LogSettings(level=level, format="text"))
    screen.say("Running on an embedded broker and an embedded store: nothing here is durable.")
    with EmbeddedBroker(_topic_counts()) as broker, EmbeddedStore() as store:
        parts = Parts(_settings(arguments, broker.bootstrap_servers, store))
        with _running(parts, screen) as system:
            jobs = _submit(parts, arguments.files, options)
            return _finish(parts, system, jobs, arguments.output_dir, screen)


def _require_writable(folder: Path) -> None:
    """Said before hours of work, whose results would have no place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidOption(f"{folder} cannot be written: {error.strerror}; give a folder with --output-dir") from error


def _options(arguments: argparse.Namespace) -> JobOptions:
    try:
        return JobOptions(
            language=arguments.language,
            diarize=DiarizeOptions(num_speakers=arguments.speakers),
            vad=VadOptions(policy=arguments.vad_policy),
            output_formats=tuple(name.strip() for name in arguments.formats.split(",") if name.strip()),
        )
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, f['loc'])) or 'options'}: {f['msg'].removeprefix('Value error, ')}"
            for f in error.errors()
        )
        raise InvalidOption(faults) from error


def _topic_counts() -> dict[str, int]:
    return {spec.name: spec.partitions for spec in topics.table(KafkaSettings().topic_prefix, TOPICS)}


def _settings(arguments: argparse.Namespace, bootstrap_servers: str, store: EmbeddedStore) -> Settings:
    """The service's own settings, pointed at the embedded servers."""
    model = (arguments.model_dir or DEMO_MODEL).resolve()
    if not (model / "model.json").is_file():
        raise Misconfigured(f"{model} has no model.json; give a model directory (docs/models.md says what is in one)")
    chunks = ChunkSettings() if arguments.chunk_length is None else ChunkSettings(length_s=arguments.chunk_length)
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=bootstrap_servers,
            group_protocol="consumer",
            transactions=False,
            extra={name: str(value).lower() for name, value in CLIENT_SETTINGS.items()},
        ),
        topics=TOPICS,
        store=StoreSettings(
            endpoint=store.endpoint, access_key=store.access_key, secret_key=store.secret_key, secure=False
        ),
        models=ModelSettings(allowed=(model.name,), directory=model.parent),
        chunks=chunks,
        coordinator=CoordinatorSettings(progress_interval_s=0.3),
        server=ServerSettings(port=0),
    )


@contextlib.contextmanager
def _running(parts: Parts, screen: Screen) -> Iterator[System]:
    """All roles, models loaded, until the block ends."""
    for bucket in (RECORDINGS, parts.settings.store.work_bucket, parts.settings.store.results_bucket):
        parts.store.make_bucket(bucket)
    screen.say("Loading the models …")
    started = time.monotonic()
    system = System(parts, Role)
    try:
        system.start()
        screen.say(f"Ready after {time.monotonic() - started:.1f} s on {parts.engine.device}.")
        yield system
    finally:
        system.stop()
        with contextlib.suppress(Rejected):
            system.wait()


def _submit(parts: Parts, files: Sequence[Path], options: JobOptions) -> list[Job]:
    """Upload every file and publish one job event for each."""
    jobs = []
    outbox = PlainOutbox(parts.settings.kafka)
    for number, file in enumerate(files):
        job = _job(number, file)
        with file.open("rb") as source:
            parts.store.upload(RECORDINGS, job.key, source)
        recording = RecordingRef(bucket=RECORDINGS, key=job.key)
        request = JobRequested(job_id=job.job_id, recording=recording, options=options, submitted_by="demo")
        outbox.publish([parts.post.record(Topic.JOBS, request)], [])
        jobs.append(job)
    outbox.close(5.0)
    return jobs


def _job(number: int, file: Path) -> Job:
    """A job id has ASCII letters only; the folder of the results keeps those of the file's name."""
    stem = unicodedata.normalize("NFC", file.stem)
    suffix = job_id_from_position("demo", os.getpid(), number)[-8:]
    name, folder = (re.sub(other, "-", stem).strip("-")[:40] or "job" for other in (r"[^A-Za-z0-9]+", r"[\W_]+"))
    return Job(f"{name}-{suffix}", file, f"{number:04d}/{file.name}", f"{folder}-{suffix}")


def _finish(parts: Parts, system: System, jobs: list[Job], folder: Path, screen: Screen) -> int:
    """Show progress until every job has ended, then the transcripts and where their files are."""
    try:
        _watch(parts, system, jobs, screen)
    except KeyboardInterrupt:
        # The way out waits for the step in work. Whoever asks again does not want to, and the interpreter could not
        # end under the threads of the models.
        signal.signal(signal.SIGINT, lambda *_: end_now(ExitCode.INTERRUPTED))
        _cancel(parts, jobs)
        screen.say("Interrupted; the jobs are cancelled.")
        return ExitCode.INTERRUPTED
    for job in jobs:
        _show(parts, job, folder, screen)
    succeeded = all(job.result and job.result.status is JobStatus.COMPLETED for job in jobs)
    return ExitCode.OK if succeeded else ExitCode.FAILED


def _watch(parts: Parts, system: System, jobs: list[Job], screen: Screen) -> None:
    by_id = {job.job_id: job for job in jobs}
    tails = [_tail(parts, topic) for topic in (Topic.PROGRESS, Topic.RESULTS)]
    while not all(job.result for job in jobs):
        system.check()
        for tail in tails:
            while (record := tail.poll(0.05)) is not None:
                event = parts.codec.decode(record, (JobProgress, JobFinished))
                _note(by_id[event.key()], jobs, event, screen)
    for tail in tails:
        tail.close()


def _note(job: Job, jobs: list[Job], event: Event, screen: Screen) -> None:
    if isinstance(event, JobFinished):
        job.result = event
    elif isinstance(event, JobProgress) and event.stage is not Stage.FINISHED:  # the summary says that better
        job.told = event
        screen.progress(_line(job, jobs))


def _tail(parts: Parts, topic: Topic) -> KafkaTail:
    tail = KafkaTail(parts.settings.kafka, parts.topic(topic))
    tail.follow()
    return tail


def _line(job: Job, jobs: list[Job]) -> str:
    """Where a job is: its stage, percent, chunks, and the time that is left."""
    told = job.told
    assert told is not None
    count = f"[{jobs.index(job) + 1}/{len(jobs)}] " if len(jobs) > 1 else ""
    chunks = f"{told.chunks_done}/{told.chunks_total if told.chunks_total is not None else '…'} chunks"
    eta = f", {told.eta_s:.0f} s left" if told.eta_s else ""
    return f"{count}{job.file.name}: {told.stage.value} {told.fraction:4.0%}, {chunks}{eta}"


def _cancel(parts: Parts, jobs: list[Job]) -> None:
    outbox = PlainOutbox(parts.settings.kafka)
    open_jobs = [job for job in jobs if not job.result]
    cancels = [JobControl(job_id=job.job_id, action="cancel", reason="interrupted") for job in open_jobs]
    outbox.publish([parts.post.record(Topic.CONTROL, cancel) for cancel in cancels], [])
    outbox.close(5.0)


def _show(parts: Parts, job: Job, folder: Path, screen: Screen) -> None:
    """The transcript on stdout, the rest on stderr."""
    result = job.result
    assert result is not None
    if result.error is not None:
        screen.say(f"{job.file}: {result.status.value}: {result.error.code}: {_of_file(job, result.error.message)}")
    for warning in result.warnings:
        screen.say(f"{job.file}: warning: {warning.code}: {_of_file(job, warning.message)}")
    if not result.artifacts:
        return
    files = _download(parts, job, folder)
    screen.say(_summary(job))
    for line in _lines(json.loads(files["json"].read_text(encoding="utf-8"))):
        print(line)
    sys.stdout.flush()
    screen.say("Files: " + " ".join(str(path) for path in files.values()))


def _of_file(job: Job, message: str) -> str:
    """The service speaks of a place in the embedded store, which nobody here has made."""
    return message.replace(f"{RECORDINGS}/{job.key}", str(job.file))


def _download(parts: Parts, job: Job, folder: Path) -> dict[str, Path]:
    assert job.result is not None
    target = folder / job.folder
    target.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for artifact in job.result.artifacts:
        path = target / Path(artifact.claim_check.key).name
        with path.open("wb") as sink:
            for block in parts.store.stream(artifact.claim_check.bucket, artifact.claim_check.key):
                sink.write(block)
        files[artifact.format] = path
    return files


def _summary(job: Job) -> str:
    result = job.result
    assert result is not None
    assert result.recording is not None
    audio_s, wall_s = result.recording.duration_s, result.timings.wall_s
    return (
        f"{job.file}: {result.status.value}, {audio_s:.0f} s of audio in "
        f"{wall_s:.1f} s ({audio_s / wall_s if wall_s else 0:.1f}x real time), language {result.language or 'none'}, "
        f"{len(result.speakers)} speakers, {result.chunks_total} chunks"
    )


def _lines(transcript: dict[str, object]) -> Iterator[str]:
    """One line per segment: time, speaker, text."""
    segments = transcript["segments"]
    assert isinstance(segments, list)
    for segment in segments:
        minutes, seconds = divmod(float(segment["start"]), 60)
        yield f"[{int(minutes):02d}:{seconds:04.1f}] {segment.get('speaker', ''):<10} {segment['text'].strip()}"
