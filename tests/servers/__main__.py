"""A Kafka and a MinIO to try the program with, until Ctrl-C.

    python -m tests.servers

On stdout the settings that lead to them, as a shell takes them.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.control import StartError
from tests.servers.kafka import Kafka, own_kafka
from tests.servers.minio import Minio, own_minio

MODELS = Path(__file__).parents[2] / "demo" / "models"


def main() -> int:
    """0 when it was told to end."""
    about = "A Kafka and a MinIO to try the program with, until Ctrl-C. Prints the settings that lead to them."
    argparse.ArgumentParser(prog="python -m tests.servers", description=about).parse_args()
    told = threading.Event()
    try:
        with tempfile.TemporaryDirectory(prefix="whisperx-servers-") as folder:
            _say("Starting Kafka and MinIO …")
            with own_kafka(Path(folder) / "kafka") as kafka, own_minio(Path(folder) / "minio") as minio:
                for name in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(name, lambda *_: told.set())
                for line in exports(kafka, minio):
                    print(line, flush=True)
                _say("Paste these lines into another terminal, and go on there: whisperx-consumer topics create …")
                _say("Ctrl-C here ends both servers, and what was stored in them is gone.")
                told.wait()
                _say("Ending both servers …")
    except (StartError, pytest.skip.Exception, pytest.fail.Exception) as problem:
        _say(str(problem))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def exports(kafka: Kafka, minio: Minio) -> Iterator[str]:
    """One broker holds one copy of everything, and the models are those of the demo."""
    for name, value in {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STORE__ENDPOINT": minio.endpoint,
        "STORE__ACCESS_KEY": minio.access_key,
        "STORE__SECRET_KEY": minio.secret_key,
        "STORE__SECURE": "false",
        "TOPICS__REPLICATION_FACTOR": "1",
        "TOPICS__MIN_INSYNC_REPLICAS": "1",
        "MODELS__DIRECTORY": str(MODELS),
        "MODELS__ALLOWED": '["tiny"]',
    }.items():
        yield f"export WHISPERX_{name}={shlex.quote(value)}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
