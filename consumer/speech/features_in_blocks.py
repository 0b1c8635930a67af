"""wav2vec2's convolutions over a few seconds of sound at a time: the same features in a tenth of the memory.

The first convolution turns each second of sound into 6.5 MB (512 channels, 3,200 frames), and several such tensors
live at once: 0.6 GB for a window of 30 s. A frame of the last one depends on 25 ms of sound only, so the window goes
through all of them block by block. One layer looks at the whole window: the group normalisation behind the first
convolution of models of base size. Its mean and deviation are taken before, for a few channels at a time.

The blocks stay in the processor's cache, so this is faster too. Imports torch: for import where a model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
import torchaudio.models.wav2vec2.components as torchaudio_parts
from torch import Tensor, nn
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

BLOCK_FRAMES = 100
"""Frames of the last layer in a block: 2 s, of which the first convolution makes 13 MB."""
CHANNELS_AT_ONCE = 32
"""Channels whose mean and deviation are taken together, over the whole window: 12 MB each for 30 s."""


def save_memory(model: nn.Module) -> None:
    """Let the model's convolutions run in blocks, where they are of a kind that is known here; else change nothing."""
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if type(part) is Wav2Vec2FeatureEncoder and _can_be_cut(part):
                setattr(parent, name, FeaturesInBlocks(part))
            elif type(part) is torchaudio_parts.FeatureExtractor and _can_be_cut(part):
                setattr(parent, name, TorchaudioFeaturesInBlocks(part))


class FeaturesInBlocks(nn.Module):
    """Stands for transformers' feature encoder, (n, samples) to (n, channels, frames)."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole
        self._layers: list[Any] = list(_layers(whole))
        self._step, self._field = 1, 1  # samples from one frame to the next, and samples that a frame depends on
        for layer in self._layers:
            self._field += (layer.conv.kernel_size[0] - 1) * self._step
            self._step *= layer.conv.stride[0]

    def forward(self, sound: Tensor) -> Tensor:
        frames = (sound.shape[-1] - self._field) // self._step + 1
        if frames <= BLOCK_FRAMES:
            features: Tensor = self.whole(sound)
            return features
        sound = sound[:, None]
        norm = _first_norm(self._layers[0])
        scale_and_shift = _scale_and_shift(sound, self._layers[0].conv, norm) if norm is not None else None
        found = []
        for start in range(0, frames, BLOCK_FRAMES):
            last = min(start + BLOCK_FRAMES, frames) - 1
            found.append(self._block(sound[..., start * self._step : last * self._step + self._field], scale_and_shift))
        return torch.cat(found, dim=-1)

    def _block(self, sound: Tensor, scale_and_shift: tuple[Tensor, Tensor] | None) -> Tensor:
        first, *others = self._layers
        if scale_and_shift is None:
            values = self._run(first, sound)
        else:
            scale, shift = scale_and_shift
            values = self._activated(first, torch.addcmul(shift, first.conv(sound), scale))  # as the norm rounds it
        for layer in others:
            values = self._run(layer, values)
        return values

    def _run(self, layer: Any, values: Tensor) -> Tensor:
        found: Tensor = layer(values)
        return found

    def _activated(self, layer: Any, values: Tensor) -> Tensor:
        found: Tensor = layer.activation(values)
        return found


class TorchaudioFeaturesInBlocks(FeaturesInBlocks):
    """Stands for torchaudio's feature extractor, whose layers also count lengths: (n, frames, channels), lengths."""

    def forward(self, sound: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        if lengths is not None or sound.shape[-1] < self._field + BLOCK_FRAMES * self._step:
            found: tuple[Tensor, Tensor | None] = self.whole(sound, lengths)
            return found
        return super().forward(sound).transpose(1, 2), None

    def _run(self, layer: Any, values: Tensor) -> Tensor:
        found: Tensor = layer(values, None)[0]
        return found

    def _activated(self, _: Any, values: Tensor) -> Tensor:
        return nn.functional.gelu(values)


def _layers(part: nn.Module) -> Any:
    return part.conv_layers


def _first_norm(layer: Any) -> nn.GroupNorm | None:
    norm = getattr(layer, "layer_norm", None)
    return norm if isinstance(norm, nn.GroupNorm) else None


def _can_be_cut(part: nn.Module) -> bool:
    """No layer may look at the whole window but the first, and that one at each channel by itself."""
    first, *others = _layers(part)
    norm = _first_norm(first)
    by_channel = norm is None or (norm.affine and norm.num_groups == norm.num_channels)
    plain = all(layer.conv.padding == (0,) and layer.conv.dilation == (1,) for layer in (first, *others))
    return by_channel and plain and all(_first_norm(layer) is None for layer in others)


def _scale_and_shift(sound: Tensor, conv: nn.Conv1d, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """What the normalisation multiplies each channel by and then adds, from the whole window; (n, channels, 1) both."""
    means, inverse_deviations = [], []
    for start in range(0, conv.out_channels, CHANNELS_AT_ONCE):
        some = slice(start, start + CHANNELS_AT_ONCE)
        bias = None if conv.bias is None else conv.bias[some]
        values = nn.functional.conv1d(sound, conv.weight[some], bias, conv.stride)
        _, mean, inverse_deviation = torch.native_group_norm(
            values, None, None, values.shape[0], values.shape[1], values.shape[2], values.shape[1], norm.eps
        )
        means.append(mean)
        inverse_deviations.append(inverse_deviation)
    scale = torch.cat(inverse_deviations, dim=1) * norm.weight
    shift = norm.bias - scale * torch.cat(means, dim=1)
    return scale[..., None], shift[..., None]
