"""Results as the assembler leaves them."""

from __future__ import annotations

import hashlib

from consumer.core.layout import RunKeys
from consumer.core.results import ResultManifest
from consumer.events import Artifact, ChunkTimings, ClaimCheck, JobOptions, JobStatus, RecordingFacts
from consumer.ports import ObjectStore

FACTS = RecordingFacts(
    bucket="calls",
    key="one.wav",
    etag="e",
    size_bytes=1,
    media_type="audio/wav",
    duration_s=60.0,
    speech_s=50.0,
    channels=1,
    sample_rate_hz=16_000,
)


def store_result(
    store: ObjectStore,
    bucket: str,
    job_id: str,
    run: int,
    status: JobStatus = JobStatus.COMPLETED,
    **files: bytes,
) -> ResultManifest:
    """Write these files, by format, and the manifest."""
    keys = RunKeys(job_id, run)
    artifacts = []
    for form, data in files.items():
        store.put(bucket, keys.artifact(form), data)
        check = ClaimCheck(
            bucket=bucket, key=keys.artifact(form), size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        )
        artifacts.append(Artifact(format=form, claim_check=check))
    manifest = ResultManifest(
        job_id=job_id,
        run=run,
        status=status,
        request_digest="d",
        recording=FACTS,
        options=JobOptions(),
        language="en",
        language_probability=0.9,
        speakers=("SPEAKER_00",),
        models=(),
        fingerprint="f",
        chunks_total=1,
        chunks_failed=(),
        artifacts=tuple(artifacts),
        timings=ChunkTimings(),
        warnings=(),
    )
    store.put(bucket, keys.manifest, manifest.to_bytes())
    return manifest
