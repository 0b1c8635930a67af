"""Fixtures of the acceptance tests: a cluster of real processes on the real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.cluster import ROOT, Cluster, cluster
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio

MakeCluster = Callable[..., Cluster]
SHORT = ROOT / "demo" / "recordings" / "conversation-90s.flac"
LONG = ROOT / "demo" / "recordings" / "conversation-5min.flac"


@pytest.fixture
def new_cluster(kafka: Kafka, minio: Minio, topic_prefix: str, tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes a cluster; its processes end with the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(cluster(kafka, minio, topic_prefix, tmp_path, **settings))
