"""The chart of docs/memory.md, from what two benchmarks have printed.

python -m benchmarks.assembler_memory > docs/figures/assembler-memory.json
python -m benchmarks.speakers_preclustered > docs/figures/assembler-errors.json
python -m benchmarks.assembler_chart            # writes docs/figures/assembler-memory.svg
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
CHART = FOLDER / "assembler-memory.svg"
GB = 1e9
EMBEDDINGS_AN_HOUR = 5_600
"""Of the made-up talk."""
BYTES_OF_A_PAIR = 8
"""Of two embeddings: half of a matrix of doubles, twice, in scipy's `linkage`."""


def draw_memory(axes: Any, figures: dict[str, Any]) -> None:
    """Resident memory over the length of the recording; both axes are logarithmic."""
    runs = figures["assembler"]
    hours = [run["hours"] for run in runs]
    axes.plot(hours, [run["peak_bytes"] / GB for run in runs], "o-", label="assembler, peak")
    axes.plot(hours, [run["reduce_own_bytes"] / GB for run in runs], "s-", label="its reduce step alone")
    there = figures["pyannote"]
    axes.plot([there["hours"]], [there["reduce_own_bytes"] / GB], "^", color="C3", label="pyannote's reduce step")
    distances = [BYTES_OF_A_PAIR * (EMBEDDINGS_AN_HOUR * length) ** 2 / GB for length in hours]
    axes.plot(hours, distances, ":", color="C3", label="of it distances (computed)")
    for limit_gb in (1, 2):
        axes.axhline(limit_gb, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="hours, 20 speakers", ylabel="GB", title="Memory")
    axes.set_xticks(hours, [f"{length:g}" for length in hours])
    axes.legend(frameon=False, fontsize=8)


def draw_errors(axes: Any, figures: dict[str, Any]) -> None:
    """Error rates with the number of speakers left open, mean of the seeds."""
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in figures["results"]:
        if result["num_speakers"] is None:
            noise = f"\nnoise {result['noise']:g}" if "noise" in result else ""
            name = f"{result['recording']}{noise}\n{result['clustering'][:5].replace('agglo', 'AHC').upper()}"
            grouped, thinned = (
                next(value for key, value in result.items() if key.startswith(way)) for way in ("grouped", "thinned")
            )
            for way, figure in (("all", result["exact"]), ("groups", grouped), ("every n-th window", thinned)):
                rates[way][name].append(figure["der"])
    for place, (way, of_name) in enumerate(rates.items()):
        at = [number + 0.27 * (place - 1) for number in range(len(of_name))]
        axes.bar(at, [100 * mean(values) for values in of_name.values()], 0.25, label=way)
    names = list(rates["all"])
    axes.set(ylabel="diarization error rate, %", title="Clustering all embeddings, or a ninth")
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "the same figures give the same file"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    draw_memory(left, json.loads((FOLDER / "assembler-memory.json").read_text()))
    draw_errors(right, json.loads((FOLDER / "assembler-errors.json").read_text()))
    figure.savefig(CHART, metadata={"Date": None})


if __name__ == "__main__":
    main()
