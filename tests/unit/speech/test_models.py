"""Which models there are, and what identifies them. No model is loaded here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumer.errors import Misconfigured, MissingModel, UnknownModel
from consumer.settings import ModelSettings
from consumer.speech.models import Models, digest_of, local_files


def model_folder(root: Path, **changes: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("asr", "align", "dia"):
        (root / part).mkdir(exist_ok=True)
        (root / part / "weights").write_bytes(part.encode())
    document = {"name": "small", "max_window_s": 12, "asr": "asr", "align": {"en": "align"}, "diarization": "dia"}
    (root / "model.json").write_text(json.dumps(document | changes))
    return root


def settings(directory: Path, *allowed: str) -> ModelSettings:
    return ModelSettings(directory=directory, allowed=allowed)


def test_a_model_is_a_folder_of_its_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "small", diarization_window_s=5)
    model = Models(settings(tmp_path, "small")).find("small")
    assert (model.asr, model.diarization) == (str(folder / "asr"), str(folder / "dia"))
    assert (model.align, model.max_window_s, model.diarization_window_s) == ({"en": str(folder / "align")}, 12, 5)


def test_the_directory_itself_may_be_the_model(tmp_path: Path) -> None:
    model_folder(tmp_path)
    assert Models(settings(tmp_path, "small")).find("small").asr == str(tmp_path / "asr")


def test_the_first_allowed_model_is_the_default(tmp_path: Path) -> None:
    model_folder(tmp_path / "small")
    assert Models(settings(tmp_path, "small", "large-v3")).find(None).name == "small"


def test_a_hub_model_takes_whole_whisper_windows(tmp_path: Path) -> None:
    model = Models(settings(tmp_path, "large-v3")).find("large-v3")
    assert (model.asr, model.max_window_s, model.diarization_window_s) == ("large-v3", 30, 10)
    assert model.diarization == "pyannote/speaker-diarization-community-1"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "small/../small",
            "./small",
            "small/",
            "/etc/passwd",
            "~/x",
            "small\x00",
            "SMALL",
            " small",
            "small ",
        ),
        *(
            "Systran/faster-whisper-tiny",
            "evil/model@main",
            "hf://evil/model",
            "https://evil/model.bin",
            "file:///etc/x",
        ),
        *("small\n", "small,large-v3", "*", "x" * 256),
    ],
)
def test_no_other_name_reaches_the_file_system_or_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are pickles: what a job names is looked up on the list, and nowhere else."""

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("a file was asked for")

    models = Models(ModelSettings(directory=Path("/models"), allowed=("small", "large-v3"), download=True))
    for method in ("is_file", "is_dir", "exists", "stat", "open", "read_text", "read_bytes", "resolve"):
        monkeypatch.setattr(Path, method, touched)
    monkeypatch.setattr("builtins.open", touched)
    with pytest.raises(UnknownModel, match="choose small, large-v3"):
        models.find(name)


@pytest.mark.parametrize("name", ["large-v3", "../small", "/etc", ""])
def test_only_models_on_the_list_are_looked_for(tmp_path: Path, name: str) -> None:
    """A job names a model; a path in that name must not get anywhere. The empty name is the default."""
    model_folder(tmp_path / "small")
    models = Models(settings(tmp_path / "inside", "small") if name != "" else settings(tmp_path, "small"))
    if name:
        with pytest.raises(UnknownModel, match="small"):
            models.find(name)
    else:
        assert models.find(name).name == "small"


@pytest.mark.parametrize(
    "document", ["{", "[]", '{"name": "small"}', '{"name": "small", "asr": "asr", "max_window_s": 31}']
)
def test_a_model_json_that_says_too_little_is_a_wrong_setting(tmp_path: Path, document: str) -> None:
    model_folder(tmp_path / "small")
    (tmp_path / "small" / "model.json").write_text(document)
    with pytest.raises(Misconfigured, match=r"model\.json"):
        Models(settings(tmp_path, "small")).find("small")


def test_a_setting_adds_aligners_and_the_model_s_own_win(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "small")
    chosen = settings(tmp_path, "small").model_copy(update={"align_models": {"en": "hub/en", "de": "hub/de"}})
    assert Models(chosen).find("small").align == {"en": str(folder / "align"), "de": "hub/de"}


def test_a_part_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    def not_cached(name: str) -> str:
        raise FileNotFoundError(f"{name} is not cached")

    with pytest.raises(MissingModel, match="WHISPERX_MODELS__DOWNLOAD"):
        local_files("large-v3", not_cached, "transcribe", settings(tmp_path, "large-v3"))
    with pytest.raises(MissingModel, match="mount it"):
        local_files(str(tmp_path / "gone"), not_cached, "transcribe", settings(tmp_path, "large-v3"))
    assert local_files(str(tmp_path), not_cached, "transcribe", settings(tmp_path, "x")) == tmp_path


def test_equal_files_have_equal_digests_wherever_they_lie(tmp_path: Path) -> None:
    assert digest_of(model_folder(tmp_path / "a" / "small")) == digest_of(model_folder(tmp_path / "b" / "small"))


@pytest.mark.parametrize("change", ["byte", "name", "new file"])
def test_any_change_of_the_files_changes_the_digest(tmp_path: Path, change: str) -> None:
    folder = model_folder(tmp_path)
    before = digest_of(folder)
    weights = folder / "asr" / "weights"
    match change:
        case "byte":
            weights.write_bytes(b"asq")
        case "name":
            weights.rename(folder / "asr" / "weight")
        case _:
            (folder / "asr" / "more").touch()
    assert digest_of(folder) != before


def test_compiled_modules_do_not_change_the_digest(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    before = digest_of(folder)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert digest_of(folder) == before


def test_a_digest_is_read_once(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    models = Models(settings(tmp_path, "small"))
    first = models.digest(folder)
    (folder / "asr" / "weights").write_bytes(b"changed under a running process")
    assert models.digest(folder) == first
