"""Care for data on real servers: sweep beside an open run, and a recording that a job gives away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import Producer
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from consumer.adapters.kafka_tail import KafkaTail
from consumer.cli import main
from consumer.coordinator.state import JobState, Status
from consumer.core.layout import Topic
from consumer.events import AuditRecorded, JobRequested, JobStatus, RecordingRef
from consumer.exit_codes import ExitCode
from consumer.functions.cleanup import CleanUp
from consumer.sweeping import NeededRuns
from consumer.work import CleanupWork
from tests.integration.server_system import ServerSystem
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio
from tests.servers.process import free_port
from tests.unit.functions.result_fakes import FakeAttempt

pytestmark = pytest.mark.servers

KEPT = {
    "work/open/1/chunks/00000.pcm",
    "work/failed/1/checkpoints/00000.npz",
    "results/open/1/transcript.json",
    "results/done/1/manifest.json",
    "results/done/1/transcript.json",
    "somebody/else.txt",
}
ORPHANS = {
    "work/done/1/chunks/00000.pcm",
    "work/forgotten/3/plan-shape.json",
    "results/forgotten/3/transcript.json",
    "probe/worker-1",
    "doctor/abc",
}


@pytest.fixture
def made(kafka: Kafka, minio: Minio, topic_prefix: str) -> Iterator[ServerSystem]:
    system = ServerSystem(kafka, minio, topic_prefix)
    yield system
    system.close()


def remember(
    made: ServerSystem, job_id: str, status: Status, outcome: JobStatus | None = None, partition: int | None = None
) -> None:
    request = JobRequested(recording=RecordingRef(bucket="calls", key="a"))
    state = JobState(job_id=job_id, request=request, request_digest="d", received_at_s=0.0, status=status)
    write(made, job_id, state.changed(outcome=outcome).to_bytes(), partition)


def forget(made: ServerSystem, job_id: str) -> None:
    write(made, job_id, None)


def write(made: ServerSystem, job_id: str, value: bytes | None, partition: int | None = None) -> None:
    producer = Producer({"bootstrap.servers": made.kafka.bootstrap_servers})
    where = len(job_id) % 2 if partition is None else partition
    producer.produce(made.prefix + Topic.JOB_STATE, key=job_id, value=value, partition=where)
    assert producer.flush(20) == 0


def stored(made: ServerSystem) -> set[str]:
    return {key for bucket in (made.work, made.results) for key in made.store.list_keys(bucket, "")}


def test_orphans_of_every_kind_go_and_what_is_needed_stays(
    made: ServerSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    for key in KEPT | ORPHANS:
        made.store.put(made.results if key.startswith("results/") else made.work, key, b"1234")
    remember(made, "open", Status.TRANSCRIBING)
    remember(made, "failed", Status.CLEANED, JobStatus.FAILED)
    remember(made, "done", Status.CLEANED, JobStatus.COMPLETED)

    assert main(["sweep"]) == ExitCode.OK
    assert capsys.readouterr().out == "", "all of this is young"
    assert main(["sweep", "--older-than", "0", "--json"]) == ExitCode.OK
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ({one["outcome"] for one in shown}, len(shown)) == ({"found"}, len(ORPHANS))
    assert stored(made) == KEPT | ORPHANS

    assert main(["sweep", "--older-than", "0", "--delete", "--as", "ann"]) == ExitCode.OK
    assert stored(made) == KEPT
    said = capsys.readouterr()
    logged = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert len(said.out.splitlines()) == len(ORPHANS)
    lines = 2 * len(ORPHANS)
    made.wait(lambda: len(made.events(Topic.AUDIT, AuditRecorded)) == lines, what="the trail")
    trail = made.events(Topic.AUDIT, AuditRecorded)
    assert {(line.actor, line.action) for line in trail} == {("sweep, ann", "orphans_swept")}
    assert sorted(line.outcome for line in trail) == ["begun"] * len(ORPHANS) + ["ok"] * len(ORPHANS)
    told = [(one["target"], one["outcome"]) for one in logged if one["logger"] == "consumer.audit"]
    assert sorted(told) == sorted((line.target, line.outcome) for line in trail), "each is a log line too"
    assert main(["sweep", "--older-than", "0", "--delete"]) == ExitCode.OK
    assert stored(made) == KEPT


def test_what_is_needed_is_known_as_of_now_without_reading_all_states_again(made: ServerSystem) -> None:
    """Between two batches jobs begin, end and are forgotten."""
    with closing(KafkaTail(made.settings().kafka, made.prefix + Topic.JOB_STATE)) as states:
        needed = NeededRuns(states)
        remember(made, "open", Status.TRANSCRIBING)
        remember(made, "later", Status.WAITING)
        assert needed.read() == {("open", 1), ("later", 1)}
        assert needed.read() == {("open", 1), ("later", 1)}, "nothing is new"
        remember(made, "open", Status.CLEANED, JobStatus.COMPLETED)
        remember(made, "late", Status.PLANNING)
        assert needed.read() == {("late", 1), ("later", 1)}
        forget(made, "later")
        assert needed.read() == {("late", 1)}


def test_a_job_with_states_in_two_partitions_is_needed_as_long_as_either_says_so(made: ServerSystem) -> None:
    """Somebody has changed the number of partitions, and a job that had ended is run again in its new one."""
    with closing(KafkaTail(made.settings().kafka, made.prefix + Topic.JOB_STATE)) as states:
        needed = NeededRuns(states)
        remember(made, "open", Status.TRANSCRIBING, partition=0)
        remember(made, "open", Status.CLEANED, JobStatus.COMPLETED, partition=1)
        assert needed.read() == {("open", 1)}
        remember(made, "open", Status.CLEANED, JobStatus.COMPLETED, partition=1)
        assert needed.read() == {("open", 1)}
        remember(made, "open", Status.CLEANED, JobStatus.COMPLETED, partition=0)
        assert needed.read() == frozenset()


def test_without_the_brokers_nothing_is_removed(made: ServerSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in made.environment(KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)
    made.store.put(made.work, "work/forgotten/1/a", b"1234")
    assert main(["sweep", "--older-than", "0", "--delete"]) == ExitCode.UNAVAILABLE
    assert stored(made) == {"work/forgotten/1/a"}


@pytest.mark.parametrize("versioned", [False, True])
def test_a_recording_goes_only_as_it_was_pinned(made: ServerSystem, minio: Minio, versioned: bool) -> None:
    if versioned:
        minio.client().set_bucket_versioning(made.recordings, VersioningConfig(ENABLED))
    clean_up = CleanUp(made.store, made.work, made.results, True, may_delete_recordings=True)
    said = {}
    for key in ("as-it-was", "overwritten"):
        made.store.put(made.recordings, key, b"before")
        stat = made.store.stat(made.recordings, key)
        assert stat.modified_at is not None
        if key == "overwritten":
            made.store.put(made.recordings, key, b"after")
        ref = RecordingRef(bucket=made.recordings, key=key, etag=stat.etag, version_id=stat.version_id)
        work = CleanupWork(job_id="job", run=1, status=JobStatus.COMPLETED, recording=ref, modified_at=stat.modified_at)
        said[key] = clean_up(work, FakeAttempt()).recording
    assert said == {"as-it-was": "ok", "overwritten": "ok" if versioned else "SOURCE_CHANGED"}
    assert list(made.store.list_keys(made.recordings, "")) == ["overwritten"]
    assert made.store.get(made.recordings, "overwritten") == b"after"
