from __future__ import annotations

from prometheus_client.exposition import generate_latest

from consumer.bootstrap import Parts, Role, System
from consumer.health import Health
from consumer.metrics import PREFIX, Metrics
from consumer.settings import Settings


def test_every_name_follows_the_rules() -> None:
    for metric in Metrics().definitions:
        assert metric.name.startswith(PREFIX)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.kind != "histogram" or metric.name.endswith("_seconds"), metric.name
        assert not {"job_id", "key", "partition", "chunk_index"} & set(metric.labels), metric.name


def test_two_processes_worth_of_metrics_live_side_by_side() -> None:
    one, two = Metrics(), Metrics()
    one.jobs_received.labels("high").inc()
    assert two.registry.get_sample_value("whisperx_jobs_received_total", {"priority": "high"}) is None


def test_the_text_format_has_every_metric() -> None:
    metrics = Metrics()
    text = generate_latest(metrics.registry).decode()
    for metric in metrics.definitions:
        assert f"# TYPE {metric.name.removesuffix('_total')}" in text or f"# TYPE {metric.name} " in text


def test_another_device_replaces_the_one_before() -> None:
    metrics = Metrics()
    metrics.describe_device("cuda/float16")
    metrics.describe_device("cpu/int8")
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert [s.labels["device"] for s in samples if s.name == "whisperx_device_info"] == ["cpu"]


def test_ages_are_read_when_scraped_because_a_stuck_loop_reports_nothing() -> None:
    now_s = [0.0]
    health = Health(poll_limit_s=10, step_limit_s=60, clock=lambda: now_s[0])
    metrics = Metrics()
    metrics.follow(health, ["plan"])
    health.poll_seen("plan")
    health.step_started("plan")
    assert metrics.registry.get_sample_value("whisperx_ready") == 1
    now_s[0] = 11.0
    assert metrics.registry.get_sample_value("whisperx_poll_age_seconds", {"role": "plan"}) == 11
    assert metrics.registry.get_sample_value("whisperx_step_age_seconds", {"role": "plan"}) == 11
    assert metrics.registry.get_sample_value("whisperx_ready") == 0


def test_the_lag_that_nobody_knows_has_no_value() -> None:
    metrics = Metrics()
    metrics.tell_lag("t", 7)
    assert metrics.registry.get_sample_value("whisperx_consumer_lag", {"topic": "t"}) == 7
    metrics.tell_lag("t", None)
    assert metrics.registry.get_sample_value("whisperx_consumer_lag", {"topic": "t"}) is None


def test_a_process_tells_its_build_and_its_ages_before_it_has_started() -> None:
    parts = Parts(Settings())
    System(parts, [Role.INTAKE, Role.PLAN])
    text = generate_latest(parts.metrics.registry).decode()
    assert "whisperx_build_info{" in text
    assert "whisperx_ready 0.0" in text
    for role in ("intake", "plan"):
        assert f'whisperx_poll_age_seconds{{role="{role}"}}' in text
        assert f'whisperx_step_age_seconds{{role="{role}"}}' in text
