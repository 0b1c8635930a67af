"""One recording through all functions on the fakes, with a stand-in engine: about the platform, not about speech."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.core.dead_letters import CODE, text_of
from consumer.core.layout import Topic
from consumer.events import ChunkTranscribed, JobFinished, JobProgress, JobStatus
from consumer.ports import Outgoing
from tests.integration.memory_system import RECORDINGS, RESULTS, WORK_BUCKET, MemorySystem
from tests.standin import StandInEngine

CONVERSATION = Path(__file__).parents[2] / "demo" / "recordings" / "conversation-90s.flac"


def system(chunk_s: float = 30.0, engine: StandInEngine | None = None) -> MemorySystem:
    made = MemorySystem(chunk_s, engine or StandInEngine())
    made.upload("a", CONVERSATION)
    return made


def transcript(made: MemorySystem, result: JobFinished) -> bytes:
    (check,) = [artifact.claim_check for artifact in result.artifacts if artifact.format == "json"]
    return made.store.get(check.bucket, check.key)


def test_a_job_event_becomes_a_transcript() -> None:
    made = system()
    made.start()
    made.submit(job_id="job", metadata={"case": "17"})
    result = made.finish("job")["job"]

    assert (result.status, result.chunks_total, result.language) == (JobStatus.COMPLETED, 3, "en")
    assert result.metadata == {"case": "17"}
    assert result.options_used is not None
    assert result.options_used.model == "tiny"
    assert sorted(artifact.format for artifact in result.artifacts) == ["json", "rttm", "srt", "tsv", "txt", "vtt"]
    assert result.manifest is not None
    assert result.manifest.key == "results/job/1/manifest.json"
    assert result.transcript_inline is not None
    assert json.loads(result.transcript_inline) == json.loads(transcript(made, result))


def test_progress_and_partials_tell_the_story() -> None:
    made = system()
    made.start()
    made.submit(job_id="job")
    made.finish("job")
    told = made.seen(Topic.PROGRESS, JobProgress)
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert told[0].stage.value in ("queued", "planning")
    assert (told[-1].stage.value, told[-1].fraction) == ("finished", 1.0)
    assert sorted(event.chunk_index for event in made.seen(Topic.PARTIALS, ChunkTranscribed)) == [0, 1, 2]


def test_the_work_bucket_is_empty_after_the_result() -> None:
    made = system()
    made.start()
    made.submit(job_id="job")
    made.finish("job")
    made.turn_until(lambda: not list(made.store.list_keys(WORK_BUCKET, "")))
    assert list(made.store.list_keys(RECORDINGS, "")) == ["a"]


def test_the_transcript_does_not_depend_on_the_cuts() -> None:
    """P4, as far as the platform is concerned: each window hears the same samples whatever the chunk length."""
    texts = []
    for chunk_s in (15.0, 40.0, 1000.0):
        made = system(chunk_s)
        made.start()
        made.submit(job_id="job")
        texts.append(transcript(made, made.finish("job")["job"]))
    assert texts[0] == texts[1] == texts[2]


def test_a_finished_chunk_is_never_computed_again() -> None:
    """P3: the transcriber dies in its second chunk; its successor computes what is missing, and only that."""
    heir = StandInEngine()
    made = system(15.0, heir)
    dying = StandInEngine()
    stuck: list[int] = []

    def hang(index: int) -> None:
        if len(dying.calls) == 2:
            stuck.append(index)
            raise SystemExit("killed")

    dying.during = hang
    made.start()
    made.kill(made.loops[3])
    first = made.add_transcriber(dying)
    made.submit(job_id="job", options={"language": "en"})
    with pytest.raises(SystemExit):
        made.turn_until(lambda: False)
    made.kill(first)
    made.add_transcriber()
    result = made.finish("job")["job"]

    assert result.status is JobStatus.COMPLETED
    assert sum(dying.calls.values()) == 2
    assert sum(heir.calls.values()) == result.chunks_total - 1
    assert max((dying.calls + heir.calls).values()) == 2  # the chunk in flight, and no other


def test_a_planner_that_dies_half_way_is_succeeded_and_nothing_appears_twice() -> None:
    made = system(15.0)
    made.start()
    planner = made.loops[2]
    made.submit(job_id="job")
    made.turn_until(lambda: len(list(made.store.list_keys(WORK_BUCKET, ""))) >= 2)
    made.kill(planner)
    made.add_planner()
    result = made.finish("job")["job"]
    assert result.status is JobStatus.COMPLETED
    indices = [event.chunk_index for event in made.seen(Topic.PARTIALS, ChunkTranscribed)]
    assert sorted(indices) == list(range(result.chunks_total))


def test_a_coordinator_that_dies_is_succeeded() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    made.turn_until(lambda: bool(made.seen(Topic.PARTIALS, ChunkTranscribed)))
    made.kill(made.loops[1])
    made.add_coordinator()
    assert made.finish("job")["job"].status is JobStatus.COMPLETED


def test_cancel_ends_the_job_and_cleans_up_and_the_next_job_runs() -> None:
    made = system(15.0)
    made.start()
    made.submit(job_id="job")
    made.turn_until(lambda: bool(made.seen(Topic.PARTIALS, ChunkTranscribed)))
    cancel = b'{"job_id": "job", "action": "cancel", "reason": "wrong file"}'
    made.broker.append(Outgoing(made.post.topic(Topic.CONTROL), b"job", cancel))
    made.submit(job_id="next")
    results = made.finish("job", "next")
    assert results["job"].status is JobStatus.CANCELLED
    assert results["next"].status is JobStatus.COMPLETED
    made.turn_until(lambda: not list(made.store.list_keys(WORK_BUCKET, "work/job/")))


def test_duplicates_conflicts_and_garbage_end_as_documented_and_the_next_job_runs() -> None:
    made = system()
    made.start()
    made.submit(job_id="job")
    made.submit(job_id="job")
    made.submit(job_id="job", options={"language": "de"})
    made.submit_raw(b"\xff\xfegarbage")
    made.submit(job_id="odd", options={"temperature": 1})
    made.submit(job_id="next")
    results = made.finish("job", "odd", "next")
    made.turn_until(lambda: len(made.dead_letters()) == 2)
    codes = sorted(text_of(letter, CODE) or "" for letter in made.dead_letters())
    assert codes == ["EVENT_UNREADABLE", "JOB_CONFLICT"]
    assert results["odd"].error is not None
    assert results["odd"].error.code == "OPTION_UNKNOWN"
    assert results["job"].status is results["next"].status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"recording": {"bucket": "no-such-bucket", "key": "a"}}, "BUCKET_MISSING"),
        ({"recording": {"bucket": RECORDINGS, "key": "missing"}}, "RECORDING_MISSING"),
        ({"recording": {"bucket": RECORDINGS, "key": "empty"}}, "RECORDING_EMPTY"),
        ({"recording": {"bucket": RECORDINGS, "key": "text.mp3"}}, "MEDIA_UNSUPPORTED"),
        ({"recording": {"bucket": RECORDINGS, "key": "a", "etag": "other"}}, "SOURCE_CHANGED"),
        ({"options": {"model": "huge"}}, "MODEL_NOT_ALLOWED"),
        ({"options": {"beam_size": 99}}, "OPTION_INVALID"),
    ],
)
def test_a_bad_request_fails_with_its_code_and_the_next_job_runs(request_fields: dict[str, object], code: str) -> None:
    made = system()
    made.upload("empty", b"")
    made.upload("text.mp3", b"This is not music. " * 100)
    made.start()
    made.submit(job_id="bad", **request_fields)
    made.submit(job_id="next")
    results = made.finish("bad", "next")
    bad = results["bad"]
    assert bad.status is JobStatus.FAILED
    assert bad.error is not None
    assert bad.error.code == code
    assert results["next"].status is JobStatus.COMPLETED
    assert made.store.stat(RECORDINGS, "a").size_bytes == CONVERSATION.stat().st_size
    assert list(made.store.list_keys(RESULTS, "results/bad/")) == []
