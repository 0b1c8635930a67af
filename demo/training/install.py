"""Finished models into demo/models/tiny, when they are at least as good as the demo needs.

    python -m demo.training.install WORKDIR

refuses (exit status 1) unless the summary of the run is there and keeps to the limits below.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parents[1] / "models" / "tiny"
PARTS = ("asr", "align", "diarization", "nltk_data")

# The models of the first training had at most 3.3 %, 6.6 % and 8 ms on conversations of the same seeds.
LIMITS = {"word_error_rate": 0.04, "diarization_error_rate": 0.08}
WORD_START_MEDIAN_MS = 15.0


def shortcomings(summary: dict[str, Any]) -> Iterator[str]:
    """Why models with these figures are not to be installed; nothing when they are."""
    if summary["quick"]:
        yield "they come from a quick run"
    for conversation in summary["conversations"]:
        yield from _of_conversation(conversation)


def _of_conversation(figures: dict[str, Any]) -> Iterator[str]:
    name = figures["recording"]
    for figure, most in LIMITS.items():
        if figures[figure] > most:
            yield f"{name}: {figure} is {figures[figure]}, above {most}"
    if figures["speakers_found"] != figures["speakers"]:
        yield f"{name}: {figures['speakers_found']} speakers found, not {figures['speakers']}"
    median_ms = figures.get("word_start_ms", {}).get("median")
    if median_ms is None or median_ms > WORD_START_MEDIAN_MS:
        yield f"{name}: median error of word starts is {median_ms} ms, above {WORD_START_MEDIAN_MS}"


def install(source: Path, target: Path) -> None:
    """Replace the parts of the model directory `target`, readable for every user."""
    for part in PARTS:
        shutil.rmtree(target / part, ignore_errors=True)
        shutil.copytree(source / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(source / "model.json", target / "model.json")
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes 600


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workdir", type=Path, help="the folder of a finished `python -m demo.training`")
    parser.add_argument("--into", type=Path, default=MODELS, help="a model directory (default: demo/models/tiny)")
    chosen = parser.parse_args(arguments)
    summary_file = chosen.workdir / "summary.json"
    if not summary_file.exists():
        print(f"{summary_file} is missing: the training has not finished", file=sys.stderr)
        return 1
    found = list(shortcomings(json.loads(summary_file.read_text())))
    if found:
        print("Not installed:", *found, sep="\n  ", file=sys.stderr)
        return 1
    install(chosen.workdir / "models", chosen.into)
    print(f"Installed into {chosen.into}. Write the figures of {summary_file} into MODEL_CARD.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
