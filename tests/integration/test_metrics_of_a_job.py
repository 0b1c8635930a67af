"""Every metric that claims to count a job moves when there is one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest

from consumer.adapters.memory_store import MemoryStore
from consumer.adapters.metered_store import MeteredStore
from consumer.metrics import Metrics
from tests.integration.memory_system import MemorySystem
from tests.standin import StandInEngine

CONVERSATION = Path(__file__).parents[2] / "demo" / "recordings" / "conversation-90s.flac"

WHILE_IT_RUNS = {
    "whisperx_jobs_open",
    "whisperx_backlog_audio_seconds",
    "whisperx_chunks_released",
    "whisperx_handoff_events",
    "whisperx_handoff_audio_seconds",
    "whisperx_paused_partitions",
    "whisperx_consumer_lag",
}
"""Gauges that are zero again after the job."""

NOT_OF_A_JOB = {
    "whisperx_ready",  # these four: set by the process, see tests/unit/ops/test_metrics.py
    "whisperx_build_info",
    "whisperx_poll_age_seconds",
    "whisperx_step_age_seconds",
    "whisperx_memory_short_chunks_total",  # needs a GPU that is full, see tests/unit/ops/test_observation.py
    "whisperx_progress_dropped_total",  # needs a broker that is slow, see tests/unit/loop/test_loop.py
}


def moved(metrics: Metrics) -> set[str]:
    """The metrics that have a sample above zero; a histogram has one as soon as it counted something."""
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    above_zero = {sample.name for sample in samples if sample.value > 0 and not sample.name.endswith("_created")}
    names = {metric.name: {metric.name, f"{metric.name}_count"} for metric in metrics.definitions}
    return {name for name, shown in names.items() if shown & above_zero}


def _wait(event: threading.Event) -> None:
    assert event.wait(60), "the test did not let the work go on"


def test_every_metric_of_a_job_moves() -> None:
    may_go_on = threading.Event()
    engine = StandInEngine(during=lambda index: _wait(may_go_on))
    made = MemorySystem(chunk_s=15.0, engine=engine)
    made.store = cast(MemoryStore, MeteredStore(made.store, made.metrics))
    made.upload("a", CONVERSATION)
    made.start()
    made.submit(job_id="job", options={"language": "en"})
    made.submit(job_id="job", options={"language": "en"})  # a duplicate
    made.submit_raw(b"garbage")

    made.turn_until(lambda: moved(made.metrics) >= WHILE_IT_RUNS)
    may_go_on.set()
    result = made.finish("job")["job"]
    cleaned = {"role": "cleanup", "outcome": "done"}
    value = made.metrics.registry.get_sample_value
    made.turn_until(lambda: value("whisperx_work_finished_total", cleaned) == 1)
    made.turn_until(lambda: not moved(made.metrics) & (WHILE_IT_RUNS - {"whisperx_handoff_events"}))

    expected = {metric.name for metric in made.metrics.definitions} - NOT_OF_A_JOB - WHILE_IT_RUNS
    assert expected - moved(made.metrics) == set()
    assert value("whisperx_jobs_finished_total", {"status": "completed"}) == 1
    assert value("whisperx_jobs_received_total", {"priority": "normal"}) == 2
    assert value("whisperx_duplicate_jobs_total") == 1
    assert value("whisperx_dead_letters_total", {"code": "EVENT_UNREADABLE"}) == 1
    assert value("whisperx_chunks_finished_total", {"outcome": "computed"}) == result.chunks_total
    assert value("whisperx_chunk_seconds_count") == result.chunks_total
    transcribe_s = value("whisperx_stage_seconds_sum", {"stage": "transcribe"})
    assert transcribe_s == pytest.approx(result.timings.transcribe_s, abs=0.01)
    assert result.recording is not None
    audio_s = value("whisperx_audio_transcribed_seconds_total")
    assert audio_s == pytest.approx(result.recording.duration_s, abs=0.01)
    for stage in ("plan", "assemble", "cleanup"):
        assert value("whisperx_stage_seconds_count", {"stage": stage}) == 1, stage
