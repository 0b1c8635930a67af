"""What keeps the transcriber's memory small on the CPU changes no result: blocks of sound, windows one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consumer.core.values import SAMPLE_RATE_HZ

pytestmark = [
    pytest.mark.models,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]

RECOGNISER = Path(__file__).parents[2] / "demo" / "models" / "tiny" / "asr"
SECONDS = [0.5, 2.0, 2.03, 5.017]
"""Less than a block, about one, and two and a half."""


def transformers_model(norm: str) -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(  # type: ignore[no-untyped-call]
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, feat_extract_norm=norm
    )
    return Wav2Vec2ForCTC(config).eval()  # type: ignore[no-untyped-call]


def torchaudio_model(norm: str) -> Any:
    from torchaudio.models import wav2vec2_model

    return wav2vec2_model(
        extractor_mode=f"{norm}_norm",
        extractor_conv_layer_config=[(64, 10, 5), *[(64, 3, 2)] * 4, *[(64, 2, 2)] * 2],
        extractor_conv_bias=True,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=2,
        encoder_num_layers=1,
        encoder_num_heads=2,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=32,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=9,
    ).eval()


def _randomised(model: Any) -> Any:
    """New normalisations multiply by one and add nothing; those of a trained model do not."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "layer_norm" in name:
                values += 0.3 * torch.randn_like(values)
    return model


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("make", [transformers_model, torchaudio_model])
def test_an_aligner_scores_sound_in_blocks_as_it_does_the_whole(make: Any, norm: str) -> None:
    import torch

    from consumer.speech.features_in_blocks import BLOCK_FRAMES, FeaturesInBlocks, save_memory

    model = _randomised(make(norm))
    sounds = [torch.randn(1, int(seconds * SAMPLE_RATE_HZ)) for seconds in SECONDS]

    def scores(sound: torch.Tensor) -> torch.Tensor:
        answer = model(sound)
        found: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer.logits
        return found

    with torch.inference_mode():
        expected = [scores(sound) for sound in sounds]
        save_memory(model)
        (blocks,) = [part for part in model.modules() if isinstance(part, FeaturesInBlocks)]
        frames: list[int] = []
        blocks._layers[-1].register_forward_hook(
            lambda _, __, found: frames.append((found[0] if isinstance(found, tuple) else found).shape[-1])
        )
        for sound, whole in zip(sounds, expected, strict=True):
            torch.testing.assert_close(scores(sound), whole, rtol=1e-5, atol=1e-5)
    assert max(frames) == BLOCK_FRAMES
    assert len(frames) > len(sounds)


def test_convolutions_of_a_kind_that_is_not_known_stay_as_they_are() -> None:
    """A normalisation over several channels needs them all at once."""
    import torch

    from consumer.speech.features_in_blocks import FeaturesInBlocks, save_memory

    model = transformers_model("group")
    encoder = model.wav2vec2.feature_extractor
    encoder.conv_layers[0].layer_norm = torch.nn.GroupNorm(4, 512)
    save_memory(model)
    assert model.wav2vec2.feature_extractor is encoder
    assert not [part for part in model.modules() if isinstance(part, FeaturesInBlocks)]


def test_windows_are_encoded_one_by_one_as_whisperx_encodes_them_together() -> None:
    from whisperx.asr import WhisperModel

    from consumer.speech.window_by_window import WindowByWindow

    settings = {"device": "cpu", "compute_type": "int8", "cpu_threads": 2, "local_files_only": True}
    theirs, ours = WhisperModel(str(RECOGNISER), **settings), WindowByWindow(str(RECOGNISER), **settings)
    features = np.random.default_rng(1).standard_normal((5, 80, 3000)).astype(np.float32)
    expected = np.array(theirs.encode(features))
    np.testing.assert_array_equal(np.array(ours.encode(features)), expected)
    np.testing.assert_array_equal(np.array(ours.encode(features[3])), expected[3:4])
