"""The embedded broker and store (one of it in a process), shared by the tests of these tools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from consumer.adapters.object_store import S3Store
from consumer.settings import KafkaSettings
from demo.embedded.broker import CLIENT_SETTINGS, PRODUCER_SETTINGS, EmbeddedBroker
from demo.embedded.store import EmbeddedStore
from producer_tools.parser import RECORDINGS_BUCKET
from tests.unit.producer_tools.installation import PUBLIC, Installation

RESULTS_BUCKET = "transcription-results"


@pytest.fixture(scope="package")
def embedded() -> Iterator[Installation]:
    with EmbeddedBroker({f"tools.{topic}": 2 for topic in PUBLIC}) as broker, EmbeddedStore() as store:
        extra = {name: _text(value) for name, value in {**CLIENT_SETTINGS, **PRODUCER_SETTINGS}.items()}
        kafka = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers, topic_prefix="tools.", group_protocol="consumer", extra=extra
        )
        environment = {
            "WHISPERX_STORE__ENDPOINT": store.endpoint,
            "WHISPERX_STORE__ACCESS_KEY": store.access_key,
            "WHISPERX_STORE__SECRET_KEY": store.secret_key,
            "WHISPERX_STORE__SECURE": "false",
        }
        client = S3Store(store.endpoint, store.access_key, store.secret_key, secure=False)
        client.make_bucket(RECORDINGS_BUCKET)
        client.make_bucket(RESULTS_BUCKET)
        yield Installation(kafka, client, environment)
        client.close()


@pytest.fixture
def installation(embedded: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The embedded one, with the environment set to it."""
    for name, value in embedded.environment.items():
        monkeypatch.setenv(name, value)
    return embedded


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
