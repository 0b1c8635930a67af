"""The recogniser's network: a Whisper of 3 + 2 layers, 128 wide, with its tokens, and a faster way to train it.

Source: Radford et al. 2022 (arXiv:2212.04356); the weights are those of `transformers`, the forward pass is ours.
"""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from demo.training import grammar

WIDTH, HEADS, HEAD_WIDTH = 128, 4, 32
ENCODER_LAYERS, DECODER_LAYERS, FEED_FORWARD = 3, 2, 512
N_MELS, N_TEXT_TOKENS = 80, 900
POSITIONS_PER_S = 50
N_POSITIONS = 30 * POSITIONS_PER_S  # 1500, of the 30-s window that WhisperX pads every window to
PADDING_POSITIONS = 5
"""`encode` gets the window and this much of the padding behind it."""
START, END = "<|startoftranscript|>", "<|endoftext|>"
LANGUAGES = ["en", "de", "es"]

Head = tuple[int, int]
"""Decoder layer and head."""


def make_tokenizer(folder: Path) -> Tokenizer:
    """Byte-level BPE over the grammar, written to `folder` with the settings of the features.

    WhisperX wants the tokens in this order: text below <|endoftext|> (all others are dropped), timestamps last.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TEXT_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    # Becomes "" in CTranslate2's vocabulary, which calls a model multilingual if and only if it has an empty token.
    tokenizer.add_special_tokens(["<|empty|>"])
    tokenizer.add_special_tokens(
        [END, START]
        + [f"<|{language}|>" for language in LANGUAGES]
        + [
            "<|translate|>",
            "<|transcribe|>",
            "<|startoflm|>",
            "<|startofprev|>",
            "<|nospeech|>",
            "<|notimestamps|>",
        ]
        + [f"<|{i * 0.02:.2f}|>" for i in range(N_POSITIONS + 1)]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, unk_token=END
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_FEATURES))
    return tokenizer


_FEATURES = {
    "feature_size": N_MELS,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "sampling_rate": 16_000,
    "padding_value": 0.0,
    "return_attention_mask": False,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
}


def _sentences() -> list[str]:
    r = random.Random(7)
    sentences = [" " + grammar.english(r) for _ in range(60_000)] + [" " + grammar.german(r) for _ in range(8_000)]
    return sentences + [" " + " ".join(sentence.split()[1:]) for sentence in sentences[:20_000]]


def build(tokenizer: Tokenizer) -> WhisperForConditionalGeneration:
    """A network with random weights for these tokens."""
    token = tokenizer.token_to_id
    ends = {
        "bos_token_id": token(START),
        "eos_token_id": token(END),
        "pad_token_id": token(END),
        "decoder_start_token_id": token(START),
    }
    config = WhisperConfig(  # type: ignore[no-untyped-call]
        vocab_size=tokenizer.get_vocab_size(),
        d_model=WIDTH,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=DECODER_LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=FEED_FORWARD,
        decoder_ffn_dim=FEED_FORWARD,
        num_mel_bins=N_MELS,
        max_source_positions=N_POSITIONS,
        max_target_positions=448,
        dropout=0.0,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **ends,
    )
    model = WhisperForConditionalGeneration(config)
    # The default lists of suppressed tokens name ids that do not exist here.
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        suppress_tokens=[],
        begin_suppress_tokens=[],
        lang_to_id={f"<|{language}|>": token(f"<|{language}|>") for language in LANGUAGES},
        no_timestamps_token_id=token("<|notimestamps|>"),
        **ends,
    )
    return model


def encode(model: WhisperForConditionalGeneration, mel: Tensor, thinning: int) -> tuple[Tensor, int, Tensor | None]:
    """Encoder states (batch, positions, WIDTH), how many positions are the window, attention mask.

    `mel`, (batch, N_MELS, frames), is the window and 10 frames of its padding. The rest of the padding up to 30 s is
    constant behind the convolutions, so only every `thinning`-th position of it is kept, with log(thinning) added to
    its attention scores: the same result in expectation for a fifth of the work.
    """
    encoder = model.model.encoder
    hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
    n = hidden.shape[1] - PADDING_POSITIONS
    places = encoder.embed_positions.weight
    x, mask = hidden[:, :n] + places[:n], None
    if n < N_POSITIONS - 10:
        kept = torch.arange(n + random.randrange(thinning), N_POSITIONS, thinning)
        padding = hidden[:, n + 2 : n + 3] + places[kept]
        x = torch.cat([x, padding], 1)
        mask = torch.zeros(1, 1, 1, x.shape[1])
        mask[..., n:] = math.log(thinning)
    for layer in encoder.layers:
        x = x + _attend(layer.self_attn, layer.self_attn_layer_norm(x), mask=mask)
        x = x + _feed_forward(layer, x)
    return encoder.layer_norm(x), n, mask


def decode(
    model: WhisperForConditionalGeneration,
    tokens: Tensor,
    encoded: Tensor,
    mask: Tensor | None,
    heads: Sequence[Head] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Logits (batch, tokens, vocabulary) and, of the `heads`, the attention (batch, tokens, positions)."""
    decoder = model.model.decoder
    maps = []
    x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[: tokens.shape[1]]
    for n, layer in enumerate(decoder.layers):
        x = x + _attend(layer.self_attn, layer.self_attn_layer_norm(x), causal=True)
        query = layer.encoder_attn_layer_norm(x)
        maps += [_attention(layer.encoder_attn, k, query, encoded, mask) for depth, k in heads if depth == n]
        x = x + _attend(layer.encoder_attn, query, encoded, mask)
        x = x + _feed_forward(layer, x)
    return decoder.layer_norm(x) @ decoder.embed_tokens.weight.T, maps


def _feed_forward(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x))))
    return out


def _attend(
    attention: Any,
    x: Tensor,
    source: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Attention of x to `source` (to itself without one), both (batch, n, WIDTH)."""
    source = x if source is None else source

    def by_head(y: Tensor) -> Tensor:
        return y.view(y.shape[0], -1, HEADS, HEAD_WIDTH).transpose(1, 2)

    q, k, v = attention.q_proj(x), attention.k_proj(source), attention.v_proj(source)
    mixed = functional.scaled_dot_product_attention(
        by_head(q), by_head(k), by_head(v), attn_mask=mask, is_causal=causal
    )
    out: Tensor = attention.out_proj(mixed.transpose(1, 2).reshape(x.shape))
    return out


def _attention(attention: Any, head: int, query: Tensor, encoded: Tensor, mask: Tensor | None) -> Tensor:
    """The attention of one head, which `_attend` computes without showing it."""
    part = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
    q = functional.linear(query, attention.q_proj.weight[part], attention.q_proj.bias[part])
    k = functional.linear(encoded, attention.k_proj.weight[part])
    scores = (q @ k.transpose(1, 2)).float() * HEAD_WIDTH**-0.5
    weights: Tensor = (scores if mask is None else scores + mask[0]).softmax(-1)
    return weights
