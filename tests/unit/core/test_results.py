from __future__ import annotations

import json

from consumer.core.results import (
    MAX_WARNINGS,
    ResultManifest,
    fingerprint_of,
    models_of,
    total_timings,
    warnings_of,
)
from consumer.core.speech import ChunkSpeech
from consumer.events import (
    Artifact,
    ChunkTimings,
    ClaimCheck,
    JobOptions,
    JobStatus,
    ModelUsed,
    Problem,
    RecordingFacts,
)

FACTS = RecordingFacts(
    bucket="calls",
    key="a.wav",
    etag="e1",
    size_bytes=10,
    media_type="audio/x-wav",
    duration_s=12.5,
    speech_s=9.0,
    channels=1,
    sample_rate_hz=16_000,
)
WHISPER = ModelUsed(role="transcribe", name="large-v3", digest="d1", compute_type="float16")
MANIFEST = ResultManifest(
    job_id="job-1",
    run=2,
    status=JobStatus.COMPLETED,
    request_digest="abc",
    recording=FACTS,
    options=JobOptions(),
    language="en",
    language_probability=0.75,
    speakers=("SPEAKER_00",),
    models=(WHISPER,),
    fingerprint="f1",
    chunks_total=1,
    chunks_failed=(),
    artifacts=(Artifact(format="json", claim_check=ClaimCheck(bucket="r", key="k", size_bytes=1, sha256="00")),),
    timings=ChunkTimings(transcribe_s=1.5),
    warnings=(),
    metadata={"b": "2", "a": "1"},
)


def _chunk(fingerprint: str = "f1", **fields: object) -> ChunkSpeech:
    whole: dict[str, object] = {
        "segments": (),
        "activity": None,
        "language": "en",
        "language_probability": None,
        "timings": ChunkTimings(),
        "fingerprint": fingerprint,
        **fields,
    }
    return ChunkSpeech(**whole)  # type: ignore[arg-type]


def test_a_manifest_reads_back_as_it_was_written() -> None:
    assert ResultManifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST


def test_equal_manifests_have_equal_bytes_whatever_the_order_of_metadata() -> None:
    other = MANIFEST.model_copy(update={"metadata": {"a": "1", "b": "2"}})
    assert other.to_bytes() == MANIFEST.to_bytes()


def test_a_field_of_a_later_version_is_skipped() -> None:
    later = {**json.loads(MANIFEST.to_bytes()), "mood": "good"}
    assert ResultManifest.from_bytes(json.dumps(later).encode()) == MANIFEST


def test_so_is_one_inside_of_a_value() -> None:
    later = json.loads(MANIFEST.to_bytes())
    later["options"]["mood"] = later["recording"]["mood"] = "good"
    assert ResultManifest.from_bytes(json.dumps(later).encode()) == MANIFEST


def test_an_artifact_is_found_by_its_format() -> None:
    assert MANIFEST.artifact("json") == MANIFEST.artifacts[0]
    assert MANIFEST.artifact("srt") is None


def test_timings_are_summed_by_stage() -> None:
    chunks = [_chunk(timings=ChunkTimings(transcribe_s=0.1, align_s=1)) for _ in range(3)]
    assert total_timings(chunks) == ChunkTimings(transcribe_s=0.3, align_s=3)
    assert total_timings([]) == ChunkTimings()


def test_each_model_is_named_once() -> None:
    on_cpu = WHISPER.model_copy(update={"compute_type": "int8"})
    chunks = [_chunk(models=(WHISPER,)), _chunk(models=(on_cpu, WHISPER))]
    assert models_of(chunks) == (WHISPER, on_cpu)


def test_chunks_that_agree_have_one_fingerprint_and_mixed_ones_a_new_one() -> None:
    assert fingerprint_of([_chunk("f1"), _chunk(""), _chunk("f1")]) == "f1"
    assert fingerprint_of([]) == ""
    mixed = fingerprint_of([_chunk("f1"), _chunk("f2")])
    assert mixed not in {"f1", "f2", fingerprint_of([_chunk("f2"), _chunk("f1")])}
    assert mixed == fingerprint_of([_chunk("f1"), _chunk("f2")])


def test_mixed_fingerprints_are_a_warning_that_names_the_devices() -> None:
    (warning,) = warnings_of([], [_chunk("f1", device="cuda/float16"), _chunk("f2", device="cpu/int8")], [])
    assert warning.code == "MIXED_FINGERPRINTS"
    assert "cpu/int8, cuda/float16" in warning.message
    assert warnings_of([], [_chunk("f1"), _chunk("f1")], []) == ()


def test_missing_chunks_are_a_warning() -> None:
    (warning,) = warnings_of([], [_chunk()], [3, 7])
    assert (warning.code, "(3, 7)" in warning.message) == ("CHUNKS_MISSING", True)


def test_each_warning_is_said_once_and_the_list_is_bounded() -> None:
    cut = Problem(code="PROMPT_CUT", message="cut")
    assert warnings_of([cut], [_chunk(warnings=(cut,)), _chunk(warnings=(cut,))], []) == (cut,)
    many = tuple(cut.model_copy(update={"chunk_index": index}) for index in range(300))
    kept = warnings_of([], [_chunk(warnings=many)], [1])
    assert len(kept) == MAX_WARNINGS
    assert kept[0].code == "CHUNKS_MISSING"
    assert kept[-1].code == "WARNINGS_OMITTED"
    assert kept[-1].message.startswith("202 more")
