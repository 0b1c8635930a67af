"""Groups of near embeddings that stand in a clustering for more than it has room for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.speech import grouping
from consumer.speech.grouping import Embeddings, Numbers, grouped, stand_ins

VOICES = 5
DIMENSION = 16


def row(seed: int, sizes: tuple[int, ...]) -> tuple[Embeddings, Numbers]:
    """Embeddings of voices far apart, in any order, and the voice of each."""
    r = np.random.default_rng(seed)
    voices = r.permutation(np.repeat(np.arange(len(sizes)), sizes))
    embeddings = 4 * np.eye(len(sizes), DIMENSION)[voices] + r.normal(0, 0.2, (len(voices), DIMENSION))
    return embeddings.astype(np.float32), voices


@given(st.integers(1, 400), st.integers(1, 500), st.integers(2, 60), st.integers(2, 9), st.integers(0, 99))
def test_there_are_no_more_groups_than_asked_for(count: int, most: int, block: int, fewer: int, seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "BLOCK", block)
        patch.setattr(grouping, "FEWER", fewer)
        groups = grouped(embeddings, most)
    assert groups.shape == (count,)
    found = np.unique(groups)
    assert len(found) <= most
    np.testing.assert_array_equal(found, np.arange(len(found)))
    if count <= most:
        assert len(found) == count


@pytest.mark.parametrize("sizes", [(900, 500, 300, 200, 3), (1900, 40, 40, 18, 2), (400,) * VOICES])
def test_a_voice_is_never_in_a_group_with_another_however_little_it_says(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    monkeypatch.setattr(grouping, "BLOCK", 250)
    embeddings, voices = row(1, sizes)
    groups = grouped(embeddings, 50)
    voices_of_groups = [set(voices[groups == group]) for group in range(groups.max() + 1)]
    assert all(len(found) == 1 for found in voices_of_groups)
    assert VOICES < len(voices_of_groups) <= 50


def test_a_mean_stands_as_often_as_its_group_has_embeddings_and_no_more_than_a_smallest_cluster() -> None:
    embeddings, voices = row(2, (60, 40, 3))
    chosen, stand_in = stand_ins(embeddings, most=48, copies=6)
    groups = grouped(embeddings, 8)
    assert len(chosen) <= 48
    for group in range(groups.max() + 1):
        members = embeddings[groups == group]
        copies = np.flatnonzero((chosen == chosen[stand_in[groups == group][0]]).all(axis=1))
        assert len(copies) == min(6, len(members))
        np.testing.assert_allclose(chosen[copies[0]], members.mean(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_array_equal(chosen[stand_in].argmax(axis=1), voices)
    assert chosen.dtype == embeddings.dtype


def test_the_same_embeddings_give_the_same_groups() -> None:
    embeddings, _ = row(3, (700, 500, 9))
    before = embeddings.copy()
    np.testing.assert_array_equal(grouped(embeddings, 40), grouped(embeddings.copy(), 40))
    np.testing.assert_array_equal(embeddings, before)


def test_embeddings_of_no_length_and_those_that_cancel_each_other_out_have_a_group() -> None:
    """Every stand-in has a direction where an embedding of its group has one."""
    embeddings, _ = row(5, (300, 200))
    embeddings[::7] = 0
    embeddings[:100] = np.where(np.arange(100)[:, None] % 2, 1, -1) * np.float32(1e-4)
    chosen, stand_in = stand_ins(embeddings, most=12, copies=6)
    assert np.isfinite(chosen).all()
    for group in np.unique(stand_in):
        assert chosen[group].any() == embeddings[stand_in == group].any()


def test_memory_does_not_grow_with_the_square_of_the_embeddings() -> None:
    """Distances of 24,000 embeddings would take 2.3 GB."""
    embeddings = np.random.default_rng(4).normal(size=(24_000, 8)).astype(np.float32)
    tracemalloc.start()
    try:
        grouped(embeddings, 1_000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 << 20
