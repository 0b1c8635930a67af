from __future__ import annotations

from itertools import count

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.adapters.metered_store import MeteredStore
from consumer.errors import MissingObject
from consumer.metrics import Metrics
from consumer.ports import ObjectStore
from tests.contract.store_contract import StoreContract


class TestMeteredStore(StoreContract):
    """It answers as the store that it wraps."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        return MeteredStore(MemoryStore(), Metrics())

    @pytest.fixture
    def bucket_prefix(self) -> str:
        return "test-"


def spent_s(metrics: Metrics, operation: str) -> float | None:
    return metrics.registry.get_sample_value("whisperx_store_request_seconds_sum", {"operation": operation})


def requests(metrics: Metrics, operation: str) -> float | None:
    return metrics.registry.get_sample_value("whisperx_store_request_seconds_count", {"operation": operation})


def ticking_store(metrics: Metrics) -> MeteredStore:
    """Its timer goes on by a second whenever it is asked."""
    ticks = count()
    return MeteredStore(MemoryStore("b"), metrics, lambda: float(next(ticks)))


def test_a_request_is_timed_and_its_error_counted_by_code() -> None:
    metrics = Metrics()
    store = ticking_store(metrics)
    store.put("b", "k", b"x")
    with pytest.raises(MissingObject):
        store.get("b", "missing")
    assert (requests(metrics, "put"), spent_s(metrics, "put")) == (1, 1)
    assert requests(metrics, "get") == 1
    labels = {"operation": "get", "code": "OBJECT_MISSING"}
    assert metrics.registry.get_sample_value("whisperx_store_errors_total", labels) == 1


def test_a_stream_is_one_request_that_counts_only_the_waiting_for_the_store() -> None:
    metrics = Metrics()
    store = ticking_store(metrics)
    store.put("b", "k", bytes(3))
    assert list(store.stream("b", "k", block_bytes=1)) == [b"\0"] * 3
    assert (requests(metrics, "stream"), spent_s(metrics, "stream")) == (1, 4)  # three blocks and the end


def test_an_error_in_the_middle_of_a_listing_is_counted() -> None:
    metrics = Metrics()
    with pytest.raises(Exception, match="nowhere"):
        list(ticking_store(metrics).list_keys("nowhere", ""))
    labels = {"operation": "list_keys", "code": "BUCKET_MISSING"}
    assert metrics.registry.get_sample_value("whisperx_store_errors_total", labels) == 1
