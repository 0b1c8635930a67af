"""The memory-saving steps of diarization's reduce give what pyannote's own steps give, and past a limit nearly so."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import made_up_talk as talk
from benchmarks.made_up_space import vbx_clustering
from benchmarks.speaker_errors import error_rates
from consumer.core.speech import Activity, Diarization, Turn
from consumer.core.values import SAMPLE_RATE_HZ
from consumer.events import DiarizeOptions
from consumer.speech import rebuilding, replay
from consumer.speech.diarize import Diarizer
from consumer.speech.rebuilding import annotation, rebuild

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]

MODEL = Path(__file__).parents[2] / "demo" / "models" / "tiny" / "diarization"
HOURS, SPEAKERS, SEED = 0.25, 6, 1
SAMPLES = int(HOURS * 3600 * SAMPLE_RATE_HZ)


def recording(seed: int, windows: int, speakers: int) -> tuple[Any, Any, Any]:
    """Scores of 5 s windows every second, clusters of their local speakers, and speakers at once per frame."""
    from pyannote.audio.pipelines.utils.diarization import SpeakerDiarizationMixin
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    r = np.random.default_rng(seed)
    scores = r.random((windows, 293, 3), dtype=np.float32)
    scores[r.random(scores.shape) < 0.3] = 0  # ties, whose order must agree too
    grid = SlidingWindow(start=0.0, duration=5.0, step=1.0)
    frames = SlidingWindow(start=0.0, duration=0.0619375, step=0.016875)
    clusters = r.integers(0, speakers, (windows, 3))
    clusters[r.random(clusters.shape) < 0.3] = -2
    clusters[0, 0] = speakers - 1
    active = SlidingWindowFeature((scores > 0.6).astype(np.float32), grid)
    count = SpeakerDiarizationMixin.speaker_count(active, frames, warm_up=(0.0, 0.0))
    return SlidingWindowFeature(scores, grid), clusters, count


def tracks(found: Any) -> list[tuple[float, float, Any, Any]]:
    return [(span.start, span.end, track, label) for span, track, label in found.itertracks(yield_label=True)]


@pytest.mark.parametrize("block", [1, 2, 7, 39, 40, 1000])
@pytest.mark.parametrize(("seed", "windows", "speakers"), [(1, 1, 1), (2, 2, 2), (3, 40, 3), (4, 41, 20), (5, 120, 2)])
@pytest.mark.parametrize("gap_s", [0.0, 0.1])
def test_turns_are_rebuilt_block_by_block_as_pyannote_does(
    monkeypatch: pytest.MonkeyPatch, seed: int, windows: int, speakers: int, block: int, gap_s: float
) -> None:
    """To the last bit, overlapping and exclusive, wherever a block ends."""
    from pyannote.audio.pipelines import SpeakerDiarization

    monkeypatch.setattr(rebuilding, "BLOCK", block)
    segmentations, clusters, count = recording(seed, windows, speakers)
    pipeline: Any = SimpleNamespace(to_diarization=SpeakerDiarization.to_diarization)
    for most_at_once in (9, 1):
        count.data = np.minimum(count.data, most_at_once).astype(np.int8)
        theirs = SpeakerDiarization.reconstruct(pipeline, segmentations, clusters, count)
        expected = SpeakerDiarization.to_annotation(theirs, min_duration_off=gap_s)
        assert tracks(annotation(rebuild(segmentations, clusters, count), gap_s)) == tracks(expected)
        assert expected


def test_more_speak_at_once_than_there_are_speakers_as_pyannote_has_it() -> None:
    from pyannote.audio.pipelines import SpeakerDiarization

    segmentations, clusters, count = recording(6, 30, 1)
    count.data = np.full_like(count.data, 3)
    pipeline: Any = SimpleNamespace(to_diarization=SpeakerDiarization.to_diarization)
    theirs = SpeakerDiarization.reconstruct(pipeline, segmentations, clusters, count)
    ours = annotation(rebuild(segmentations, clusters, count), 0.0)
    assert tracks(ours) == tracks(SpeakerDiarization.to_annotation(theirs))
    assert ours.labels() == [0, 1, 2]


def test_memory_for_turns_does_not_grow_with_frames_times_speakers() -> None:
    """Forty minutes more of 20 speakers are 142,000 frames: 11 MB in float32, 23 in int64, and pyannote has several."""
    peaks = []
    for windows in (600, 3_000):
        segmentations, clusters, count = recording(7, windows, 20)
        segmentations.data[:] = segmentations.data > 0.9  # so that turns are as few as in speech
        count.data = np.repeat(np.arange(len(count.data) // 100 + 1) % 3, 100)[: len(count.data), None].astype(np.int8)
        tracemalloc.start()
        try:
            rebuild(segmentations, clusters, count)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 16 << 20


def test_scores_are_binarised_in_blocks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyannote.audio.utils.signal import binarize

    monkeypatch.setattr(replay, "BLOCK", 7)
    whole, _, _ = recording(6, 40, 3)
    whole.data[:, :9] = 0.6  # exactly at the threshold: the state before it holds
    stored = replay.stored_scores(whole.data, 5.0, 1.0)
    expected = binarize(whole, onset=0.6, initial_state=False)
    found = binarize(stored, onset=0.6, initial_state=False)
    np.testing.assert_array_equal(found.data, expected.data)
    assert 0 < found.data.mean() < 1


# ── the whole reduce step ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def said() -> list[Turn]:
    return talk.turns(HOURS, SPEAKERS, SEED)


@pytest.fixture(scope="module")
def activities(said: list[Turn]) -> list[Activity]:
    return list(talk.activities(said, HOURS, SPEAKERS, SEED, windows_each=200))


@pytest.fixture
def diarizer() -> Diarizer:
    return Diarizer(MODEL, "cpu", longest_window_s=10.0)


@pytest.fixture
def vbx(diarizer: Diarizer) -> Diarizer:
    """With the clustering of community-1, and a space in which the made-up voices are told apart as they were made."""
    diarizer._pipeline.clustering = vbx_clustering()
    replay.become_replay(diarizer._pipeline)
    return diarizer


def pyannote_itself(activities: Iterable[Activity], clustering: Any, wanted: DiarizeOptions) -> Any:
    """pyannote's reduce step, with no part of it replaced."""
    from pyannote.audio import Pipeline
    from pyannote.core import SlidingWindow, SlidingWindowFeature

    pipeline: Any = Pipeline.from_pretrained(str(MODEL))
    if clustering is not None:
        pipeline.clustering = clustering
    row = list(activities)
    scores = np.concatenate([activity.scores for activity in row])
    embeddings = np.nan_to_num(np.concatenate([activity.embeddings for activity in row]), nan=1.0)
    grid = SlidingWindow(start=0.0, duration=float(talk.WINDOW_S), step=float(talk.STEP_S))
    pipeline.get_segmentations = lambda *_, **__: SlidingWindowFeature(scores, grid)
    pipeline.get_embeddings = lambda *_, **__: embeddings
    return pipeline.apply(
        {"uri": "recording"},
        num_speakers=wanted.num_speakers,
        min_speakers=wanted.min_speakers,
        max_speakers=wanted.max_speakers,
    )


def rounded(found: Any) -> list[tuple[float, float, str]]:
    return [(round(start_s, 3), round(end_s, 3), label) for start_s, end_s, _, label in tracks(found)]


def times(turns: Iterable[Turn]) -> list[tuple[float, float, str]]:
    return [(turn.start_s, turn.end_s, turn.speaker) for turn in turns]


WANTED = [
    DiarizeOptions(embeddings=True),
    DiarizeOptions(num_speakers=3),
    DiarizeOptions(min_speakers=8, max_speakers=9),
]


@pytest.mark.parametrize("wanted", WANTED, ids=["free", "three", "eight or nine"])
def test_below_the_limit_the_result_is_that_of_pyannote(
    diarizer: Diarizer, activities: list[Activity], wanted: DiarizeOptions
) -> None:
    theirs = pyannote_itself(activities, None, wanted)
    ours = diarizer.join(activities, SAMPLES, wanted)
    assert times(ours.turns) == rounded(theirs.speaker_diarization)
    assert times(ours.exclusive) == rounded(theirs.exclusive_speaker_diarization)
    if wanted.embeddings:
        np.testing.assert_array_equal(np.array(list(ours.embeddings.values())), theirs.speaker_embeddings)


def test_below_the_limit_the_result_is_that_of_pyannote_with_vbx_too(vbx: Diarizer, activities: list[Activity]) -> None:
    theirs = pyannote_itself(activities, vbx_clustering(), DiarizeOptions())
    ours = vbx.join(activities, SAMPLES, DiarizeOptions())
    assert times(ours.turns) == rounded(theirs.speaker_diarization)
    assert times(ours.exclusive) == rounded(theirs.exclusive_speaker_diarization)
    assert len(theirs.speaker_diarization.labels()) > 2


@pytest.mark.parametrize("kind", ["diarizer", "vbx"])
def test_past_the_limit_groups_cost_little(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    said: list[Turn],
    activities: list[Activity],
    kind: str,
) -> None:
    """A quarter of an hour has 1,400 embeddings."""
    joined: Diarizer = request.getfixturevalue(kind)
    exact = error_rates(said, joined.join(activities, SAMPLES, DiarizeOptions()).turns)
    monkeypatch.setattr(replay, "MOST_CLUSTERED", 200)
    grouped = error_rates(said, joined.join(activities, SAMPLES, DiarizeOptions()).turns)
    assert exact["der"] < 0.05
    assert grouped["der"] < exact["der"] + 0.01


@pytest.mark.parametrize("kind", ["diarizer", "vbx"])
@pytest.mark.parametrize(
    ("wanted", "least", "most"),
    [
        (DiarizeOptions(num_speakers=4), 4, 4),
        (DiarizeOptions(max_speakers=3), 1, 3),
        (DiarizeOptions(min_speakers=8, max_speakers=9), 8, 9),
    ],
    ids=["four", "at most three", "eight or nine"],
)
def test_past_the_limit_the_wanted_number_of_speakers_holds(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    activities: list[Activity],
    kind: str,
    wanted: DiarizeOptions,
    least: int,
    most: int,
) -> None:
    joined: Diarizer = request.getfixturevalue(kind)
    monkeypatch.setattr(replay, "MOST_CLUSTERED", 200)
    found = joined.join(activities, SAMPLES, wanted)
    assert least <= len({turn.speaker for turn in found.turns}) <= most


@pytest.mark.parametrize("kind", ["diarizer", "vbx"])
def test_past_the_limit_the_result_does_not_depend_on_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    said: list[Turn],
    activities: list[Activity],
    kind: str,
) -> None:
    joined: Diarizer = request.getfixturevalue(kind)
    monkeypatch.setattr(replay, "MOST_CLUSTERED", 200)
    results: list[Diarization] = [
        joined.join(cut, SAMPLES, DiarizeOptions(embeddings=True))
        for cut in (
            activities,
            talk.activities(said, HOURS, SPEAKERS, SEED, windows_each=10_000),
            talk.activities(said, HOURS, SPEAKERS, SEED, windows_each=37),
        )
    ]
    assert results[0] == results[1] == results[2]
    assert results[0].turns


def test_pyannote_never_clusters_more_than_the_limit(
    monkeypatch: pytest.MonkeyPatch, diarizer: Diarizer, activities: list[Activity]
) -> None:
    from pyannote.audio.pipelines import clustering
    from scipy.cluster.hierarchy import linkage

    seen: list[int] = []

    def counted(embeddings: NDArray[np.float32], **options: Any) -> Any:
        seen.append(len(embeddings))
        return linkage(embeddings, **options)

    monkeypatch.setattr(clustering, "linkage", counted)
    monkeypatch.setattr(replay, "MOST_CLUSTERED", 200)
    diarizer.join(activities, SAMPLES, DiarizeOptions())
    monkeypatch.setattr(replay, "MOST_CLUSTERED", 2_000)
    diarizer.join(activities, SAMPLES, DiarizeOptions())
    assert seen[0] <= 200
    assert 1_000 < seen[1] <= 2_000


NONE = [np.nan, np.inf, 0.0, 3e38]


def spoilt(activities: Iterable[Activity], share: float) -> list[Activity]:
    """With so many of the embeddings of speaking voices no embeddings any more."""
    random = np.random.default_rng(SEED)
    row = []
    for activity in activities:
        embeddings = activity.embeddings.copy()
        for place in np.argwhere(np.isfinite(embeddings).all(axis=2)):
            if random.random() < share:
                embeddings[tuple(place)] = random.choice(NONE)
        row.append(Activity(activity.first, activity.scores, embeddings))
    return row


@pytest.mark.parametrize("kind", ["diarizer", "vbx"])
@pytest.mark.parametrize("most", [200, 6_000])
def test_voices_without_an_embedding_are_taken_for_those_heard_beside_them(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    said: list[Turn],
    activities: list[Activity],
    kind: str,
    most: int,
) -> None:
    """A tenth of them."""
    monkeypatch.setattr(replay, "MOST_CLUSTERED", most)
    joined: Diarizer = request.getfixturevalue(kind)
    whole = error_rates(said, joined.join(activities, SAMPLES, DiarizeOptions()).turns)
    wrong = error_rates(said, joined.join(spoilt(activities, 0.1), SAMPLES, DiarizeOptions()).turns)
    assert wrong["der"] < whole["der"] + 0.01


@pytest.mark.parametrize("kind", ["diarizer", "vbx"])
def test_speech_without_any_embedding_is_that_of_one_speaker(
    request: pytest.FixtureRequest, activities: list[Activity], kind: str
) -> None:
    joined: Diarizer = request.getfixturevalue(kind)
    found = joined.join(spoilt(activities, 1.0), SAMPLES, DiarizeOptions(embeddings=True))
    assert found.exclusive == joined.join(activities, SAMPLES, DiarizeOptions(num_speakers=1)).exclusive
    assert {turn.speaker for turn in found.exclusive} == {"SPEAKER_00"}
    assert found.embeddings == {}


def test_a_row_of_activities_is_held_once(diarizer: Diarizer) -> None:
    """Each is let go when it is copied: the peak is one copy of the recording's, and a little."""
    whole_bytes = 1_800 * (talk.FRAMES + talk.DIMENSION) * talk.LOCAL_SPEAKERS * 4

    def silent() -> Iterable[Activity]:
        for first in range(0, 1_800, 60):
            yield Activity(
                first,
                np.zeros((60, talk.FRAMES, talk.LOCAL_SPEAKERS), dtype=np.float32),
                np.full((60, talk.LOCAL_SPEAKERS, talk.DIMENSION), np.nan, dtype=np.float32),
            )

    tracemalloc.start()
    try:
        row = diarizer._row(silent(), 1_800)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert row is not None
    assert not np.isnan(row[1]).any()
    assert whole_bytes <= peak_bytes < 1.5 * whole_bytes
