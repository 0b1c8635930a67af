"""pyannote's pipeline over scores and embeddings that were computed before, with memory bounded for long recordings.

`SpeakerDiarization.apply` asks itself for both; here they come with the recording. Steps that take too much memory
are replaced: scores are binarised block by block, and turns are rebuilt block by block (rebuilding.py), which both
give the same. Only past MOST_CLUSTERED embeddings is the result another: then near ones are clustered as groups
(grouping.py). All embeddings are assigned to the clusters that were found, as always; but for those that are none, with
which pyannote ends, or takes them for the first speaker (voiceless.py).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer.speech.grouping import stand_ins
from consumer.speech.rebuilding import Runs, annotation, rebuild
from consumer.speech.voiceless import placed, silenced

log = logging.getLogger(__name__)

BLOCK = 1_000
"""Windows binarised together; the work arrays are about twenty times as large as the scores."""
MOST_CLUSTERED = 6_000
"""Embeddings that are clustered one by one: an hour to an hour and a half of conversation. Their distances take 150
MB, twice. Also the number of stand-ins for more."""
COPIES = 6
"""How often the mean of a group stands in VBx clustering, which has no smallest cluster."""


def become_replay(pipeline: Any) -> None:
    """Change a loaded `SpeakerDiarization` in place. Its `apply` then takes {"uri", "scores", "embeddings"}."""
    from pyannote.audio.pipelines import SpeakerDiarization

    class Replay(SpeakerDiarization):
        def get_segmentations(self, file: Any, hook: Any = None) -> Any:  # noqa: ARG002  (pyannote's signature)
            return file["scores"]

        def get_embeddings(self, file: Any, *_: Any, **__: Any) -> Any:
            return file["embeddings"]

        def reconstruct(self, segmentations: Any, hard_clusters: NDArray[np.int_], count: Any) -> Runs:
            return rebuild(segmentations, hard_clusters, count)

        @staticmethod
        def to_annotation(
            discrete_diarization: Runs, min_duration_on: float = 0.0, min_duration_off: float = 0.0
        ) -> Any:
            if min_duration_on:
                raise NotImplementedError("pyannote's apply leaves short turns in, whatever the model")
            return annotation(discrete_diarization, min_duration_off)

    pipeline.__class__ = Replay
    pipeline.clustering.__class__ = _bounded(type(pipeline.clustering))


def _bounded(clustering: type) -> type:
    """The clustering with groups in the place of too many embeddings; as it is where memory does not grow with n²."""
    from pyannote.audio.pipelines.clustering import AgglomerativeClustering, VBxClustering

    if issubclass(clustering, AgglomerativeClustering):
        return type("BoundedAgglomerative", (_PlacesTheVoiceless, _GroupsTheClustered, clustering), {})
    if issubclass(clustering, VBxClustering):
        return type("BoundedVBx", (_PlacesTheVoiceless, _GroupsTheChosen, clustering), {})
    return type("Bounded", (_PlacesTheVoiceless, clustering), {})


class _PlacesTheVoiceless:
    """Local speakers whose embedding is NaN are nobody to the clustering, and get their speaker afterwards."""

    def __call__(self, embeddings: NDArray[np.floating[Any]], segmentations: Any, **wanted: Any) -> tuple[Any, ...]:
        own: Any = super()
        voiceless = np.isnan(embeddings[:, :, 0])
        if not voiceless.any():
            found: tuple[Any, ...] = own.__call__(embeddings, segmentations, **wanted)
            return found
        log.warning(
            "Voices without an embedding are placed by what is beside them", extra={"voices": int(voiceless.sum())}
        )
        embeddings[voiceless] = 1.0
        with silenced(segmentations.data, voiceless):
            clusters, *rest = own.__call__(embeddings, segmentations, **wanted)
        grid = segmentations.sliding_window
        step_frames = segmentations.data.shape[1] * grid.step / grid.duration
        return placed(clusters, segmentations.data, voiceless, step_frames), *rest


class _GroupsTheClustered:
    """For a clustering that labels what it is given: each embedding gets the label of its stand-in."""

    def cluster(self, embeddings: NDArray[np.floating[Any]], **wanted: Any) -> NDArray[np.int_]:
        own: Any = super()
        if len(embeddings) <= MOST_CLUSTERED:
            labels: NDArray[np.int_] = own.cluster(embeddings, **wanted)
            return labels
        smallest: int = self.min_cluster_size  # type: ignore[attr-defined]  # pyannote's
        chosen, stand_in = stand_ins(embeddings, MOST_CLUSTERED, smallest)
        labels = own.cluster(chosen, **wanted)
        return labels[stand_in]


class _GroupsTheChosen:
    """For a clustering that makes its centroids of the embeddings that `filter_embeddings` chooses, and of nothing
    else of them: it gets the stand-ins."""

    def filter_embeddings(self, *args: Any, **options: Any) -> tuple[Any, Any, Any]:
        own: Any = super()
        chosen, windows, speakers = own.filter_embeddings(*args, **options)
        if len(chosen) > MOST_CLUSTERED:
            chosen, _ = stand_ins(chosen, MOST_CLUSTERED, COPIES)
        return chosen, windows, speakers


def stored_scores(scores: NDArray[np.float32], duration_s: float, step_s: float) -> Any:
    """Scores of sliding windows, (windows, frames, local speakers), as pyannote wants them."""
    from pyannote.core import SlidingWindow

    return _stored_scores_class()(scores, SlidingWindow(start=0.0, duration=duration_s, step=step_s))


@cache
def _stored_scores_class() -> Any:
    """A feature that pyannote's `binarize` takes in blocks: it chooses what to do by the class."""
    from pyannote.audio.utils.signal import binarize
    from pyannote.core import SlidingWindowFeature

    class StoredScores(SlidingWindowFeature):  # type: ignore[misc]  # pyannote.core has no types
        pass

    @binarize.register(StoredScores)
    def in_blocks(scores: Any, **options: Any) -> Any:
        binary = np.empty(scores.data.shape, dtype=np.uint8)
        for start in range(0, len(binary), BLOCK):
            block = SlidingWindowFeature(scores.data[start : start + BLOCK], scores.sliding_window)
            binary[start : start + BLOCK] = binarize(block, **options).data
        return SlidingWindowFeature(binary, scores.sliding_window)

    return StoredScores
