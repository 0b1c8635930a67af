"""Fewer embeddings to cluster: near ones in groups, each group in the clustering with its mean.

The distances of n embeddings take 4 n² bytes, twice: 25 GB for ten hours, which have up to 56,000. So Ward's method
joins what is nearest within blocks, again and again until few enough groups are left; a block costs 32 MB. Groups
depend on the row of embeddings alone, and that on the recording, not on how it was cut into chunks.

Ward, because complete and average linkage came less close to the number of speakers in noisy talks: to join few
embeddings to many far ones costs it more than to join two large groups that are alike. What groups cost in error rate:
benchmarks/speakers_preclustered.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 2_000
"""Embeddings whose distances are held at once: about twenty minutes of conversation at first, hours in later rounds."""
FEWER = 8
"""A round leaves an eighth, or what is wanted: ten hours take two rounds, forty three. A round that left less would
have to join what is far apart, with one block in view."""

Embeddings = NDArray[np.floating[Any]]
Numbers = NDArray[np.intp]


def stand_ins(embeddings: Embeddings, most: int, copies: int) -> tuple[Embeddings, Numbers]:
    """At most `most` embeddings that stand for all: the means of groups, (n_stand_ins, dimension).

    A mean is there as often as its group has embeddings, but no more than `copies` times: so a clustering that counts
    embeddings up to `copies` (pyannote's `min_cluster_size`) counts right, and a lone outlier weighs less than a voice.
    Also the stand-in of each embedding, (n_embeddings,).
    """
    groups = grouped(embeddings, max(1, most // copies))
    sizes = np.bincount(groups)
    times = np.minimum(sizes, copies)
    firsts = np.cumsum(times) - times
    return np.repeat(_means(embeddings, groups), times, axis=0), firsts[groups]


def grouped(embeddings: Embeddings, most: int) -> Numbers:
    """The group of each embedding, numbered from 0 to at most `most` - 1; (n_embeddings, dimension) comes in."""
    groups = np.arange(len(embeddings))
    points = embeddings
    while len(points) > most:
        groups = _one_round(points, max(most, len(points) // FEWER))[groups]
        points = _means(embeddings, groups)
    return groups


def _one_round(points: Embeddings, most: int) -> Numbers:
    """Groups of points, none of them in two blocks; every block gets its share of them."""
    from scipy.cluster.hierarchy import fcluster, ward

    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    directions = np.divide(points, lengths, out=np.zeros_like(points), where=lengths > 0)
    blocks = min(-(-len(points) // BLOCK), most)
    borders = np.arange(blocks + 1) * len(points) // blocks
    shares = np.diff(np.arange(blocks + 1) * most // blocks)
    groups = np.empty(len(points), dtype=np.intp)
    behind = 0
    for start, end, share in zip(borders[:-1], borders[1:], shares, strict=True):
        block = directions[start:end]
        found = fcluster(ward(block), share, "maxclust") if len(block) > 1 else np.ones(len(block), dtype=np.intp)
        _, groups[start:end] = np.unique(found, return_inverse=True)
        groups[start:end] += behind
        behind = int(groups[start:end].max()) + 1
    return groups


def _means(embeddings: Embeddings, groups: Numbers) -> Embeddings:
    """(n_groups, dimension); summed in double precision, in the order of the embeddings. Where they cancel each other
    out the first one stands for all: a mean without a direction has no distance to anything."""
    sums = np.zeros((int(groups.max()) + 1, embeddings.shape[1]))
    np.add.at(sums, groups, embeddings)
    means: Embeddings = (sums / np.bincount(groups)[:, None]).astype(embeddings.dtype)
    nowhere = np.flatnonzero(~np.linalg.norm(means, axis=1).astype(bool))
    firsts = np.unique(groups, return_index=True)[1]
    means[nowhere] = embeddings[firsts[nowhere]]
    return means
