"""The tools and the example reader on a real Kafka, a real MinIO and a real registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from consumer.adapters.kafka_client import producer_config
from consumer.adapters.object_store import PART_BYTES, S3Store
from consumer.adapters.registry import ConfluentRegistry
from consumer.core.layout import Topic
from consumer.events import Event, JobControl, JobRequested, JobStatus, Stage
from consumer.settings import KafkaSettings
from consumer.wire import Codec
from producer_tools.exit_codes import Exit
from producer_tools.tail import Tail
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio
from tests.servers.registry import Registry
from tests.unit.producer_tools.installation import NOW, PUBLIC, Installation, finished, progress
from tests.unit.producer_tools.results import store_result

pytestmark = pytest.mark.servers

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "read_events.py"
BOUND_S = 60
MOST_MEMORY_MIB = 160
"""Of the process that uploads: interpreter and clients need about 80, the parts on their way 40."""


@pytest.fixture
def installation(kafka: Kafka, minio: Minio, topic_prefix: str, bucket_prefix: str) -> Installation:
    for topic in PUBLIC:
        kafka.create_topic(topic_prefix + topic, partitions=3)
    store = S3Store(minio.endpoint, minio.access_key, minio.secret_key, secure=minio.secure)
    for name in ("recordings", "results"):
        store.make_bucket(bucket_prefix + name)
    environment = {
        "WHISPERX_STORE__ENDPOINT": minio.endpoint,
        "WHISPERX_STORE__ACCESS_KEY": minio.access_key,
        "WHISPERX_STORE__SECRET_KEY": minio.secret_key,
        "WHISPERX_STORE__SECURE": str(minio.secure).lower(),
        "WHISPERX_STORE__RESULTS_BUCKET": f"{bucket_prefix}results",
    }
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix)
    return Installation(settings, store, environment)


@contextmanager
def started(installation: Installation, *command: str, env: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, **installation.environment, **env}
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def jobs(installation: Installation, *arguments: str, env: Mapping[str, str] = {}) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `whisperx-jobs`."""
    with started(installation, "-m", "producer_tools.cli", *arguments, env=env) as process:
        out, err = process.communicate(timeout=BOUND_S)
    return process.returncode, out, err


def decoded(installation: Installation, topic: Topic, event: type[Event]) -> list[Event]:
    return [installation.codec.decode(record, (event,)) for record in installation.records(topic)]


# ── the example reader ──────────────────────────────────────────────────────────────────────────────────────────────


def example(installation: Installation, job_id: str, *more: str) -> list[dict[str, Any]]:
    """What the example reader prints until the job has ended. It runs outside the repository, without our modules."""
    command = [
        *("--bootstrap-servers", installation.kafka.bootstrap_servers),
        *("--topic-prefix", installation.kafka.topic_prefix),
        *("--group", f"{installation.kafka.topic_prefix}reader"),
        *("--schemas", str(ROOT / "schemas"), "--until", job_id),
        *more,
    ]
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE), *command],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return {words[1].split(".")[0] for words in lines if words and words[0] in ("import", "from")}


def published(installation: Installation) -> None:
    installation.publish(Topic.PROGRESS, progress("a", 2, fraction=0.4), progress("a", 1), progress("a", 2))
    installation.publish(Topic.PROGRESS, progress("a", 3, stage=Stage.ASSEMBLING, fraction=0.9, audio_total_s=60))
    in_a_transaction(installation, finished("a", JobStatus.FAILED), commit=False)
    in_a_transaction(installation, finished("a", language="en", speakers=("A",)), commit=True)


def in_a_transaction(installation: Installation, event: Event, *, commit: bool) -> None:
    topic = installation.topic(Topic.RESULTS)
    value, headers = installation.codec.encode(event, topic, event_id="1", time=NOW)
    producer = Producer({**producer_config(installation.kafka), "transactional.id": f"{topic}-writer"})
    producer.init_transactions(BOUND_S)
    producer.begin_transaction()
    producer.produce(topic, key=event.key().encode(), value=value, headers=list(headers))
    assert producer.flush(BOUND_S) == 0
    producer.commit_transaction(BOUND_S) if commit else producer.abort_transaction(BOUND_S)


def seen(events: list[dict[str, Any]]) -> None:
    """What a reader of `published` sees: no progress that goes back, and the one result that stands."""
    sequences = [event["sequence"] for event in events if event["event"] == "JobProgress"]
    assert sequences == sorted(set(sequences))
    ends = [event for event in events if event["event"] == "JobFinished"]
    assert [(end["status"], end["language"], end["speakers"]) for end in ends] == [("completed", "en", ["A"])]


def test_the_example_reads_events_by_their_fingerprints(installation: Installation) -> None:
    published(installation)
    seen(example(installation, "a"))


def test_the_example_reads_events_by_their_ids_in_a_registry(installation: Installation, registry: Registry) -> None:
    client = ConfluentRegistry(registry.url)
    client.prepare(installation.kafka.topic_prefix)
    installation.codec = Codec(client, "/tests")
    published(installation)
    assert all((record.value or b"").startswith(b"\x00") for record in installation.records(Topic.RESULTS))
    seen(example(installation, "a", "--registry", registry.url))
    client.close()


def test_the_example_needs_a_kafka_client_and_avro_only() -> None:
    foreign = imports_of(EXAMPLE) - set(sys.stdlib_module_names)
    assert foreign == {"confluent_kafka", "fastavro"}


# ── the tools ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recording_becomes_a_job_and_its_result_a_file(
    installation: Installation, bucket_prefix: str, tmp_path: Path
) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(os.urandom(2 * PART_BYTES + 17))
    code, out, err = jobs(installation, "submit", str(recording), "--bucket", f"{bucket_prefix}recordings")
    assert code == Exit.OK, err
    job = out.split("\t")[0]
    (request,) = decoded(installation, Topic.JOBS, JobRequested)
    assert isinstance(request, JobRequested)
    stored = b"".join(installation.store.stream(request.recording.bucket, request.recording.key))
    assert stored == recording.read_bytes()

    store_result(installation.store, f"{bucket_prefix}results", job, 1, srt=b"1\n")
    installation.publish(Topic.RESULTS, finished(job))
    code, out, err = jobs(installation, "watch", job, "--timeout", "30s")
    assert (code, out) == (Exit.OK, f"{job}\tcompleted\t\n"), err
    code, out, err = jobs(installation, "result", job, "--format", "srt")
    assert (code, out) == (Exit.OK, "1\n"), err


def test_a_retry_names_the_newest_run_that_readers_of_committed_results_know(installation: Installation) -> None:
    in_a_transaction(installation, finished("a", JobStatus.FAILED, run=2), commit=True)
    in_a_transaction(installation, finished("a", run=3), commit=False)
    code, _, err = jobs(installation, "retry", "a", "--reason", "disk full")
    assert code == Exit.OK, err
    (control,) = decoded(installation, Topic.CONTROL, JobControl)
    assert isinstance(control, JobControl)
    assert (control.action, control.run, control.reason) == ("retry", 2, "disk full")


def test_events_go_through_a_registry_where_there_is_one(installation: Installation, registry: Registry) -> None:
    env = {"WHISPERX_REGISTRY__URL": registry.url}
    code, _, err = jobs(installation, "cancel", "a", env=env)
    assert code == Exit.MISCONFIGURED, err  # the tool looks schemas up, it does not register them
    client = ConfluentRegistry(registry.url)
    client.prepare(installation.kafka.topic_prefix)
    code, _, err = jobs(installation, "cancel", "a", env=env)
    assert code == Exit.OK, err
    (record,) = installation.records(Topic.CONTROL)
    assert (record.value or b"").startswith(b"\x00")
    assert Codec(client, "/tests").decode(record, (JobControl,)).job_id == "a"
    client.close()


def test_watch_begins_at_an_instant_and_sees_what_comes_later(installation: Installation) -> None:
    installation.publish(Topic.RESULTS, finished("old", JobStatus.FAILED))
    after_ms = int(time.time() * 1000) + 1
    while int(time.time() * 1000) <= after_ms:  # a record has the time of its sender: ours
        pass
    with Tail.since(installation.kafka, [installation.topic(Topic.RESULTS)], after_ms) as tail:
        assert list(tail.read_to_end()) == []
        installation.publish(Topic.RESULTS, finished("new"))
        deadline = time.monotonic() + BOUND_S
        record = None
        while record is None and time.monotonic() < deadline:
            record = tail.poll(0.5)
    assert record is not None
    assert record.key == b"new"
    with Tail.since(installation.kafka, [installation.topic(Topic.RESULTS)], after_ms) as tail:
        assert [one.key for one in tail.read_to_end()] == [b"new"]


def test_watch_shows_what_happens_while_it_runs_and_ctrl_c_ends_it(installation: Installation) -> None:
    with started(installation, "-m", "producer_tools.cli", "watch", "a", "b") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        unknown = {process.stderr.readline().split()[4] for _ in range(2)}
        assert unknown == {"a", "b"}
        installation.publish(Topic.PROGRESS, progress("a", 1, stage=Stage.QUEUED, queue_position=2))
        while "number 2 in its lane" not in process.stderr.readline():
            assert process.poll() is None
        installation.publish(Topic.RESULTS, finished("a"))
        assert process.stdout.readline() == "a\tcompleted\t\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=BOUND_S)
    assert process.returncode == Exit.INTERRUPTED
    assert "whisperx-jobs watch b" in said


def test_a_topic_that_is_missing_is_a_matter_of_settings(installation: Installation) -> None:
    code, _, err = jobs(installation, "cancel", "a", "--topic-prefix", "wxtest-nowhere-")
    assert code == Exit.MISCONFIGURED
    assert "wxtest-nowhere-control" in err
    assert "topics create" in err


def test_wrong_keys_to_the_store_are_a_matter_of_credentials(installation: Installation) -> None:
    env = {"WHISPERX_STORE__SECRET_KEY": "not-the-secret-key"}
    code, _, err = jobs(installation, "result", "a", env=env)
    assert code == Exit.MISCONFIGURED
    assert "Traceback" not in err
    assert "not-the-secret-key" not in err


def test_an_upload_takes_the_same_memory_whatever_the_size(
    installation: Installation, bucket_prefix: str, tmp_path: Path
) -> None:
    recording = tmp_path / "long.wav"
    with recording.open("wb") as file:
        for _ in range(40):
            file.write(os.urandom(PART_BYTES))
    script = (
        # VmHWM and not ru_maxrss: the latter begins with the size of the process that this one was forked from.
        "import re, sys; from producer_tools.cli import main; code = main(sys.argv[1:]);"
        "peak_kib = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "print(peak_kib // 1024, file=sys.stderr); sys.exit(code)"
    )
    command = ("-c", script, "submit", str(recording), "--bucket", f"{bucket_prefix}recordings")
    with started(installation, *command) as process:
        _, err = process.communicate(timeout=2 * BOUND_S)
    assert process.returncode == Exit.OK, err
    assert int(err.splitlines()[-1]) < MOST_MEMORY_MIB
