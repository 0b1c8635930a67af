"""The run without faults: the same recordings through the whole system on the fakes, in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tests.chaos.recordings import Recording
from tests.chaos.scenario import CHUNK_S
from tests.integration.memory_system import MemorySystem


def reference(used: Mapping[str, tuple[Recording, str]]) -> dict[str, dict[str, str]]:
    """Recording → format → SHA-256 of the result file."""
    system = MemorySystem(chunk_s=CHUNK_S)
    system.start()
    for key, (recording, language) in used.items():
        system.upload(key, recording.data())
        system.submit(
            job_id=f"reference-{key}",
            recording={"bucket": "recordings", "key": key},
            options={"language": language},
        )
        system.finish(f"reference-{key}")
    results = system.results()
    return {
        key: {
            artifact.format: hashlib.sha256(
                system.store.get(artifact.claim_check.bucket, artifact.claim_check.key)
            ).hexdigest()
            for artifact in results[f"reference-{key}"].artifacts
        }
        for key in used
    }
