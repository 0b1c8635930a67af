"""Real processes, real Kafka and MinIO, the real WhisperX chain with the demo models, real signals."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from consumer.core.layout import Topic
from consumer.events import ChunkTranscribed, JobStatus
from demo import recordings
from demo.training import flac
from tests.acceptance.cluster import Cluster, Process
from tests.acceptance.conftest import LONG, SHORT, MakeCluster
from tests.servers.kcat import Kcat

pytestmark = [pytest.mark.servers, pytest.mark.models, pytest.mark.timeout(900)]

OTHERS = "intake,coordinate,plan,assemble,cleanup"
KILLS = int(os.environ.get("WHISPERX_TEST_KILLS", "0"))


def submit(cluster: Cluster, job_id: str, key: str, **options: object) -> None:
    """By the senders' own tool."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = cluster.command(
        "submit", f"s3://{cluster.recordings}/{key}", "--job-id", job_id, *flags, program="whisperx-jobs"
    )
    assert done.returncode == 0, done.stderr
    assert job_id in done.stdout


def computed(*processes: Process) -> Counter[int]:
    """How often each chunk was really computed, by the processes' own closing lines."""
    lines = [line for process in processes for line in process.lines() if line["message"] == "Chunk transcribed"]
    return Counter(int(str(line["chunk_index"])) for line in lines if line["reused"] is False)


def test_a_job_from_kcat_and_one_from_the_tool_give_the_same_result(new_cluster: MakeCluster, kcat: Kcat) -> None:
    cluster = new_cluster()
    cluster.wait_ready(cluster.start("all"))
    cluster.upload("call.flac", SHORT)
    submit(cluster, "by-tool", "call.flac")
    event = {"job_id": "by-kcat", "recording": {"bucket": cluster.recordings, "key": "call.flac"}}
    kcat.run(
        "-b",
        cluster.kafka.bootstrap_servers,
        "-t",
        cluster.prefix + "jobs",
        "-P",
        standard_input=json.dumps(event).encode(),
    )
    by_tool, by_kcat = cluster.result("by-tool"), cluster.result("by-kcat")

    assert by_tool.status is by_kcat.status is JobStatus.COMPLETED
    assert cluster.artifact(by_tool) == cluster.artifact(by_kcat)
    for name in ("srt", "vtt", "txt", "tsv"):
        assert cluster.artifact(by_tool, name) == cluster.artifact(by_kcat, name)
    assert len(by_tool.speakers) == 2

    told = cluster.command("result", "by-kcat", "--format", "txt", program="whisperx-jobs")
    assert told.returncode == 0, told.stderr
    assert told.stdout.encode() == cluster.artifact(by_kcat, "txt")
    health = cluster.command("doctor")
    assert health.returncode == 0, health.stdout + health.stderr


def test_a_killed_transcriber_never_computes_a_finished_chunk_again(new_cluster: MakeCluster) -> None:
    """P3: kill -9 after k of n chunks; the successor computes n − k, at most one more; the result is identical."""
    cluster = new_cluster()
    others = cluster.start(OTHERS)
    first = cluster.start("transcribe")
    cluster.wait_ready(others, first)
    cluster.upload("long.flac", LONG)
    submit(cluster, "undisturbed", "long.flac", language="en")
    expected = cluster.result("undisturbed")
    before = computed(first)

    submit(cluster, "killed", "long.flac", language="en")
    cluster.wait(lambda: sum(computed(first).values()) - sum(before.values()) >= 3)
    first.kill()
    done = sum(computed(first).values()) - sum(before.values())
    second = cluster.start("transcribe")
    result = cluster.result("killed")

    total = result.chunks_total
    assert total >= 8
    assert total - done <= sum(computed(second).values()) <= total - done + 1
    assert cluster.artifact(result) == cluster.artifact(expected)
    assert len(cluster.results_of("killed")) == 1
    shown = Counter(e.chunk_index for e in cluster.events(Topic.PARTIALS, ChunkTranscribed) if e.job_id == "killed")
    assert shown == Counter(range(total))
    assert second.terminate() == 0


@pytest.mark.skipif(not KILLS, reason="long form of the test above: make kills")
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_minutes_under_kill_after_kill_give_the_same_transcript(new_cluster: MakeCluster, tmp_path: Path) -> None:
    """Three workers; whenever a chunk has been finished, the worker that has lived longest is killed and replaced."""
    cluster = new_cluster()
    workers = [cluster.start("transcribe") for _ in range(3)]
    cluster.wait_ready(cluster.start(OTHERS), *workers)
    long = tmp_path / "long.flac"
    flac.write(long, recordings.long_recording(10).samples)
    cluster.upload("long.flac", long)
    submit(cluster, "undisturbed", "long.flac")
    expected = cluster.result("undisturbed", 1800)
    everyone = list(workers)
    before = computed(*everyone)

    submit(cluster, "killed", "long.flac")
    done = sum(before.values())
    for _ in range(KILLS):
        cluster.wait(lambda done=done: sum(computed(*everyone).values()) > done, 600)  # type: ignore[misc]
        oldest = next(worker for worker in workers if worker.has_said("Started"))
        oldest.kill()
        workers.remove(oldest)
        workers.append(cluster.start("transcribe"))
        everyone.append(workers[-1])
        done = sum(computed(*everyone).values())
    assert not cluster.results_of("killed"), "the last kill came in time"
    result = cluster.result("killed", 1800)

    again = sum(computed(*everyone).values()) - sum(before.values()) - result.chunks_total
    print(f"{KILLS} kills, {result.chunks_total} chunks: {again} stored twice, at most one per kill")
    assert {a.format for a in result.artifacts} == {a.format for a in expected.artifacts}
    for artifact in expected.artifacts:
        assert cluster.artifact(result, artifact.format) == cluster.artifact(expected, artifact.format)
    shown = Counter(e.chunk_index for e in cluster.events(Topic.PARTIALS, ChunkTranscribed) if e.job_id == "killed")
    assert shown == Counter(range(result.chunks_total))
    assert result.chunks_total > KILLS
    assert again <= KILLS


def test_every_role_can_be_killed_once_and_nothing_is_lost_or_doubled(new_cluster: MakeCluster) -> None:
    cluster = new_cluster()
    roles = ("intake", "coordinate", "plan", "transcribe", "assemble", "cleanup")
    running = {role: cluster.start(role) for role in roles}
    cluster.wait_ready(*running.values())
    cluster.upload("call.flac", SHORT)
    submit(cluster, "undisturbed", "call.flac")
    expected = cluster.result("undisturbed")

    for number, role in enumerate(roles):
        submit(cluster, f"job-{number}", "call.flac")
        running[role].kill()
        running[role] = cluster.start(role)
    results = {f"job-{number}": cluster.result(f"job-{number}", 400) for number in range(len(roles))}

    assert {result.status for result in results.values()} == {JobStatus.COMPLETED}
    assert {cluster.artifact(result) for result in results.values()} == {cluster.artifact(expected)}
    shown = Counter((e.job_id, e.chunk_index) for e in cluster.events(Topic.PARTIALS, ChunkTranscribed))
    assert set(shown.values()) == {1}
    assert cluster.read(Topic.DEAD_LETTERS) == []
    cluster.wait(lambda: not list(cluster.store.list_keys(cluster.work, "")), 60)
    for process in running.values():
        process.process.terminate()
    assert [process.process.wait(60) for process in running.values()] == [0] * len(roles)


def test_bad_requests_end_as_documented_and_the_next_job_runs(new_cluster: MakeCluster, kcat: Kcat) -> None:
    cluster = new_cluster()
    cluster.wait_ready(cluster.start("all"))
    cluster.upload("call.flac", SHORT)
    for key, data in (("empty.wav", b""), ("text.mp3", b"not music at all " * 200)):
        cluster.store.put(cluster.recordings, key, data)

    def send(value: bytes) -> None:
        where = ("-b", cluster.kafka.bootstrap_servers, "-t", cluster.prefix + "jobs", "-P", "-D", "\x1e")
        kcat.run(*where, standard_input=value)

    def request(job_id: str, key: str = "call.flac", bucket: str | None = None, **fields: object) -> bytes:
        recording = {"bucket": bucket or cluster.recordings, "key": key}
        return json.dumps({"job_id": job_id, "recording": recording, **fields}).encode()

    send(request("wrong-bucket", bucket="no-such-bucket"))
    send(request("missing-key", "nowhere.wav"))
    send(request("empty", "empty.wav"))
    send(request("text", "text.mp3"))
    send(request("option", options={"temperature": 0.2}))
    send(b"\xff\xfe garbage")
    send(request("good"))
    send(request("good"))
    send(request("good", options={"language": "de"}))
    codes = {
        "wrong-bucket": "BUCKET_MISSING",
        "missing-key": "RECORDING_MISSING",
        "empty": "RECORDING_EMPTY",
        "text": "MEDIA_UNSUPPORTED",
        "option": "OPTION_UNKNOWN",
    }
    for job_id, code in codes.items():
        result = cluster.result(job_id)
        assert result.status is JobStatus.FAILED
        assert result.error is not None
        assert result.error.code == code
    assert cluster.result("good").status is JobStatus.COMPLETED
    cluster.wait(lambda: len(cluster.read(Topic.DEAD_LETTERS)) == 2)
    listed = cluster.command("dead-letters", "list", program="whisperx-jobs")
    assert listed.returncode == 0, listed.stderr
    assert set(re.findall(r"EVENT_UNREADABLE|JOB_CONFLICT", listed.stdout)) == {"EVENT_UNREADABLE", "JOB_CONFLICT"}
