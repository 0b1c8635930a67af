"""Does the memory of `whisperx-jobs` grow with what it sends or fetches?

    python -m benchmarks.tools_memory             # submit 5 MB and 5 GB; fetch results of 5 MB and 2 GB
    python -m benchmarks.tools_memory --quick     # 5 and 200 MB

The command itself runs in a process of its own, against a MinIO that is started for this run and a broker inside this
process. No result is as large as that: it shows that the way is the same for any size. Prints JSON: resident memory
over time, the growth from small to large, and the slope over the last three quarters of a run. Needs 11 GB of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.made_recordings import WavStream, write_wav
from benchmarks.planner_memory import SMALL_BYTES, settings_of
from benchmarks.resident import Curve, measured
from consumer.adapters.object_store import S3Store
from consumer.core.layout import RunKeys, Topic
from consumer.core.results import ResultManifest
from consumer.events import Artifact, ChunkTimings, ClaimCheck, JobOptions, JobStatus, RecordingFacts
from demo.embedded.broker import EmbeddedBroker
from tests.servers.minio import Minio, own_minio

RECORDINGS, RESULTS = "recordings", "results"
FULL_SENT_BYTES = 5_000_000_000
FULL_FETCHED_BYTES = 2_000_000_000
QUICK_BYTES = 200_000_000
TOOL = ("-m", "producer_tools.cli")


class Tools:
    """The installation that the commands talk to."""

    def __init__(self, minio: Minio, broker: EmbeddedBroker, folder: Path) -> None:
        self.store = S3Store.of(settings_of(minio))
        self._folder = folder
        self._environment = {
            "WHISPERX_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "WHISPERX_KAFKA__TOPIC_PREFIX": "",
            "WHISPERX_KAFKA__TRANSACTIONS": "false",
            "WHISPERX_STORE__ENDPOINT": minio.endpoint,
            "WHISPERX_STORE__ACCESS_KEY": minio.access_key,
            "WHISPERX_STORE__SECRET_KEY": minio.secret_key,
            "WHISPERX_STORE__SECURE": str(minio.secure).lower(),
            "WHISPERX_STORE__RESULTS_BUCKET": RESULTS,
        }

    def submit(self, size_bytes: int) -> Curve:
        path = self._folder / "talk.wav"
        write_wav(path, size_bytes)
        try:
            found = measured([*TOOL, "submit", "--bucket", RECORDINGS, str(path)], self._environment)
        finally:
            path.unlink()
        sizes = [self.store.stat(RECORDINGS, key).size_bytes for key in self.store.list_keys(RECORDINGS, "")]
        assert sizes == [WavStream(size_bytes).size_bytes], sizes
        self.store.delete(RECORDINGS, self.store.list_keys(RECORDINGS, ""))
        return found.own

    def fetch(self, size_bytes: int) -> Curve:
        keys = RunKeys(f"job-{size_bytes}", 1)
        self.store.put(RESULTS, keys.manifest, self._stored(keys, size_bytes).to_bytes())
        path = self._folder / "result.json"
        command = [*TOOL, "result", keys.job_id, "--format", "json", "--output", str(path)]
        try:
            found = measured(command, self._environment)
            assert path.stat().st_size >= size_bytes
        finally:
            path.unlink(missing_ok=True)
        self.store.delete(RESULTS, self.store.list_keys(RESULTS, ""))
        return found.own

    def _stored(self, keys: RunKeys, size_bytes: int) -> ResultManifest:
        """A file of that size, which is no JSON: the tool does not look inside."""
        digest, stream = hashlib.sha256(), WavStream(size_bytes)
        while block := stream.read(1 << 20):
            digest.update(block)
        key = keys.artifact("json")
        self.store.upload(RESULTS, key, WavStream(size_bytes))  # type: ignore[arg-type]  # read() is all that is asked
        check = ClaimCheck(bucket=RESULTS, key=key, size_bytes=stream.size_bytes, sha256=digest.hexdigest())
        return manifest(keys, Artifact(format="json", claim_check=check))


def manifest(keys: RunKeys, artifact: Artifact) -> ResultManifest:
    facts = RecordingFacts(
        bucket=RECORDINGS,
        key="talk.wav",
        etag="e",
        size_bytes=1,
        media_type="audio/wav",
        duration_s=60.0,
        speech_s=50.0,
        channels=1,
        sample_rate_hz=16_000,
    )
    return ResultManifest(
        job_id=keys.job_id,
        run=keys.run,
        status=JobStatus.COMPLETED,
        request_digest="d",
        recording=facts,
        options=JobOptions(),
        language="en",
        language_probability=None,
        speakers=(),
        models=(),
        fingerprint="f",
        chunks_total=1,
        chunks_failed=(),
        artifacts=(artifact,),
        timings=ChunkTimings(),
        warnings=(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 MB instead of the full sizes")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where there is room")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    topics = {str(topic): 1 for topic in Topic}
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        own_minio(Path(folder)) as minio,
        EmbeddedBroker(topics) as broker,
    ):
        tools = Tools(minio, broker, Path(folder))
        for bucket in (RECORDINGS, RESULTS):
            tools.store.make_bucket(bucket)
        for name, use, large in (
            ("submit", tools.submit, FULL_SENT_BYTES),
            ("result", tools.fetch, FULL_FETCHED_BYTES),
        ):
            small_bytes, large_bytes = SMALL_BYTES, QUICK_BYTES if arguments.quick else large
            small, large_curve = use(small_bytes), use(large_bytes)
            results[name] = {
                "small": {"bytes": small_bytes, **small.figures()},
                "large": {"bytes": large_bytes, **large_curve.figures()},
                "growth_bytes": large_curve.peak_bytes - small.peak_bytes,
            }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
