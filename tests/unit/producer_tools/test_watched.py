from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.events import JobFinished, JobProgress, JobStatus, Problem, Stage
from producer_tools.watched import End, Watched, WatchedJob
from tests.strategies import events as any_events
from tests.unit.producer_tools.installation import finished, progress


def heard(*events: JobProgress | JobFinished) -> WatchedJob:
    job = WatchedJob("a")
    for event in events:
        job.hear(event)
    return job


@given(st.permutations([progress("a", n, fraction=n / 10) for n in range(1, 6)] * 2))
def test_progress_never_goes_back_in_whatever_order_it_comes(events: list[JobProgress]) -> None:
    job, shares = WatchedJob("a"), []
    for event in events:
        job.hear(event)
        assert job.progress is not None
        shares.append(job.progress.fraction)
    assert shares == sorted(shares)
    assert shares[-1] == 0.5


@given(st.permutations([finished("a", run=1), progress("a", 7, run=2), finished("a", JobStatus.FAILED, run=2)]))
def test_the_end_of_the_newest_run_is_the_end_of_the_job(events: list[JobProgress | JobFinished]) -> None:
    outcome = heard(*events).outcome
    assert outcome is not None
    assert (outcome.run, outcome.status) == (2, JobStatus.FAILED)


def test_a_job_whose_newer_run_goes_on_has_not_ended() -> None:
    assert heard(finished("a", run=1), progress("a", 1, run=2)).outcome is None


def test_a_run_that_gave_way_to_a_forced_one_is_no_end() -> None:
    error = Problem(code="SUPERSEDED", message="run 1 gave way to run 2")
    old = (progress("a", 4, run=1), finished("a", JobStatus.CANCELLED, error=error))
    assert heard(*old).outcome is None
    outcome = heard(*old, finished("a", run=2)).outcome
    assert outcome is not None
    assert outcome.run == 2


@given(st.permutations([finished("a", run=1), progress("a", 9, run=1), progress("a", 1, run=2)]))
def test_of_the_runs_that_are_past_nothing_is_heard(events: list[JobProgress | JobFinished]) -> None:
    job = WatchedJob("a", after=1)
    for event in events:
        job.hear(event)
    assert (job.run, job.outcome, job.end) == (2, None, None)
    job.found(End.of_event(finished("a", run=1)))
    assert job.end is None
    job.hear(finished("a", JobStatus.FAILED, run=2))
    assert job.outcome is not None


def test_late_progress_of_a_finished_run_does_not_bring_it_back() -> None:
    assert heard(finished("a"), progress("a", 9)).outcome is not None


def test_a_line_says_how_far_it_is() -> None:
    now = progress(
        "a", 1, fraction=0.42, chunks_done=5, chunks_total=12, audio_done_s=3000, audio_total_s=7200, eta_s=200
    )
    assert heard(now).line == "a  transcribing  42%  5 of 12 chunks  50:00 of 2:00:00  3:20 left"


def test_a_line_names_the_recording_and_of_a_long_name_the_end() -> None:
    assert WatchedJob("a", name="calls/talk\t1.wav").line == "a  calls/talk\\t1.wav  waiting for news"
    long = WatchedJob("a", name="folder/" * 10 + "talk.wav")
    assert long.line == "a  …er/folder/folder/folder/folder/talk.wav  waiting for news"


def test_a_line_says_how_many_are_before_it() -> None:
    assert heard(progress("a", 1, stage=Stage.QUEUED, queue_position=4)).line == "a  queued, number 4 in its lane"
    assert heard().line == "a  waiting for news"


RECORDING = {
    "bucket": "calls", "key": "k", "etag": "e", "size_bytes": 1, "media_type": "audio/wav", "duration_s": 3600,
    "speech_s": 3000, "channels": 1, "sample_rate_hz": 16000,
}  # fmt: skip
TIMINGS = {"wall_s": 300, "real_time_factor": 12}


def test_a_line_says_how_it_ended() -> None:
    end = finished("a", recording=RECORDING, timings=TIMINGS, language="en", speakers=("A", "B"))
    assert heard(end).line == "a  completed  1:00:00 in 5:00  12.0 x real time  en  2 speakers"


def test_a_job_that_was_ended_early_was_not_that_fast() -> None:
    error = Problem(code="CANCELLED", message="the job was cancelled")
    end = finished("a", JobStatus.CANCELLED, recording=RECORDING, timings=TIMINGS, error=error)
    assert heard(end).line == "a  cancelled  CANCELLED: the job was cancelled"


def test_a_line_names_what_it_warns_of() -> None:
    def line(*codes: str) -> str:
        return heard(finished("a", warnings=tuple(Problem(code=code, message="") for code in codes))).line

    assert line("NO_SPEECH") == "a  completed  1 warning: NO_SPEECH"
    assert line("A", "B", "A", "C", "D") == "a  completed  5 warnings: A, B, C …"


def test_text_of_others_cannot_steer_the_terminal() -> None:
    error = Problem(code="X", message="bad\x1b[2J\nname")
    assert heard(finished("a", JobStatus.FAILED, error=error)).line == "a  failed  X: bad\\x1b[2J\\nname"


@given(any_events(JobProgress, JobFinished))
def test_no_event_can_steer_the_terminal(event: JobProgress | JobFinished) -> None:
    """Whatever stands in its fields."""
    job = WatchedJob(event.job_id)
    job.hear(event)
    assert job.line.isprintable()
    assert (job.end.error_code if job.end else "").isprintable()


def test_without_a_terminal_a_line_comes_when_there_is_something_new() -> None:
    job = WatchedJob("a")
    said = []
    for sequence in range(1, 101):
        job.hear(progress("a", sequence, fraction=sequence / 100))
        said.append(job.news())
    job.hear(finished("a"))
    said.append(job.news())
    lines = [line for line in said if line]
    assert len(lines) == 12
    assert lines[-1] == "a  completed"
    assert job.news() is None


def test_of_many_jobs_those_that_run_are_shown() -> None:
    watched = Watched(["a", "b"])
    watched.hear(finished("a"))
    watched.hear(progress("b", 1))
    assert [line[0] for line in watched.lines()] == ["b"]
    assert [job.job_id for job in watched.unfinished] == ["b"]
    assert watched.statuses == (JobStatus.COMPLETED,)
