"""What does it cost in error rate to cluster groups of embeddings where the embeddings themselves are too many?

    python -m benchmarks.speakers_preclustered                            # fifteen minutes, most of them listening
    python -m benchmarks.speakers_preclustered --heard heard.npz          # listens once, and keeps what it heard
    python -m benchmarks.speakers_preclustered --minutes 0 --seeds 1 --counted

Material is as long as exact clustering has room for, and the limit as many times smaller than the embeddings as
MOST_CLUSTERED is at ten hours; half of that limit shows the trend. (a) `--minutes` of the demo's long recording, heard
by the demo models. (b) `--hours` of made-up talks of 20 speakers, with embeddings as noisy as the demo's and with
noisier ones. Each with the demo's agglomerative clustering and with VBx, the clustering of community-1; with
`--counted` also with the true number of speakers given. Prints JSON: error rates against the truth, `der_to_exact`
against the turns of exact clustering, and the same for the plainer way of clustering every n-th window (`thinned`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import made_up_talk as talk
from benchmarks.made_up_space import vbx_clustering
from benchmarks.speaker_errors import error_rates
from consumer.core.speech import Activity, Diarization, Turn
from consumer.core.values import SAMPLE_RATE_HZ, Span
from consumer.events import DiarizeOptions
from consumer.speech import replay
from consumer.speech.diarize import Diarizer
from demo import recordings

MODEL = Path(__file__).parents[1] / "demo" / "models" / "tiny" / "diarization"
SPEAKERS = 20
EMBEDDINGS_IN_TEN_HOURS = 56_000
"""Of the made-up talk."""
NOISES = (talk.NOISE, 1.7)
NO_LIMIT = 1 << 40


def diarizer(clustering: str, plda: str) -> Diarizer:
    loaded = Diarizer(MODEL, "cpu", longest_window_s=10.0)
    if clustering == "vbx":
        vbx = vbx_clustering()
        if plda == "demo":
            vbx.plda = loaded._pipeline._plda
        loaded._pipeline.clustering = vbx
        replay.become_replay(loaded._pipeline)
    return loaded


def heard(minutes: float, kept: Path | None) -> tuple[list[Activity], int, list[Turn]]:
    """The demo's long recording: activities, samples, truth."""
    recording = recordings.long_recording(minutes)
    samples = np.asarray(recording.samples, dtype=np.float32)
    turns = [Turn(turn["start_s"], turn["end_s"], turn["speaker"]) for turn in recording.truth["turns"]]
    if kept is not None and kept.exists():
        with np.load(kept) as arrays:
            return [Activity(0, arrays["scores"], arrays["embeddings"])], len(samples), turns
    span = Span(0, len(samples))
    activity = diarizer("agglomerative", "demo").listen(samples, span, span, len(samples), lambda _: None)
    if kept is not None:
        np.savez(kept, scores=activity.scores, embeddings=activity.embeddings)
    return [activity], len(samples), turns


def made_up(hours: float, seed: int, noise: float) -> tuple[list[Activity], int, list[Turn]]:
    said = talk.turns(hours, SPEAKERS, seed)
    activities = list(talk.activities(said, hours, SPEAKERS, seed, noise=noise))
    return activities, int(hours * 3600 * SAMPLE_RATE_HZ), said


@contextmanager
def limit(most: int) -> Iterator[None]:
    before, replay.MOST_CLUSTERED = replay.MOST_CLUSTERED, most
    try:
        yield
    finally:
        replay.MOST_CLUSTERED = before


@contextmanager
def thinned(loaded: Diarizer, most: int) -> Iterator[None]:
    """Every n-th window is clustered, and the others are only assigned."""
    clustering = loaded._pipeline.clustering
    kind = type(clustering)

    class Thinned(kind):  # type: ignore[misc, valid-type]  # a class that is known only now
        def filter_embeddings(self, *args: Any, **options: Any) -> tuple[Any, Any, Any]:
            chosen, windows, speakers = super().filter_embeddings(*args, **options)
            kept = windows % -(-len(chosen) // most) == 0
            return chosen[kept], windows[kept], speakers[kept]

    clustering.__class__ = Thinned
    try:
        yield
    finally:
        clustering.__class__ = kind


def compare(
    loaded: Diarizer, activities: Sequence[Activity], samples: int, truth: Iterable[Turn], wanted: DiarizeOptions
) -> dict[str, Any]:
    """Exact, grouped and thinned clustering of one recording."""
    truth = list(truth)
    embeddings = sum(int((~np.isnan(activity.embeddings).any(axis=2)).sum()) for activity in activities)
    with limit(NO_LIMIT):
        exact = loaded.join(activities, samples, wanted)
    figures: dict[str, Any] = {"embeddings": embeddings, "exact": _figures(truth, exact, exact)}
    for share in (1, 2):
        most = embeddings * replay.MOST_CLUSTERED // EMBEDDINGS_IN_TEN_HOURS // share
        with limit(most):
            figures[f"grouped_{most}"] = _figures(truth, exact, loaded.join(activities, samples, wanted))
        with limit(NO_LIMIT), thinned(loaded, most):
            figures[f"thinned_{most}"] = _figures(truth, exact, loaded.join(activities, samples, wanted))
    return figures


def _figures(truth: list[Turn], exact: Diarization, found: Diarization) -> dict[str, float]:
    return {
        **error_rates(truth, found.turns),
        "der_to_exact": error_rates(exact.turns, found.turns)["der"],
        "speakers": len({turn.speaker for turn in found.turns}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the demo's long recording; 0 leaves it out")
    parser.add_argument("--heard", type=Path, help="an .npz with what the demo's models heard; made if it is not there")
    parser.add_argument("--hours", type=float, default=1.0, help="of each made-up talk")
    parser.add_argument("--seeds", type=int, default=2, help="made-up talks of each kind")
    parser.add_argument("--counted", action="store_true", help="also with the true number of speakers given")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    started_s = time.monotonic()
    results = []
    materials: list[tuple[dict[str, Any], tuple[list[Activity], int, list[Turn]]]] = []
    if arguments.minutes:
        materials.append(
            ({"recording": "demo", "minutes": arguments.minutes}, heard(arguments.minutes, arguments.heard))
        )
    for noise in NOISES:
        for seed in range(1, arguments.seeds + 1):
            name = {"recording": "made up", "hours": arguments.hours, "noise": noise, "seed": seed}
            materials.append((name, made_up(arguments.hours, seed, noise)))
    for name, (activities, samples, truth) in materials:
        for clustering in ("agglomerative", "vbx"):
            for count in (None, len({turn.speaker for turn in truth}))[: 1 + arguments.counted]:
                loaded = diarizer(clustering, "demo" if name["recording"] == "demo" else "made up")
                wanted = DiarizeOptions(num_speakers=count)
                figures = compare(loaded, activities, samples, truth, wanted)
                results.append(name | {"clustering": clustering, "num_speakers": count} | figures)
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"seconds": round(time.monotonic() - started_s), "results": results}, indent=1))


if __name__ == "__main__":
    main()
