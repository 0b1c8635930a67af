"""Wrong use of `whisperx-consumer` ends in a sentence, before any work."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consumer import bootstrap, cli
from consumer.bootstrap import Parts, Role, System, serving
from consumer.errors import Misconfigured
from consumer.events import JobStatus, Problem
from consumer.exit_codes import ExitCode
from consumer.settings import Settings
from demo import transcribe
from tests.unit.producer_tools.installation import finished
from tests.unit.producer_tools.test_watched import RECORDING

TOO_LONG = "a" * 300
BOUND_S = 60
SECOND_SIGNAL = """
import signal
from pathlib import Path
from demo import transcribe

def interrupted(*_):
    raise KeyboardInterrupt

transcribe._watch, transcribe._cancel = interrupted, lambda *_: None
assert transcribe._finish(None, None, [], Path(), transcribe.Screen()) == 130
try:
    signal.raise_signal(signal.SIGINT)
finally:
    print("went on")
"""


@pytest.mark.parametrize("path", [TOO_LONG, "not-there.wav", "."])
def test_what_is_no_file_is_refused_as_wrong_use(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["transcribe", path])
    assert end.value.code == ExitCode.USAGE
    assert f"{path} is not a file" in capsys.readouterr().err


def test_results_that_would_have_no_place_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(b"x")
    assert cli.main(["transcribe", str(recording), "--output-dir", str(recording / "out")]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert f"{recording / 'out'} cannot be written: Not a directory; give a folder with --output-dir" in told
    assert "Loading" not in told


@pytest.mark.parametrize("option", ["--older-than", "--per-second"])
def test_what_is_no_number_is_told_in_our_words(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", option, "soon"])
    assert end.value.code == ExitCode.USAGE
    assert f"argument {option}: give " in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_wrong_setting_and_no_bug() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        system = System(Parts(Settings.model_validate({"server": {"host": "127.0.0.1", "port": port}})), [Role.INTAKE])
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}.*WHISPERX_SERVER__PORT"), serving(system):
            pass


@pytest.fixture
def handlers() -> Iterator[None]:
    """What the process did with signals before."""
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(name) for name in names]
    yield
    for name, handler in zip(names, before, strict=True):
        signal.signal(name, handler)


class NeverRun:
    """The loop of a role that was told to stop before."""

    def stop(self) -> None:
        """There is nothing to stop."""


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("handlers")
def test_a_signal_while_models_load_is_answered_at_once(
    name: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[list[str]] = []

    def load(*_: object) -> NeverRun:
        signal.raise_signal(name)
        said.append([record.message for record in caplog.records])
        return NeverRun()

    monkeypatch.setattr(bootstrap, "runner", load)
    caplog.set_level("INFO")
    system = System(Parts(Settings.model_validate({"server": {"port": 0}})), [Role.TRANSCRIBE])
    assert cli._serve(system) is ExitCode.OK
    assert said == [["Told to stop; ends as soon as the models are loaded"]]
    assert caplog.records[-1].message == "Stopped in good order"


def test_a_second_interrupt_does_not_wait_for_the_way_out() -> None:
    end = subprocess.run(
        [sys.executable, "-c", SECOND_SIGNAL], capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert (end.returncode, end.stdout) == (ExitCode.INTERRUPTED, "")
    assert end.stderr == "Interrupted; the jobs are cancelled.\n"


def test_the_speed_that_is_told_belongs_to_the_time_that_is_told() -> None:
    """The event's own factor leaves out what the job waited."""
    timings = {"wall_s": 4.0, "real_time_factor": 15.0}
    result = finished("a", recording=RECORDING | {"duration_s": 30}, timings=timings, language="en", chunks_total=1)
    line = transcribe._summary(replace(transcribe._job(0, Path("talk.wav")), result=result))
    assert line.startswith("talk.wav: completed, 30 s of audio in 4.0 s (7.5x real time), language en")


def test_a_fault_is_told_of_the_file_that_was_given_and_not_of_its_place_in_the_store(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job = transcribe._job(2, Path("calls/cut.m4a"))
    message = "recordings/0002/cut.m4a cannot be decoded (no moov); check that it plays"
    job.result = finished(
        job.job_id,
        JobStatus.FAILED,
        error=Problem(code="AUDIO_UNREADABLE", message=message),
        warnings=[{"code": "RECORDING_DAMAGED", "message": "3 packets of recordings/0002/cut.m4a are damaged"}],
    )
    transcribe._show(Parts(Settings()), job, tmp_path, transcribe.Screen())
    assert capsys.readouterr().err.splitlines() == [
        "calls/cut.m4a: failed: AUDIO_UNREADABLE: calls/cut.m4a cannot be decoded (no moov); check that it plays",
        "calls/cut.m4a: warning: RECORDING_DAMAGED: 3 packets of calls/cut.m4a are damaged",
    ]


@pytest.mark.parametrize(
    ("file", "job_id", "folder"),
    [
        ("größe 1.wav", "gr-e-1-", "größe-1-"),
        ("gro\u0308\u00dfe.wav", "gr-e-", "größe-"),  # as macOS writes it
        ("日本語.mp3", "job-", "日本語-"),
        ("a_b.c.flac", "a-b-c-", "a-b-c-"),
        ("../%%.wav", "job-", "job-"),
    ],
)
def test_the_folder_of_the_results_is_called_as_the_file_is(file: str, job_id: str, folder: str) -> None:
    job = transcribe._job(0, Path(file))
    assert (job.job_id[:-8], job.folder[:-8]) == (job_id, folder)
    assert job.job_id[-8:] == job.folder[-8:]
