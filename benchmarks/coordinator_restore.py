"""How long is a coordinator away? Restore with many open jobs, from a real broker.

    python -m benchmarks.coordinator_restore                       # 10,000 open jobs, 8 updates of each in the log
    python -m benchmarks.coordinator_restore --jobs 1000 --rounds 5

All jobs are in one partition of job-state, the worst case, on a Kafka that is started for this run. Prints JSON: the
time from opening the coordinator until the partition takes events again, beside the time that a bare client needs to
read the same records; the resident memory that it takes; and whether every state came back as it was written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

from consumer.adapters.kafka_inbox import KafkaInbox
from consumer.adapters.kafka_outbox import PlainOutbox, TransactionalOutbox
from consumer.adapters.kafka_tail import KafkaTail
from consumer.bootstrap import coordinator_policy
from consumer.coordination import Coordination
from consumer.coordinator.coordinator import Past
from consumer.coordinator.state import JobState, Status
from consumer.core.bitmap import Bitmap
from consumer.core.layout import Topic
from consumer.events import JobOptions, JobRequested, RecordingFacts, RecordingRef
from consumer.health import Health
from consumer.metrics import Metrics
from consumer.ports import Outgoing
from consumer.refusals import RefusalLimit
from consumer.roles import Post
from consumer.settings import KafkaSettings, Settings
from consumer.wire import Codec
from tests.servers.kafka import Kafka, own_kafka

PREFIX = "restore."
CHUNKS = 60
TIMEOUT_S = 300.0


def state_of(number: int, done: int) -> JobState:
    """A five-hour recording of which `done` chunks are finished."""
    options = JobOptions(language="en", model="large-v3")
    recording = RecordingRef(bucket="recordings", key=f"calls/2026/11/{number:08d}.flac")
    job_id = f"call-{number:08d}"
    return JobState(
        job_id=job_id,
        status=Status.TRANSCRIBING,
        request=JobRequested(job_id=job_id, recording=recording, options=options, metadata={"customer": "1234"}),
        request_digest=hashlib.sha256(job_id.encode()).hexdigest(),
        received_at_s=time.time(),
        admitted_as=number,
        plan_epoch=1,
        plan_attempt=1,
        etag="0" * 32,
        planned=CHUNKS,
        planned_s=CHUNKS * 300.0,
        sample_ready=True,
        chunks_total=CHUNKS,
        recording=RecordingFacts(
            bucket=recording.bucket,
            key=recording.key,
            etag="0" * 32,
            size_bytes=1 << 30,
            media_type="audio/flac",
            duration_s=CHUNKS * 300.0,
            speech_s=CHUNKS * 200.0,
            channels=1,
            sample_rate_hz=16_000,
        ),
        next_chunk=done + 1,
        in_flight={done: 1},
        done=Bitmap((1 << done) - 1).to_hex(),
        audio_done_s=done * 300.0,
        first_release_at_s=time.time(),
        language="en",
        language_settled=True,
        fraction=done / CHUNKS,
        progress_at_s=datetime.now(UTC).timestamp(),
    )


def fill(settings: KafkaSettings, jobs: int, updates: int) -> dict[str, JobState]:
    """Write the log as a coordinator would have left it; the newest state of each job."""
    outbox = PlainOutbox(settings)
    newest: dict[str, JobState] = {}
    for done in range(updates):
        states = [state_of(number, done) for number in range(jobs)]
        for start in range(0, jobs, 500):
            part = states[start : start + 500]
            topic = PREFIX + Topic.JOB_STATE
            outbox.publish([Outgoing(topic, s.job_id.encode(), s.to_bytes(), partition=0) for s in part], [])
        newest = {state.job_id: state for state in states}
    outbox.close(5.0)
    return newest


def read_bare(settings: KafkaSettings) -> float:
    """Seconds to read the same records and do nothing with them."""
    tail = KafkaTail(settings, PREFIX + Topic.JOB_STATE)
    started_s = time.monotonic()
    tail.read_to_end(0, TIMEOUT_S)
    taken_s = time.monotonic() - started_s
    tail.close()
    return taken_s


def restore(settings: KafkaSettings, written: dict[str, JobState], number: int) -> tuple[float, int, bool]:
    """Seconds, bytes of resident memory, and whether the states are those written."""
    before = psutil.Process().memory_info().rss
    chosen = Settings()
    coordination = Coordination(
        KafkaInbox(settings, PREFIX + Topic.JOB_EVENTS, f"{PREFIX}{number}"),
        KafkaTail(settings, PREFIX + Topic.JOB_STATE),
        TransactionalOutbox(settings, f"{PREFIX}{number}"),
        Post(Codec(None, "/benchmark"), PREFIX, time.time),
        coordinator_policy(chosen),
        lookup=lambda _: Past(),
        refusals=RefusalLimit("coordinate", Health(60, 60), 100, 60.0),
        health=Health(60, 60),
        metrics=Metrics(),
        clock=time.time,
    )
    started_s = time.monotonic()
    coordination.open()
    while not coordination.describe()["jobs"]:
        coordination.turn()
    taken_s = time.monotonic() - started_s
    (held,) = coordination._partitions.values()
    assert held.coordinator is not None
    same = lasting(held.coordinator.jobs) == lasting(written)
    return taken_s, psutil.Process().memory_info().rss - before, same


def lasting(states: Mapping[str, JobState]) -> dict[str, tuple[object, ...]]:
    """What the first turn after a restore does not change: it already sends out work again."""
    return {job_id: (state.done, state.request, state.recording, state.etag) for job_id, state in states.items()}


def measure(kafka: Kafka, jobs: int, updates: int, rounds: int) -> dict[str, object]:
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=PREFIX, group_prefix=PREFIX)
    for topic in Topic:
        kafka.create_topic(PREFIX + topic)
    written = fill(settings, jobs, updates)
    bare: list[float] = []
    restored: list[tuple[float, int, bool]] = []
    for number in range(rounds):
        bare.append(read_bare(settings))
        restored.append(restore(settings, written, number))
    restore_s = [taken_s for taken_s, _, _ in restored]
    return {
        "jobs": jobs,
        "records": jobs * updates,
        "bare_read_s": spread(bare),
        "restore_s": spread(restore_s),
        "restore_to_bare_read": round(statistics.median(restore_s) / statistics.median(bare), 2),
        "first_restore_rss_bytes": restored[0][1],
        "every_state_came_back": all(same for _, _, same in restored),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--updates", type=int, default=8, help="records per job that compaction has not removed yet")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, own_kafka(Path(folder)) as kafka:
        print(json.dumps(measure(kafka, arguments.jobs, arguments.updates, arguments.rounds), indent=2))


if __name__ == "__main__":
    main()
