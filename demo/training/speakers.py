"""The training of the speaker embedding, on all voices but the ten demo variants.

Additive-margin softmax (Wang et al. 2018, arXiv:1801.05599) over the training speakers: what comes out of it tells
voices apart that were never in the training, and that is what diarization needs.
"""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.training.corpus import Corpus, Utterance
from demo.training.diarization import TinyXVector
from demo.training.progress import Progress
from demo.training.resumable import SAVE_EVERY, TrainingState, prefetch
from demo.training.speech import SAMPLE_RATE_HZ, Samples
from demo.training.voices import DEMO_VARIANTS, FIRST_FLITE_ID, VARIANTS
from demo.training.windows import noise

LAST = 800
BATCH = 64
SCALE, MARGIN = 20, 0.15


def training_speakers(corpus: Corpus) -> list[list[Utterance]]:
    """The utterances of each speaker whose variant is not a demo variant."""
    by_speaker: dict[int, list[Utterance]] = {}
    for utterance in corpus.english:
        variant = utterance.speaker % len(VARIANTS)
        if utterance.speaker >= FIRST_FLITE_ID or variant < len(VARIANTS) - len(DEMO_VARIANTS):
            by_speaker.setdefault(utterance.speaker, []).append(utterance)
    return [by_speaker[speaker] for speaker in sorted(by_speaker)]


class Classifier(nn.Module):
    """The embedding, and a direction for each training speaker."""

    def __init__(self, n_speakers: int) -> None:
        super().__init__()
        self.embedding = TinyXVector()
        self.directions = nn.Parameter(torch.randn(n_speakers, self.embedding.dimension))

    def forward(self, samples: Tensor) -> Tensor:
        """Cosines (batch, n_speakers) of samples (batch, 1, n_samples)."""
        cosines: Tensor = functional.normalize(self.embedding(samples)) @ functional.normalize(self.directions).T
        return cosines


def make_batch(corpus: Corpus, speakers: list[list[Utterance]], step: int) -> tuple[Tensor, Tensor]:
    """Pieces of 0.8 to 2.5 s, (BATCH, 1, n_samples), and who speaks, (BATCH,)."""
    r = random.Random(1_000_003 * 5 + step)
    n = int(r.uniform(0.8, 2.5) * SAMPLE_RATE_HZ)
    who = [r.randrange(len(speakers)) for _ in range(BATCH)]
    pieces = [_piece(corpus, speakers[k], n, r) for k in who]
    return torch.from_numpy(np.stack(pieces))[:, None], torch.tensor(who)


def _piece(corpus: Corpus, utterances: list[Utterance], n: int, r: random.Random) -> Samples:
    samples = np.zeros(0, np.float32)
    while len(samples) < n:
        samples = np.concatenate([samples, corpus.samples(r.choice(utterances))])
    first = r.randrange(len(samples) - n + 1)
    piece = samples[first : first + n] * 10 ** r.uniform(-0.5, 0.3)
    if r.random() < 0.7:
        piece = piece + noise(n, r) * 10 ** r.uniform(-4.2, -2.2)
    return piece.astype(np.float32)


def learning_rate(step: int, last: int) -> float:
    return 3e-3 * min(1, (step + 1) / 50) * (1 - step / last) + 1e-5


def train(corpus: Corpus, state_file: Path, last: int = LAST) -> TinyXVector:
    """Train, or go on; returns the embedding."""
    torch.manual_seed(0)
    speakers = training_speakers(corpus)
    network = Classifier(len(speakers))
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    state = TrainingState(state_file, network=network, optimizer=optimizer)
    first = state.restore()
    progress = Progress(f"speakers ({len(speakers)})", last)
    made = prefetch(lambda step: make_batch(corpus, speakers, step), first, last)
    for step, (samples, who) in enumerate(made, first):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, last)
        cosines = network(samples)
        loss = functional.cross_entropy(SCALE * (cosines - MARGIN * functional.one_hot(who, len(speakers))), who)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress.step(step + 1, loss=loss.item(), accuracy=(cosines.argmax(1) == who).float().mean().item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == last:
            state.save(step + 1)
    return network.embedding.eval()
