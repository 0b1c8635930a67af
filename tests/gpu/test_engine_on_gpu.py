"""The real engine on a real GPU, with the demo models: against the CPU, and when the card's memory is taken.

`make gpu` runs these where PyTorch sees a GPU; elsewhere they are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import jiwer
import numpy as np
import pytest

from consumer.core.speech import ChunkSpeech
from consumer.errors import BrokenGpuContext, GpuOutOfMemory
from consumer.events import JobOptions
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from tests.gpu.ballast import full_card
from tests.integration.test_speech_engine import MODELS, Conversation, conversation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.models,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("card"),
]

JOB = JobOptions(language="en")


@pytest.fixture(scope="module")
def card() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU here; `make gpu` runs these tests where there is one")


def engine_on(device: str, **settings: bool) -> SpeechEngine:
    models = ModelSettings(directory=MODELS, allowed=("tiny",))
    return SpeechEngine(models, DeviceSettings.model_validate({"device": device, **settings}))


@pytest.fixture(scope="module")
def engine(card: None) -> SpeechEngine:
    made = engine_on("auto")
    made.warm_up()
    return made


@pytest.fixture
def fresh(card: None) -> SpeechEngine:
    """One that has recognised nothing yet: CTranslate2 keeps what it had, and needs less of a full card then."""
    made = engine_on("auto")
    made.warm_up()
    return made


@pytest.fixture(scope="module")
def talk() -> Conversation:
    return conversation("conversation-90s")


def heard(engine: SpeechEngine, talk: Conversation) -> ChunkSpeech:
    return engine.transcribe(talk.task(talk.whole, JOB), lambda _: None)


def text_of(speech: ChunkSpeech) -> str:
    return " ".join(segment.text for segment in speech.segments)


def assert_goes_on(engine: SpeechEngine, talk: Conversation) -> None:
    """On the GPU, or by a new process, as CTranslate2 may not get over a full card; never on the CPU for good."""
    with suppress(BrokenGpuContext):
        assert heard(engine, talk).device == "cuda/float16"


def test_the_gpu_hears_what_the_cpu_hears(engine: SpeechEngine, talk: Conversation) -> None:
    on_gpu, on_cpu = heard(engine, talk), heard(engine_on("cpu"), talk)
    assert (on_gpu.device, on_gpu.warnings) == ("cuda/float16", ())
    assert jiwer.wer(text_of(on_cpu), text_of(on_gpu)) < 0.02
    assert on_gpu.activity is not None
    assert on_cpu.activity is not None
    np.testing.assert_allclose(on_gpu.activity.scores, on_cpu.activity.scores, atol=1e-3)
    one, other = (
        engine.join_speakers([activity], len(talk.samples), JOB) for activity in (on_gpu.activity, on_cpu.activity)
    )
    assert [turn.speaker for turn in one.turns] == [turn.speaker for turn in other.turns]


def test_the_gpu_hears_the_same_twice(engine: SpeechEngine, talk: Conversation) -> None:
    one, other = heard(engine, talk), heard(engine, talk)
    assert one.segments == other.segments
    assert one.activity is not None
    assert other.activity is not None
    np.testing.assert_array_equal(one.activity.scores, other.activity.scores)
    np.testing.assert_array_equal(one.activity.embeddings, other.activity.embeddings)


def test_a_chunk_that_finds_the_card_full_is_done_on_the_cpu_and_the_next_is_not(
    fresh: SpeechEngine, talk: Conversation
) -> None:
    with full_card():
        speech = heard(fresh, talk)
    assert speech.device == "cpu/int8"
    (warning,) = {warning.code: warning for warning in speech.warnings}.values()
    assert warning.code == "GPU_MEMORY_SHORT"
    assert "going on on the CPU" in warning.message
    assert text_of(speech) == text_of(heard(engine_on("cpu"), talk))
    assert_goes_on(fresh, talk)


def test_a_card_that_is_full_from_the_start_and_stays_so_is_no_end(talk: Conversation) -> None:
    with full_card():
        engine = engine_on("auto")
        engine.warm_up()
        assert [heard(engine, talk).device for _ in range(2)] == ["cpu/int8", "cpu/int8"]
    assert_goes_on(engine, talk)


def test_a_full_card_without_the_cpu_fails_the_attempt_and_the_next_one_may_work(talk: Conversation) -> None:
    engine = engine_on("cuda", cpu_fallback=False)
    engine.warm_up()
    with full_card(), pytest.raises(GpuOutOfMemory):
        heard(engine, talk)
    assert heard(engine, talk).device == "cuda/float16"


def python(*arguments: str, **environment: str) -> str:
    """The last line that a Python of its own prints."""
    full = {**os.environ, **environment}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, *arguments], env=full, cwd=root, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def test_a_lost_context_is_told_from_a_bug() -> None:
    assert python("-m", "tests.gpu.lost_context") == "BrokenGpuContext"


def test_where_no_card_is_visible_auto_is_the_cpu() -> None:
    ask = (
        "from consumer.settings import DeviceSettings; from consumer.speech.device import choose_device; "
        "print(choose_device(DeviceSettings()))"
    )
    assert python("-c", ask, CUDA_VISIBLE_DEVICES="") == "cpu/int8"
