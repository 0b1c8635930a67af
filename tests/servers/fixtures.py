"""The servers as pytest fixtures. A conftest lists this module in `pytest_plugins`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.servers.helm_tools import Helm, Kubeconform, installed_helm, installed_kubeconform
from tests.servers.kafka import Kafka, kafka_server
from tests.servers.kcat import Kcat, installed_kcat
from tests.servers.minio import Minio, minio_server
from tests.servers.registry import Registry, registry_server
from tests.servers.secure_kafka import SecureKafka, secure_kafka
from tests.servers.toxiproxy import Toxiproxy, toxiproxy_server

MARK = "wxtest-"
"""Begins the name of every topic and bucket of the tests, so that they can be found on a shared server."""


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with kafka_server(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure-kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    with minio_server(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    with toxiproxy_server(tmp_path_factory.mktemp("toxiproxy")) as server:
        yield server


@pytest.fixture(scope="session")
def helm() -> Helm:
    return installed_helm()


@pytest.fixture(scope="session")
def kubeconform() -> Kubeconform:
    return installed_kubeconform()


@pytest.fixture(scope="session")
def kcat() -> Kcat:
    return installed_kcat()


@pytest.fixture
def topic_prefix() -> str:
    """Begins the names of this test's topics, groups and subjects, so that tests can share a broker."""
    return f"{MARK}{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def bucket_prefix() -> str:
    """Begins the names of this test's buckets. 20 characters of the 63 that a bucket's name may have."""
    return f"{MARK}{uuid.uuid4().hex[:12]}-"
