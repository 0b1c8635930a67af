"""Only models with good figures get into the demo."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.training import install

GOOD: dict[str, Any] = {
    "recording": "seed-1",
    "word_error_rate": 0.02,
    "diarization_error_rate": 0.05,
    "speakers": 2,
    "speakers_found": 2,
    "word_start_ms": {"median": 7.0, "of_90_percent": 20.0},
}


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    models = tmp_path / "run" / "models"
    for part in install.PARTS:
        (models / part).mkdir(parents=True)
        (models / part / "weights").write_text("new " + part)
        (models / part / "weights").chmod(0o600)
    (models / "model.json").write_text("{}")
    return tmp_path / "run"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "models" / "asr").mkdir(parents=True)
    (tmp_path / "models" / "asr" / "old").write_text("old")
    return tmp_path / "models"


def run(workdir: Path, target: Path, figures: dict[str, Any], *, quick: bool = False) -> int:
    (workdir / "summary.json").write_text(json.dumps({"quick": quick, "conversations": [GOOD, figures]}))
    return install.main([str(workdir), "--into", str(target)])


def test_good_models_replace_the_old_ones_and_every_user_can_read_them(workdir: Path, target: Path) -> None:
    assert run(workdir, target, GOOD) == 0
    assert not (target / "asr" / "old").exists()
    assert (target / "asr" / "weights").read_text() == "new asr"
    assert (target / "align" / "weights").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"word_error_rate": 0.2}, "word_error_rate is 0.2"),
        ({"diarization_error_rate": 0.3}, "diarization_error_rate is 0.3"),
        ({"speakers_found": 3}, "3 speakers found, not 2"),
        ({"word_start_ms": {"median": 90.0}}, "word starts is 90.0 ms"),
        ({"word_start_ms": {}}, "word starts is None ms"),
    ],
)
def test_worse_models_are_refused_and_the_reason_is_said(
    workdir: Path, target: Path, worse: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(workdir, target, GOOD | worse) == 1
    assert said in capsys.readouterr().err
    assert (target / "asr" / "old").exists()


def test_models_of_a_quick_run_are_refused(workdir: Path, target: Path) -> None:
    assert run(workdir, target, GOOD, quick=True) == 1


def test_an_unfinished_training_is_refused(workdir: Path, target: Path) -> None:
    assert install.main([str(workdir), "--into", str(target)]) == 1
    assert (target / "asr" / "old").exists()
