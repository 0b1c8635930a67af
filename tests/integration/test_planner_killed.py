"""A planner is killed half way; its successor, on a real MinIO, sends only the audio that is not there yet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.adapters.object_store import S3Store
from consumer.core.layout import RunKeys
from tests.servers.minio import Minio

pytestmark = pytest.mark.servers

RECORDING = Path(__file__).parents[2] / "demo" / "recordings" / "conversation-90s.flac"
KEYS = RunKeys("job-1", 1)
BOUND_S = 120
LAST_CHUNK = 1


def plan(minio: Minio, recordings: str, work: str, *last_chunk: str) -> tuple[int, dict[str, int]]:
    """The exit code of a planner's process, and the bytes of each body of audio that it sent."""
    environment = {
        "WHISPERX_STORE__ENDPOINT": minio.endpoint,
        "WHISPERX_STORE__ACCESS_KEY": minio.access_key,
        "WHISPERX_STORE__SECRET_KEY": minio.secret_key,
        "WHISPERX_STORE__SECURE": str(minio.secure).lower(),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.mortal_planner", recordings, work, RECORDING.name, *last_chunk],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    return done.returncode, {line[1]: int(line[2]) for line in lines if line[0] == "sent" and line[1].endswith(".pcm")}


def test_only_what_is_missing_is_sent_again_and_nothing_differs(minio: Minio, bucket_prefix: str) -> None:
    store = S3Store(minio.endpoint, minio.access_key, minio.secret_key, secure=minio.secure)
    recordings, disturbed, calm = (f"{bucket_prefix}{name}" for name in ("recordings", "disturbed", "calm"))
    for bucket in (recordings, disturbed, calm):
        store.make_bucket(bucket)
    store.put(recordings, RECORDING.name, RECORDING.read_bytes())

    code, sent_first = plan(minio, recordings, disturbed, str(LAST_CHUNK))
    assert code == -signal.SIGKILL
    assert {KEYS.chunk_audio(index) for index in range(LAST_CHUNK + 1)} <= set(sent_first)
    code, sent_then = plan(minio, recordings, disturbed)
    assert code == 0

    assert plan(minio, recordings, calm) == (0, sent_first | sent_then)
    assert not set(sent_first) & set(sent_then), "nothing was sent twice"
    keys = list(store.list_keys(calm, ""))
    assert list(store.list_keys(disturbed, "")) == keys
    assert all(store.get(disturbed, key) == store.get(calm, key) for key in keys)
    assert len(sent_then) >= 2
    store.close()
