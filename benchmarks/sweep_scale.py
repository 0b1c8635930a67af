"""What a sweep of very many objects costs, in time and memory.

    python -m benchmarks.sweep_scale             # a million objects, 100,000 job states
    python -m benchmarks.sweep_scale --quick     # a tenth of both

The job states are in a real Kafka; the listing is made up, because a million objects take a store longer to write than
to list, and every folder of it is an orphan of ten objects. What a real MinIO needs to list as many is measured on a
part of them. Prints JSON: seconds and resident memory of a dry run beside that of the listing alone, how often the
states were read, and seconds for 1,000 objects of the real store.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from confluent_kafka import Producer

from benchmarks.planner_memory import settings_of
from consumer.adapters.kafka_tail import KafkaTail
from consumer.adapters.object_store import S3Store
from consumer.coordinator.state import JobState, Status
from consumer.core.layout import Topic
from consumer.events import JobRequested, JobStatus, RecordingRef
from consumer.ports import ObjectStat
from consumer.settings import KafkaSettings
from consumer.sweep import Needed, Sweep
from consumer.sweeping import NeededRuns
from tests.servers.kafka import Kafka, own_kafka
from tests.servers.minio import own_minio

PREFIX = "scale."
STATE_PARTITIONS = 8
FOLDER = 10
"""Objects of one."""
BUCKET = "work"
NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=100)
REQUEST = JobRequested(recording=RecordingRef(bucket="calls", key="a"))


@dataclass(frozen=True)
class MadeUpListing:
    """Folders of runs that nobody knows any more."""

    objects: int

    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectStat]:
        assert not prefix
        for number in range(self.objects):
            yield ObjectStat(bucket, key_of(number), 1_000_000, "0" * 32, modified_at=OLD)

    def delete(self, bucket: str, keys: Iterable[str]) -> int:  # noqa: ARG002
        raise AssertionError("a dry run")


def key_of(number: int) -> str:
    return f"work/forgotten-{number // FOLDER:07}/1/chunks/{number % FOLDER:05}.pcm"


def fill(kafka: Kafka, jobs: int) -> None:
    """Half of them open: those are held in memory for the whole sweep."""
    topic = kafka.create_topic(PREFIX + Topic.JOB_STATE, STATE_PARTITIONS, {"cleanup.policy": "compact"})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20})
    for number in range(jobs):
        ended = {"status": Status.CLEANED, "outcome": JobStatus.COMPLETED} if number % 2 else {}
        state = JobState(job_id=f"job-{number}", request=REQUEST, request_digest="d", received_at_s=0.0)
        producer.produce(topic, state.changed(**ended).to_bytes(), state.job_id, number % STATE_PARTITIONS)
        if number % 1_000 == 0:
            producer.flush()
    assert producer.flush(60) == 0


class Reading:
    """Counts how often the states are read."""

    def __init__(self, needed: NeededRuns) -> None:
        self._needed = needed
        self.seconds: list[float] = []
        self.runs = 0

    def __call__(self) -> Needed:
        started_s = time.monotonic()
        needed = self._needed.read()
        self.seconds.append(time.monotonic() - started_s)
        self.runs = len(needed)
        return needed


def dry_run(kafka: Kafka, objects: int) -> dict[str, object]:
    listing, process = MadeUpListing(objects), psutil.Process()
    started_s = time.monotonic()
    listed = sum(1 for _ in listing.list_objects(BUCKET, ""))
    listing_s, before_bytes = time.monotonic() - started_s, process.memory_info().rss
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=PREFIX)
    with closing(KafkaTail(settings, PREFIX + Topic.JOB_STATE)) as states:
        reading, peak_bytes, found = Reading(NeededRuns(states)), 0, 0
        started_s = time.monotonic()
        for number, _ in enumerate(Sweep(listing, (BUCKET,), reading, NOW).run()):
            found = number + 1
            if number % 1_000 == 0:
                peak_bytes = max(peak_bytes, process.memory_info().rss)
        taken_s = time.monotonic() - started_s
    assert found * FOLDER == listed
    return {
        "objects": listed,
        "folders_found": found,
        "runs_needed": reading.runs,
        "listing_alone_s": round(listing_s, 1),
        "sweep_s": round(taken_s, 1),
        "added_resident_bytes": peak_bytes - before_bytes,
        "first_reading_s": round(reading.seconds[0], 2),
        "later_readings": len(reading.seconds) - 1,
        "later_reading_median_s": round(sorted(reading.seconds[1:])[len(reading.seconds) // 2], 3),
    }


def real_listing(folder: Path, objects: int) -> float:
    """Seconds for 1,000 objects."""
    with own_minio(folder) as minio:
        minio.client().make_bucket(BUCKET)
        store = S3Store.of(settings_of(minio))
        for number in range(objects):
            store.put(BUCKET, key_of(number), b"1")
        started_s = time.monotonic()
        assert sum(1 for _ in store.list_objects(BUCKET, "")) == objects
        return (time.monotonic() - started_s) / objects * 1_000


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    objects = 100_000 if parser.parse_args().quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        with own_kafka(Path(folder) / "kafka") as kafka:
            fill(kafka, objects // FOLDER)
            report = dry_run(kafka, objects)
        report["real_listing_s_per_1000"] = round(real_listing(Path(folder) / "minio", objects // 50), 3)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
