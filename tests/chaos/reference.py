"""The run without faults: the same recordings through the whole system on the fakes, in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from consumer.events import JobFinished
from tests.chaos.recordings import Recording
from tests.chaos.scenario import CHUNK_S
from tests.integration.memory_system import MemorySystem


@dataclass(frozen=True, slots=True)
class Reference:
    """`artifacts`: format → SHA-256 of the result file. `words`: what was said."""

    artifacts: dict[str, str]
    words: tuple[str, ...]


def reference(used: Mapping[str, tuple[Recording, str]]) -> dict[str, Reference]:
    """What becomes of each recording."""
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
    return {key: _reference(system, system.results()[f"reference-{key}"]) for key in used}


def _reference(system: MemorySystem, result: JobFinished) -> Reference:
    files = {one.format: system.store.get(one.claim_check.bucket, one.claim_check.key) for one in result.artifacts}
    words = str(json.loads(files["json"])["text"]).split()
    return Reference({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, tuple(words))
