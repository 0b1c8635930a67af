"""A small x-vector for pyannote.audio: log-mel bands, a time-delay network, statistics pooling.

A checkpoint names its class by module, so this file has to be importable, as `tiny_xvector`, in every process that
diarizes with this model: put its folder on sys.path.
"""

from typing import Any

import torch
from pyannote.audio.core.model import Model
from pyannote.audio.models.blocks.pooling import StatsPool
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram


class TinyXVector(Model):
    """Source: Snyder et al. 2018, "X-vectors: robust DNN embeddings for speaker recognition"; smaller."""

    def __init__(
        self,
        sample_rate: int = 16000,
        num_channels: int = 1,
        n_mels: int = 48,
        channels: int = 128,
        dimension: int = 64,
        task: Any = None,
    ) -> None:
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        self.save_hyperparameters("n_mels", "channels", "dimension")
        self.mel = MelSpectrogram(sample_rate, n_fft=512, win_length=400, hop_length=160, n_mels=n_mels, f_min=50)
        layers: list[nn.Module] = []
        n_in = n_mels
        for n_out, kernel, dilation in _shapes(channels):
            padding = dilation * (kernel - 1) // 2
            layers += [nn.Conv1d(n_in, n_out, kernel, dilation=dilation, padding=padding), nn.ReLU()]
            layers += [nn.BatchNorm1d(n_out)]
            n_in = n_out
        self.tdnn = nn.Sequential(*layers)
        self.pool = StatsPool()
        self.embedding = nn.Linear(2 * n_in, dimension)

    @property
    def dimension(self) -> int:
        return int(self.hparams["dimension"])

    def forward(self, waveforms: Tensor, weights: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Embeddings (batch, dimension) of samples (batch, 1, n_samples), weighted by frame if asked."""
        x = torch.log(self.mel(waveforms.squeeze(1)) + 1e-6)
        x = (x - x.mean(dim=(1, 2), keepdim=True)) / 3.0  # takes the gain away and keeps the timbre
        pooled = self.pool(self.tdnn(x), weights=weights)
        embedding: Tensor = self.embedding(pooled)
        return embedding


def _shapes(channels: int) -> list[tuple[int, int, int]]:
    """Channels, kernel and dilation of each layer."""
    return [(channels, 5, 1), (channels, 3, 2), (channels, 3, 3), (channels, 1, 1), (2 * channels, 1, 1)]
