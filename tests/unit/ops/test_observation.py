"""Answers move their metrics and close with one line; what was counted by an earlier attempt is not counted again."""

from __future__ import annotations

import logging

import pytest

from consumer.events import ChunkTimings, ChunkTranscribed, ClaimCheck, Problem
from consumer.metrics import Metrics
from consumer.observation import observe, observe_failure, observe_stop
from consumer.work import ChunkSkipped, CleanupFinished, CleanupWork

CHECK = ClaimCheck(bucket="work", key="k", size_bytes=1, sha256="0" * 64)
SHORT = Problem(code="GPU_MEMORY_SHORT", message="memory ran out", stage="transcribe")


def transcribed(*, reused: bool = False, warnings: tuple[Problem, ...] = ()) -> ChunkTranscribed:
    return ChunkTranscribed(
        job_id="job",
        run=1,
        chunk_index=3,
        start_s=10.0,
        end_s=70.0,
        checkpoint=CHECK,
        timings=ChunkTimings(fetch_s=0.5, transcribe_s=8.0),
        warnings=warnings,
        reused=reused,
        device="cuda/float16",
    )


def test_a_computed_chunk_is_counted_with_its_stages_and_device() -> None:
    metrics = Metrics()
    observe(metrics, "transcribe", transcribed(), 9.0)
    value = metrics.registry.get_sample_value
    assert value("whisperx_chunks_finished_total", {"outcome": "computed"}) == 1
    assert value("whisperx_audio_transcribed_seconds_total") == 60
    assert value("whisperx_chunk_seconds_sum") == 9
    assert value("whisperx_stage_seconds_sum", {"stage": "transcribe"}) == 8
    assert value("whisperx_stage_seconds_count", {"stage": "diarize"}) is None
    assert value("whisperx_device_info", {"device": "cuda", "compute_type": "float16"}) == 1


def test_a_reused_chunk_counts_as_reused_and_as_no_work() -> None:
    metrics = Metrics()
    observe(metrics, "transcribe", transcribed(reused=True, warnings=(SHORT,)), 0.1)
    value = metrics.registry.get_sample_value
    assert value("whisperx_chunks_finished_total", {"outcome": "reused"}) == 1
    assert value("whisperx_chunks_finished_total", {"outcome": "computed"}) is None
    assert value("whisperx_audio_transcribed_seconds_total") == 0
    assert value("whisperx_chunk_seconds_count") == 0
    assert value("whisperx_memory_short_chunks_total") == 0


def test_a_chunk_for_which_memory_ran_out_is_counted() -> None:
    metrics = Metrics()
    observe(metrics, "transcribe", transcribed(warnings=(SHORT,)), 1.0)
    assert metrics.registry.get_sample_value("whisperx_memory_short_chunks_total") == 1


def test_each_chunk_closes_with_one_line_that_says_whether_it_was_computed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    observe(Metrics(), "transcribe", transcribed(), 9.0)
    observe(Metrics(), "transcribe", transcribed(reused=True), 0.1)
    assert [record.message for record in caplog.records] == ["Chunk transcribed"] * 2
    assert [vars(record)["reused"] for record in caplog.records] == [False, True]
    assert {vars(record)["audio_s"] for record in caplog.records} == {60.0}


def test_other_work_closes_with_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    observe(Metrics(), "cleanup", CleanupFinished(job_id="job", run=1, removed=7), 1.0)
    observe(Metrics(), "transcribe", ChunkSkipped(job_id="job", run=1, chunk_index=0, reason="gone"), 1.0)
    assert [record.message for record in caplog.records] == ["Work removed", "Chunk skipped"]


def test_a_failure_counts_by_code_and_a_stop_as_stopped() -> None:
    metrics = Metrics()
    observe_failure(metrics, "cleanup", "STORE_UNAVAILABLE", CleanupWork(job_id="job", run=1, status="failed"))
    observe_stop(metrics, "transcribe", ChunkSkipped(job_id="job", run=1, chunk_index=0, reason="cancelled"))
    value = metrics.registry.get_sample_value
    assert value("whisperx_work_failures_total", {"role": "cleanup", "code": "STORE_UNAVAILABLE"}) == 1
    assert value("whisperx_work_finished_total", {"role": "transcribe", "outcome": "stopped"}) == 1
    assert value("whisperx_chunks_finished_total", {"outcome": "skipped"}) == 1
    assert value("whisperx_chunks_finished_total", {"outcome": "failed"}) is None
