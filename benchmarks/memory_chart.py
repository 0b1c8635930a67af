"""The chart of planner, tools and transcriber in docs/memory.md, from what three benchmarks have printed.

python -m benchmarks.planner_memory --output docs/figures/planner-memory.json
python -m benchmarks.tools_memory > docs/figures/tools-memory.json
python -m benchmarks.transcriber_memory --output docs/figures/transcriber-memory-tiny.json
python -m benchmarks.transcriber_memory --model base --output docs/figures/transcriber-memory-base.json
python -m benchmarks.memory_chart              # writes docs/figures/memory.svg

`transcriber-memory-base-before.json` is a run of the version before `consumer/speech/spare_memory.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
CHART = FOLDER / "memory.svg"
MB, GB = 1e6, 1e9


def draw(axes: Any, curve: list[tuple[float, int]], unit: float, label: str, **style: Any) -> None:
    """Resident memory over the share of the run that is over, so that runs of any length lie over each other."""
    last_s = curve[-1][0] or 1.0
    axes.plot([100 * at / last_s for at, _ in curve], [size / unit for _, size in curve], label=label, **style)


def draw_planner(axes: Any, figures: dict[str, Any]) -> None:
    for number, (kind, runs) in enumerate(figures.items()):
        large = runs["large"]
        label = f"{large['recording_bytes'] / GB:.1f} GB {kind}, {large['recording_s'] / 3600:.0f} h"
        draw(axes, large["planner"]["curve"], MB, label, color=f"C{number}")
        draw(axes, large["decoder"]["curve"], MB, "", color=f"C{number}", linestyle=":")
    small = max(runs["small"]["planner"]["peak_bytes"] for runs in figures.values()) / MB
    axes.axhline(small + 100, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(ylim=(0, 380), xlabel="% of the run", ylabel="MB", title="Planner (dotted: its decoder)")


def draw_tools(axes: Any, figures: dict[str, Any]) -> None:
    for number, (name, runs) in enumerate(figures.items()):
        for size, style in (("large", "-"), ("small", ":")):
            label = f"{name}, {runs[size]['bytes'] / GB:g} GB"
            draw(axes, runs[size]["curve"], MB, label, color=f"C{number}", linestyle=style)
    axes.set(ylim=0, xlabel="% of the run", ylabel="MB", title="whisperx-jobs")


def draw_transcriber(axes: Any, figures: list[dict[str, Any]]) -> None:
    for run, name in zip(figures, ("demo models", "base size", "base size, nothing given back"), strict=True):
        label = f"{name}, {run['audio_s'] / 60:.0f} min of speech"
        draw(axes, run["transcriber"]["curve"], GB, label)
    axes.axhline(2, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(ylim=0, xlabel="% of the run", ylabel="GB", title="Transcriber")


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "the same figures give the same file"
    from matplotlib import pyplot

    def read(name: str) -> Any:
        return json.loads((FOLDER / f"{name}.json").read_text())

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    draw_planner(left, read("planner-memory"))
    draw_tools(middle, read("tools-memory"))
    draw_transcriber(right, [read(f"transcriber-memory-{model}") for model in ("tiny", "base", "base-before")])
    for axes in (left, middle, right):
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(CHART, metadata={"Date": None})


if __name__ == "__main__":
    main()
