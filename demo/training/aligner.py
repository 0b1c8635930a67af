"""The training of the word aligner: a small wav2vec2 with CTC, for `whisperx.load_align_model`.

The loss is CTC and, beside it, one character per frame at the true word times, in the frame numbering that whisperx
uses (frame times duration / frames). CTC alone is free to shift its peaks.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from demo.training.corpus import Corpus
from demo.training.progress import Progress
from demo.training.resumable import SAVE_EVERY, TrainingState, prefetch
from demo.training.speech import SAMPLE_RATE_HZ, Word
from demo.training.windows import Mix, compose

LAST = 1200
BANDS = 48
MARKS = ".,?"
# With punctuation, since whisperx keeps it in the words and treats symbols that the model lacks as wildcards; sentence
# ends drift then.
SYMBOLS = ["<pad>", "<unk>", "|", "'"] + [chr(ord("a") + i) for i in range(26)] + list(MARKS)
IDS = {symbol: i for i, symbol in enumerate(SYMBOLS)}
SPACE = IDS["|"]
_FOLDED = str.maketrans({"ä": "a", "ö": "o", "ü": "u", "ß": "s"})


def symbol_labels(text: str) -> list[int]:
    folded = " ".join(text.lower().translate(_FOLDED).split())
    return [SPACE if c == " " else IDS[c] for c in folded if c == " " or c in IDS]


def frame_labels(words: tuple[Word, ...], frames: int, length_s: float) -> list[int]:
    """One frame for each character, (frames,): a word's first at its start, the space at its end; else the blank."""
    labels = [0] * frames

    def put(at_s: float, symbol: int) -> None:
        labels[min(frames - 1, max(0, round(at_s / length_s * frames)))] = symbol

    for word in words:  # first, so that letters of the next word win over the space between
        put(word.end_s + (0.02 if word.text[-1] in MARKS else 0), SPACE)
    for word in words:
        symbols = [c for c in word.text.lower() if c in IDS]
        letters = [c for c in symbols if c not in MARKS]
        if symbols and symbols[-1] in MARKS:
            put(word.end_s, IDS[symbols[-1]])
        for j in reversed(range(len(letters))):
            put(word.start_s + (word.end_s - word.start_s) * j / len(letters), IDS[letters[j]])
    return labels


def build() -> Wav2Vec2ForCTC:
    """Two convolutions (a frame every 20 ms) and three layers of 112; 0.55 million parameters."""
    config = Wav2Vec2Config(  # type: ignore[no-untyped-call]
        vocab_size=len(SYMBOLS),
        hidden_size=112,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=336,
        conv_dim=(4 * BANDS, 128),
        conv_kernel=(240, 2),
        conv_stride=(160, 2),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        hidden_dropout=0,
        activation_dropout=0,
        attention_dropout=0,
        feat_proj_dropout=0,
        final_dropout=0,
        layerdrop=0,
        apply_spec_augment=False,
        pad_token_id=0,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
    )
    model = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        first: Any = model.wav2vec2.feature_extractor.conv_layers[0]
        first.conv.weight.copy_(_filter_bank())
    return model


def _filter_bank() -> Tensor:
    """Where the first convolution starts, so that 1,200 steps need not find it: windowed cosines and sines of both
    signs at mel-spaced frequencies, (4 * BANDS, 1, 240)."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    hz = 700 * (10 ** (np.linspace(mel(70), mel(7200), BANDS) / 2595) - 1)
    phase = 2 * np.pi * hz[:, None] * np.arange(240)[None] / SAMPLE_RATE_HZ
    envelope = np.hanning(242)[1:-1] * (hz[:, None] / 500) ** 0.5 * 0.05
    waves = [np.cos(phase), -np.cos(phase), np.sin(phase), -np.sin(phase)]
    filters = np.concatenate([wave * envelope for wave in waves])
    return torch.from_numpy(filters)[:, None].float()


@dataclass(frozen=True)
class Batch:
    samples: Tensor
    """(batch, n_samples)."""
    symbols: Tensor
    symbol_counts: Tensor
    frames: Tensor
    """(batch, frames), symbol of each frame."""
    timed: Tensor
    """(batch,), whether the word times are known."""


def make_batch(corpus: Corpus, model: Wav2Vec2ForCTC, done: float, step: int) -> Batch:
    """The batch of a step; `done` is the share of the training behind it. Short windows first."""
    r = random.Random(1_000_003 * 11 + step)
    batch, length_s = (20, 3.0) if done < 0.35 else (12, 6.0)
    length_s = round(length_s * r.uniform(0.7, 1.2), 2)
    n_frames = int(model._get_feat_extract_output_lengths(int(length_s * SAMPLE_RATE_HZ)))
    windows = [compose(corpus, length_s, r, Mix(german=0, no_speech=0.02)) for _ in range(batch)]
    symbols = [symbol_labels(window.text) for window in windows]
    return Batch(
        samples=torch.from_numpy(np.stack([window.samples for window in windows])),
        symbols=torch.tensor([label for line in symbols for label in line], dtype=torch.long),
        symbol_counts=torch.tensor([len(line) for line in symbols]),
        frames=torch.tensor([frame_labels(window.words or (), n_frames, length_s) for window in windows]),
        timed=torch.tensor([window.words is not None for window in windows]),
    )


def losses(model: Wav2Vec2ForCTC, batch: Batch) -> tuple[Tensor, Tensor]:
    """CTC, and the cross-entropy of the frames."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch.samples).logits
    log_probabilities = functional.log_softmax(logits.float(), -1)
    n, frames, _ = log_probabilities.shape
    ctc = functional.ctc_loss(
        log_probabilities.transpose(0, 1),
        batch.symbols,
        torch.full((n,), frames),
        batch.symbol_counts,
        zero_infinity=True,
    )
    if not batch.timed.any():
        return ctc, torch.zeros(())
    framewise = functional.nll_loss(log_probabilities[batch.timed].flatten(0, 1), batch.frames[batch.timed].flatten())
    return ctc, framewise


def learning_rate(step: int, last: int) -> float:
    return 2e-3 * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / last)) + 1e-5


def train(corpus: Corpus, state_file: Path, folder: Path, last: int = LAST) -> None:
    """Train, or go on, and write the model for whisperx to `folder`."""
    torch.manual_seed(0)
    model = build()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    state = TrainingState(state_file, model=model, optimizer=optimizer)
    first = state.restore()
    progress = Progress("aligner", last)
    made = prefetch(lambda step: make_batch(corpus, model, step / last, step), first, last)
    for step, batch in enumerate(made, first):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, last)
        ctc, framewise = losses(model, batch)
        loss = ctc + (1.0 if step < 0.6 * last else 0.6) * framewise
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.step(step + 1, ctc=ctc.item(), frames=framewise.item())
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == last:
            state.save(step + 1)
    save(model, folder)


def save(model: Wav2Vec2ForCTC, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(IDS))
    names = ("pad", "unk", "word_delimiter", "bos", "eos")
    symbols = (*SYMBOLS[:3], None, None)
    marks = {f"{name}_token": symbol for name, symbol in zip(names, symbols, strict=True)}
    vocabulary = str(folder / "vocab.json")
    tokenizer = Wav2Vec2CTCTokenizer(vocabulary, do_lower_case=True, **marks)  # type: ignore[no-untyped-call]
    features = Wav2Vec2FeatureExtractor(do_normalize=False)  # type: ignore[no-untyped-call]
    Wav2Vec2Processor(features, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
