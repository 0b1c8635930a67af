"""The clustering of community-1, VBx, for the voices of made_up_talk.py: its PLDA is not free to ship."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import made_up_talk as talk


class MadeUpSpace:
    """In the place of a PLDA: unit vectors, stretched so that the noise of three seconds has variance 1 a dimension."""

    phi = np.full(talk.DIMENSION, 3.0)
    """Variance between voices: three times that within one, as the talk is made up."""

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        return np.asarray(2 * np.sqrt(talk.DIMENSION) * unit, dtype=np.float64)


def vbx_clustering() -> Any:
    """With the parameters of community-1."""
    from pyannote.audio.pipelines import clustering

    kind: Any = clustering.VBxClustering
    vbx = kind(MadeUpSpace(), metric="cosine")
    vbx.instantiate({"threshold": 0.6, "Fa": 0.07, "Fb": 0.8})
    return vbx
