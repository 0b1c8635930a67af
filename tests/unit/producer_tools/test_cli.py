"""The commands as they are called, on the embedded broker and store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from consumer import cli as service
from consumer.core.dead_letters import dead_letter
from consumer.core.layout import Topic
from consumer.events import JobControl, JobRequested, JobStatus, Problem
from consumer.ports import Outgoing, Received
from consumer.version import version
from producer_tools.cli import main
from producer_tools.exit_codes import Exit
from producer_tools.parser import RECORDINGS_BUCKET
from producer_tools.reference import PAGE, reference_markdown
from tests.unit.producer_tools.conftest import RESULTS_BUCKET
from tests.unit.producer_tools.installation import Installation, finished, job_name, progress
from tests.unit.producer_tools.results import store_result

ROOT = Path(__file__).resolve().parents[3]
BOUND_S = 60
Capture = pytest.CaptureFixture[str]


def requests(installation: Installation, *job_ids: str) -> list[JobRequested]:
    """What was published on jobs for these, by a reader of Avro and JSON."""
    read = [installation.codec.decode(one, (JobRequested,)) for one in installation.records(Topic.JOBS)]
    return [request for request in read if request.job_id in job_ids]


def submitted(capsys: Capture, *arguments: str) -> list[str]:
    """Ids of the jobs that stdout names."""
    assert main(["submit", *arguments]) == Exit.OK
    return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(os.urandom(50_000))
    return path


class TestSubmit:
    def test_a_file_is_uploaded_and_a_job_requested(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        (job,) = submitted(capsys, str(recording), "--language", "de", "--metadata", "case=17")
        (request,) = requests(installation, job)
        assert request.options.language == "de"
        assert request.metadata == {"case": "17"}
        stored = installation.store.get(request.recording.bucket, request.recording.key)
        assert stored == recording.read_bytes()

    def test_the_record_is_keyed_by_the_job(self, installation: Installation, recording: Path, capsys: Capture) -> None:
        (job,) = submitted(capsys, str(recording))
        (record,) = [one for one in installation.records(Topic.JOBS) if one.key == job.encode()]
        assert dict(record.headers)["ce_type"] == b"transcription.JobRequested"
        assert record.value is not None
        assert record.value.startswith(b"\xc3\x01")

    def test_the_same_file_twice_is_one_job_and_one_upload(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        first = submitted(capsys, str(recording))
        renamed = recording.rename(recording.with_name("other name.wav"))
        assert main(["submit", str(renamed)]) == Exit.OK
        again = capsys.readouterr()
        assert again.out.split("\t")[0] == first[0]
        assert "already there" in again.err
        one, other = requests(installation, *first)
        assert one.recording == other.recording

    def test_a_folder_means_a_job_for_each_recording(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        (recording.parent / "second.mp3").write_bytes(b"more sound")
        (recording.parent / "notes.txt").write_text("not sound")
        assert main(["submit", str(recording.parent)]) == Exit.OK
        told = capsys.readouterr()
        names = [line.split("\t")[1] for line in told.out.splitlines()]
        assert [Path(name).name for name in names] == ["second.mp3", "talk.wav"]
        assert "notes.txt: not a media file" in told.err

    def test_an_object_that_is_there_is_pinned_by_its_etag(self, installation: Installation, capsys: Capture) -> None:
        etag = installation.store.put(RECORDINGS_BUCKET, "there.wav", b"one").etag
        place = f"s3://{RECORDINGS_BUCKET}/there.wav"
        (first,) = submitted(capsys, place)
        installation.store.put(RECORDINGS_BUCKET, "there.wav", b"two")
        (second,) = submitted(capsys, place)
        assert first != second
        assert requests(installation, first)[0].recording.etag == etag

    def test_a_named_job_on_a_stored_object_needs_no_store(
        self, installation: Installation, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WHISPERX_STORE__ENDPOINT", "127.0.0.1:1")
        job = job_name()
        assert submitted(capsys, "s3://elsewhere/one.wav", "--job-id", job) == [job]
        assert requests(installation, job)[0].recording.etag is None

    def test_an_object_that_is_not_there_is_not_found(self, installation: Installation, capsys: Capture) -> None:
        assert main(["submit", f"s3://{RECORDINGS_BUCKET}/gone.wav"]) == Exit.NOT_FOUND
        told = capsys.readouterr()
        assert "gone.wav" in told.err
        assert "Traceback" not in told.err
        assert told.out == ""

    def test_json_is_an_event_too(self, installation: Installation, recording: Path, capsys: Capture) -> None:
        (job,) = submitted(capsys, str(recording), "--json-event")
        (record,) = [one for one in installation.records(Topic.JOBS) if one.key == job.encode()]
        assert json.loads(record.value or b"")["job_id"] == job
        assert len(requests(installation, job)) == 1

    def test_a_dry_run_shows_the_same_job_and_sends_nothing(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        assert main(["submit", str(recording), "--dry-run"]) == Exit.OK
        shown = json.loads(capsys.readouterr().out)
        assert requests(installation, shown["job_id"]) == []
        assert list(installation.store.list_keys(RECORDINGS_BUCKET, shown["recording"]["key"])) == []
        assert submitted(capsys, str(recording)) == [shown["job_id"]]

    def test_one_name_for_many_recordings_is_wrong_usage(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        second = recording.with_name("second.mp3")
        second.write_bytes(b"more sound")
        assert main(["submit", str(recording), str(second), "--job-id", "one"]) == Exit.USAGE
        assert "2 recordings" in capsys.readouterr().err

    def test_watch_follows_the_jobs_to_their_end(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        job = job_name()
        installation.publish(Topic.RESULTS, finished(job, JobStatus.PARTIAL))
        assert main(["submit", str(recording), "--job-id", job, "--watch"]) == Exit.JOB_PARTIAL
        assert capsys.readouterr().out.splitlines()[1] == f"{job}\tpartial\t"

    def test_of_several_files_the_one_that_failed_is_named(
        self, installation: Installation, recording: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoilt = recording.with_name("spoilt.mp3")
        spoilt.write_bytes(b"more sound")
        monkeypatch.chdir(recording.parent)
        good, bad = submitted(capsys, recording.name, spoilt.name)
        error = Problem(code="AUDIO_UNREADABLE", message="transcription-recordings/5b1e.mp3 cannot be decoded")
        installation.publish(Topic.RESULTS, finished(good), finished(bad, JobStatus.FAILED, error=error))
        assert main(["submit", recording.name, spoilt.name, "--watch"]) == Exit.JOB_FAILED
        told = capsys.readouterr().err
        assert f"{bad}  spoilt.mp3  failed  AUDIO_UNREADABLE: transcription-recordings/5b1e.mp3" in told
        assert f"{good}  {recording.name}  completed" in told


class TestWatch:
    def test_it_ends_when_all_jobs_have_ended(self, installation: Installation, capsys: Capture) -> None:
        good, bad = job_name(), job_name()
        installation.publish(Topic.PROGRESS, progress(good, 1), progress(bad, 1, chunks_total=3))
        error = Problem(code="MEDIA_UNSUPPORTED", message="no sound in it")
        installation.publish(Topic.RESULTS, finished(good), finished(bad, JobStatus.FAILED, error=error))
        assert main(["watch", good, bad]) == Exit.JOB_FAILED
        told = capsys.readouterr()
        assert set(told.out.splitlines()) == {f"{good}\tcompleted\t", f"{bad}\tfailed\tMEDIA_UNSUPPORTED"}
        assert "MEDIA_UNSUPPORTED: no sound in it" in told.err

    def test_when_time_is_over_it_says_what_goes_on(self, installation: Installation, capsys: Capture) -> None:
        ended, running = job_name(), job_name()
        installation.publish(Topic.RESULTS, finished(ended))
        installation.publish(Topic.PROGRESS, progress(running, 1))
        assert main(["watch", ended, running, "--timeout", "2s"]) == Exit.TIMED_OUT
        told = capsys.readouterr()
        assert told.out.splitlines() == [f"{ended}\tcompleted\t"]
        assert f"{running}  transcribing  50%" in told.err
        assert f"whisperx-jobs watch {running}" in told.err

    def test_a_job_of_long_ago_is_known_by_its_manifest(self, installation: Installation, capsys: Capture) -> None:
        job = job_name()
        store_result(installation.store, RESULTS_BUCKET, job, 3, txt=b"x")
        assert main(["watch", job, "--timeout", "20s"]) == Exit.OK
        told = capsys.readouterr()
        assert told.out == f"{job}\tcompleted\t\n"
        assert f"{job}  completed  1:00  en  1 speaker" in told.err

    def test_a_record_that_is_no_event_is_named_and_skipped(self, installation: Installation, capsys: Capture) -> None:
        job = job_name()
        installation.send(Outgoing(installation.topic(Topic.RESULTS), job.encode(), b"garbage"))
        installation.publish(Topic.RESULTS, finished(job))
        assert main(["watch", job]) == Exit.OK
        assert "skipped a record: tools.results[" in capsys.readouterr().err

    def test_ctrl_c_leaves_the_jobs_alone_and_says_how_to_watch_again(self, installation: Installation) -> None:
        job = job_name()
        with started(installation, "watch", job) as process:
            assert process.stderr is not None
            assert "Nothing is known" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=BOUND_S)
        assert process.returncode == Exit.INTERRUPTED
        assert f"whisperx-jobs watch {job}" in told
        assert "Traceback" not in told


class TestForce:
    def test_a_forced_job_says_so_and_has_the_id_that_it_has_without(
        self, installation: Installation, recording: Path, capsys: Capture
    ) -> None:
        (job,) = submitted(capsys, str(recording))
        assert submitted(capsys, str(recording), "--force") == [job]
        assert [request.force for request in requests(installation, job)] == [False, True]

    @pytest.mark.parametrize("known_by", ["its end", "its progress", "its manifest"])
    def test_watch_follows_the_new_run_and_not_the_old_result(
        self, installation: Installation, recording: Path, capsys: Capture, known_by: str
    ) -> None:
        job = job_name()
        match known_by:
            case "its end":
                installation.publish(Topic.RESULTS, finished(job, JobStatus.FAILED, run=3))
            case "its progress":
                installation.publish(Topic.PROGRESS, progress(job, 7, run=3))
            case _:
                store_result(installation.store, RESULTS_BUCKET, job, 3, txt=b"x")
        force = ["submit", str(recording), "--job-id", job, "--force", "--watch", "--timeout"]
        assert main([*force, "1s"]) == Exit.TIMED_OUT
        assert "after run 3" in capsys.readouterr().err
        superseded = Problem(code="SUPERSEDED", message="run 4 gave way to run 5")
        installation.publish(Topic.RESULTS, finished(job, JobStatus.CANCELLED, run=4, error=superseded))
        with started(installation, *force, "60s") as process:
            said(process, f"{job} after run 4")
            installation.publish(Topic.RESULTS, finished(job, run=5))
            out, _ = process.communicate(timeout=BOUND_S)
        assert (process.returncode, out.splitlines()[-1]) == (Exit.OK, f"{job}\tcompleted\t")


class TestRetry:
    def asked(self, installation: Installation, job: str) -> list[tuple[str, int | None, str | None]]:
        read = [installation.codec.decode(record, (JobControl,)) for record in installation.records(Topic.CONTROL)]
        return [(control.action, control.run, control.reason) for control in read if control.job_id == job]

    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PARTIAL])
    def test_the_newest_run_is_the_one_that_is_meant(
        self, installation: Installation, capsys: Capture, status: JobStatus
    ) -> None:
        job = job_name()
        installation.publish(Topic.RESULTS, finished(job), finished(job, status, run=2))
        assert main(["retry", job, "--reason", "the disk was full"]) == Exit.OK
        assert self.asked(installation, job) == [("retry", 2, "the disk was full")]
        assert "to make good run 2" in capsys.readouterr().err

    def test_a_partial_run_of_long_ago_is_known_by_its_manifest(
        self, installation: Installation, capsys: Capture
    ) -> None:
        job = job_name()
        store_result(installation.store, RESULTS_BUCKET, job, 3, txt=b"x", status=JobStatus.PARTIAL)
        assert main(["retry", job]) == Exit.OK
        assert self.asked(installation, job) == [("retry", 3, None)]

    def test_a_completed_job_is_refused(self, installation: Installation, capsys: Capture) -> None:
        job = job_name()
        installation.publish(Topic.RESULTS, finished(job, JobStatus.FAILED), finished(job, run=2))
        self.refused(installation, capsys, job, Exit.USAGE, "submit --force")

    def test_a_running_job_is_refused(self, installation: Installation, capsys: Capture) -> None:
        job = job_name()
        installation.publish(Topic.RESULTS, finished(job, JobStatus.FAILED))
        installation.publish(Topic.PROGRESS, progress(job, 1, run=2))
        self.refused(installation, capsys, job, Exit.USAGE, "still running (transcribing  50%")

    def test_an_unknown_job_is_not_found(self, installation: Installation, capsys: Capture) -> None:
        self.refused(installation, capsys, job_name(), Exit.NOT_FOUND, "nothing is known of")

    def refused(self, installation: Installation, capsys: Capture, job: str, code: Exit, why: str) -> None:
        """And with it a job that could be retried."""
        good = job_name()
        installation.publish(Topic.RESULTS, finished(good, JobStatus.FAILED))
        assert main(["retry", good, job]) == code
        assert why in capsys.readouterr().err
        assert self.asked(installation, good) == self.asked(installation, job) == []

    def test_watch_follows_the_new_run_to_its_end(self, installation: Installation, capsys: Capture) -> None:
        job = job_name()
        installation.publish(Topic.RESULTS, finished(job, JobStatus.FAILED, run=2))
        with started(installation, "retry", job, "--watch", "--timeout", "60s") as process:
            said(process, "after run 2")
            installation.publish(Topic.PROGRESS, progress(job, 1, run=3))
            installation.publish(Topic.RESULTS, finished(job, JobStatus.PARTIAL, run=3))
            out, _ = process.communicate(timeout=BOUND_S)
        assert (process.returncode, out) == (Exit.JOB_PARTIAL, f"{job}\tpartial\t\n")


class TestResult:
    def test_a_result_goes_to_stdout(
        self, installation: Installation, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        job = job_name()
        store_result(installation.store, RESULTS_BUCKET, job, 1, srt="1\nschön\n".encode())
        code = in_a_process(installation, "result", job, "--format", "srt")
        assert (code, capfdbinary.readouterr().out) == (Exit.OK, "1\nschön\n".encode())

    def test_a_result_goes_to_a_file(self, installation: Installation, tmp_path: Path, capsys: Capture) -> None:
        job, path = job_name(), tmp_path / "out.json"
        store_result(installation.store, RESULTS_BUCKET, job, 1, json=b"{}")
        assert main(["result", job, "--output", str(path)]) == Exit.OK
        assert path.read_bytes() == b"{}"
        assert capsys.readouterr().out == ""

    def test_no_result_is_an_exit_code_of_its_own(self, installation: Installation, tmp_path: Path) -> None:
        path = tmp_path / "out.json"
        assert main(["result", job_name(), "--output", str(path)]) == Exit.NOT_FOUND
        assert not path.exists()


class TestCancel:
    def test_each_job_is_asked_for_once(self, installation: Installation, capsys: Capture) -> None:
        one, other = job_name(), job_name()
        assert main(["cancel", one, other, one, "--reason", "wrong file", "--requested-by", "ann"]) == Exit.OK
        read = [installation.codec.decode(record, (JobControl,)) for record in installation.records(Topic.CONTROL)]
        asked = [control for control in read if control.job_id in (one, other)]
        assert sorted(control.job_id for control in asked) == [one, other]
        assert {(control.action, control.reason, control.requested_by) for control in asked} == {
            ("cancel", "wrong file", "ann")
        }
        told = capsys.readouterr()
        assert told.out == ""
        assert f"asked to cancel {one}; if there is such a job" in told.err, "nobody can tell here whether there is"

    def test_a_name_that_is_no_job_id_is_refused_and_nothing_is_sent(
        self, installation: Installation, capsys: Capture
    ) -> None:
        before = len(installation.records(Topic.CONTROL))
        assert main(["cancel", "good", "../bad"]) == Exit.USAGE
        assert "'../bad' is no job id: letters, digits" in capsys.readouterr().err
        assert len(installation.records(Topic.CONTROL)) == before


class TestDeadLetters:
    def park(self, installation: Installation, code: str, value: bytes) -> None:
        original = Received("tools.jobs", 1, 42, b"k", value, (("traceparent", b"00-1"),), 7)
        reason = Problem(code=code, message="Neither Avro nor JSON")
        installation.send(dead_letter(installation.topic(Topic.DEAD_LETTERS), original, reason))

    def listed(self, capsys: Capture, *arguments: str) -> list[dict[str, object]]:
        assert main(["dead-letters", "list", "--json", *arguments]) == Exit.OK
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def test_they_are_listed_with_code_and_origin(self, installation: Installation, capsys: Capture) -> None:
        self.park(installation, "LISTED", b"x")
        self.park(installation, "OTHER", b"x")
        (letter,) = self.listed(capsys, "--code", "LISTED")
        assert letter["original"] == "tools.jobs[1]@42"
        assert letter["message"] == "Neither Avro nor JSON"
        assert main(["dead-letters", "list", "--code", "LISTED"]) == Exit.OK
        assert capsys.readouterr().out.split("\t")[3:5] == ["LISTED", "tools.jobs[1]@42"]

    def test_the_newest_are_listed_and_the_rest_is_counted(self, installation: Installation, capsys: Capture) -> None:
        for number in range(3):
            self.park(installation, "MANY", str(number).encode())
        assert main(["dead-letters", "list", "--code", "MANY", "--limit", "2"]) == Exit.OK
        told = capsys.readouterr()
        assert len(told.out.splitlines()) == 2
        assert "the newest 2 of 3" in told.err

    def test_one_is_shown_with_its_headers_and_every_byte(self, installation: Installation, capsys: Capture) -> None:
        self.park(installation, "SHOWN", b'{"a"\n\x00\xff')
        (letter,) = self.listed(capsys, "--code", "SHOWN")
        assert main(["dead-letters", "show", str(letter["partition"]), str(letter["offset"])]) == Exit.OK
        shown = capsys.readouterr().out.splitlines()
        assert shown[0] == "traceparent: 00-1"
        assert "dead-letter-code: SHOWN" in shown
        assert shown[-3:] == ["key: k", "", '{"a"\\n\\x00\\xff']

    def test_raw_is_the_original_bytes_and_nothing_else(
        self, installation: Installation, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        self.park(installation, "RAW", b"\x00\xff\n")
        assert main(["dead-letters", "list", "--json", "--code", "RAW"]) == Exit.OK
        letter = json.loads(capfdbinary.readouterr().out)
        code = in_a_process(
            installation, "dead-letters", "show", str(letter["partition"]), str(letter["offset"]), "--raw"
        )
        assert (code, capfdbinary.readouterr().out) == (Exit.OK, b"\x00\xff\n")

    @pytest.mark.parametrize("place", [("0", "999999"), ("77", "0")])
    def test_a_position_without_a_record_is_not_found(
        self, installation: Installation, capsys: Capture, place: Sequence[str]
    ) -> None:
        assert main(["dead-letters", "show", *place]) == Exit.NOT_FOUND


class TestFailures:
    def test_brokers_that_are_away_are_a_sentence_and_a_code(self, installation: Installation, capsys: Capture) -> None:
        assert main(["watch", "a", "--bootstrap-servers", "127.0.0.1:1"]) == Exit.UNAVAILABLE
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("whisperx-jobs: ")
        assert line.endswith("[BROKER_UNAVAILABLE]")

    def test_debug_shows_the_trace(self, installation: Installation, capsys: Capture) -> None:
        assert main(["cancel", "../bad", "--debug"]) == Exit.USAGE
        assert "Traceback" in capsys.readouterr().err

    def test_a_setting_that_cannot_be_is_named(
        self, installation: Installation, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WHISPERX_KAFKA__SESSION_TIMEOUT_S", "soon")
        assert main(["watch", "a"]) == Exit.MISCONFIGURED
        assert "WHISPERX_KAFKA__SESSION_TIMEOUT_S" in capsys.readouterr().err

    def test_a_flag_that_is_none_is_wrong_usage(self, capsys: Capture) -> None:
        assert main(["submit", "--frobnicate"]) == Exit.USAGE

    def test_a_reader_that_goes_away_is_no_trace(self, installation: Installation) -> None:
        job = job_name()
        store_result(installation.store, RESULTS_BUCKET, job, 1, txt=b"x" * 5_000_000)
        with subprocess.Popen(
            [sys.executable, "-m", "producer_tools.cli", "result", job, "--format", "txt"],
            cwd=ROOT,
            env={**os.environ, **installation.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            said = process.stderr.read()
            process.wait(BOUND_S)
        assert (process.returncode, said) == (Exit.READER_GONE, b"")


@contextmanager
def started(installation: Installation, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "producer_tools.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **installation.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], words: str) -> None:
    """Wait until the command has said this."""
    assert process.stderr is not None
    while words not in process.stderr.readline():
        assert process.poll() is None, f"it ended without saying {words!r}"


def in_a_process(installation: Installation, *arguments: str) -> int:
    """Run as people do, with a stdout that takes bytes."""
    return subprocess.run(
        [sys.executable, "-m", "producer_tools.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **installation.environment},
        timeout=BOUND_S,
        check=False,
    ).returncode


def test_both_programs_tell_the_same_version(capsys: Capture) -> None:
    assert main(["--version"]) == Exit.OK
    with pytest.raises(SystemExit):
        service.main(["--version"])
    assert capsys.readouterr().out == f"whisperx-jobs {version()}\nwhisperx-consumer {version()}\n"


def test_the_help_is_shown_before_clients_and_models_are_loaded() -> None:
    script = (
        "import sys; from producer_tools.cli import main; code = main(['submit', '--help']);"
        "found = {'torch', 'whisperx', 'av', 'minio', 'confluent_kafka', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded {found}' if found else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=BOUND_S, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_command_loads_models() -> None:
    script = (
        "import sys; from producer_tools import cancel, cli, dead_letters, result, submit, watch;"
        "found = {'torch', 'whisperx', 'av', 'pyannote'} & set(sys.modules);"
        "sys.exit(f'loaded {found}' if found else 0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=BOUND_S, check=True)


def test_the_page_of_the_commands_is_what_the_parser_says() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == reference_markdown(), "run python -m producer_tools.reference"
