"""A model directory of base size with random weights: Whisper base, wav2vec2 base, pyannote's segmentation, ResNet34.

    python -m benchmarks.base_size_model FOLDER

Shapes are those of openai/whisper-base (74 M parameters), facebook/wav2vec2-base (95 M), pyannote/segmentation-3.0 and
pyannote/wespeaker-voxceleb-resnet34-LM. What comes out is noise, but it takes the memory and the time of speech. Random
weights would never end a window's text; a position of the decoder is tuned to say "end" after 100 tokens, about as
many as 30 seconds of fast speech have.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TINY = Path(__file__).parents[1] / "demo" / "models" / "tiny"
VOCABULARY = 51_865
LAST_TOKEN = 100
EMBEDDING_SIZE = 256


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        _recogniser(Path(work), folder / "asr")
    _aligner(folder / "align")
    _diarization(folder / "diarization")
    shutil.copytree(TINY / "nltk_data", folder / "nltk_data", dirs_exist_ok=True)
    facts = {"name": "base", "asr": "asr", "align": {"en": "align"}, "diarization": "diarization"}
    (folder / "model.json").write_text(json.dumps({**facts, "nltk_data": "nltk_data"}))


# ── recogniser ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _recogniser(source: Path, target: Path) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

    from demo.training.convert import recogniser

    torch.manual_seed(1)
    tokenizer = Tokenizer.from_str(json.dumps(_wide_vocabulary(json.loads((TINY / "asr/tokenizer.json").read_text()))))
    token = tokenizer.token_to_id
    start, end = "<|startoftranscript|>", "<|endoftext|>"
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, unk_token=end
    ).save_pretrained(source)
    shutil.copy(TINY / "asr" / "preprocessor_config.json", source)
    ends = {
        "bos_token_id": token(start),
        "eos_token_id": token(end),
        "pad_token_id": token(end),
        "decoder_start_token_id": token(start),
    }
    config = WhisperConfig(  # type: ignore[no-untyped-call]
        vocab_size=VOCABULARY,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        num_mel_bins=80,
        max_source_positions=1500,
        max_target_positions=448,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **ends,
    )
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        decoder = model.model.decoder
        # As the token of padding its vector is zero in a new network; now it has one that the last positions share.
        says_end = torch.nn.functional.normalize(torch.randn(512), dim=0)
        decoder.embed_tokens.weight[token(end)] = says_end
        decoder.embed_positions.weight[LAST_TOKEN:] += 200 * says_end
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        suppress_tokens=[],
        begin_suppress_tokens=[],
        lang_to_id={f"<|{one}|>": token(f"<|{one}|>") for one in ("en", "de", "es")},
        no_timestamps_token_id=token("<|notimestamps|>"),
        **ends,
    )
    model.save_pretrained(source)
    recogniser(source, target)


def _wide_vocabulary(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The demo's tokens with made-up words among them, up to the size of Whisper's vocabulary."""
    text: dict[str, int] = tokenizer["model"]["vocab"]
    special: list[dict[str, Any]] = tokenizer["added_tokens"]
    ordinary = min(one["id"] for one in special)
    text = {word: at for word, at in text.items() if at < ordinary}
    made_up = VOCABULARY - ordinary - len(special)
    text |= {f"Ġ{_letters(number)}": ordinary + number for number in range(made_up)}
    for one in special:
        one["id"] += made_up
    tokenizer["model"]["vocab"] = text
    return tokenizer


def _letters(number: int) -> str:
    """_letters(0) -> 'qaaaa': five letters, a word of its own for each number."""
    letters = ""
    for _ in range(4):
        number, letter = divmod(number, 26)
        letters = chr(ord("a") + letter) + letters
    return f"q{letters}"


# ── aligner ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _aligner(target: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(2)
    shutil.copytree(TINY / "align", target, dirs_exist_ok=True)
    symbols = len(json.loads((TINY / "align" / "vocab.json").read_text()))
    config = Wav2Vec2Config(vocab_size=symbols, pad_token_id=0)  # type: ignore[no-untyped-call]
    Wav2Vec2ForCTC(config).save_pretrained(target)


# ── diarization ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _diarization(target: Path) -> None:
    import torch
    import yaml
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(3)
    shutil.copytree(TINY / "diarization" / "plda", target / "plda", dirs_exist_ok=True)
    zeros, identity = np.zeros(EMBEDDING_SIZE), np.eye(EMBEDDING_SIZE)
    np.savez(target / "plda" / "xvec_transform.npz", mean1=zeros, mean2=zeros, lda=identity)
    np.savez(target / "plda" / "plda.npz", mu=zeros, tr=identity, psi=np.linspace(2, 1, EMBEDDING_SIZE))
    voices = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation = PyanNet(lstm={"num_layers": 4})
    segmentation.specifications = voices
    segmentation.build()  # type: ignore[no-untyped-call]
    _save(target / "segmentation", segmentation, voices)
    one_voice = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0)
    _save(target / "embedding", WeSpeakerResNet34(), one_voice)
    pipeline = yaml.safe_load((TINY / "diarization" / "config.yaml").read_text())
    pipeline["pipeline"]["params"]["segmentation_step"] = 0.5  # the demo's 0.2 takes 2.5 times as long and as little
    pipeline["params"]["segmentation"] = {"min_duration_off": 0.1}  # a powerset has no threshold
    (target / "config.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))


def _save(folder: Path, model: Any, specifications: Any) -> None:
    import pyannote.audio
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    made_of = {"module": type(model).__module__, "class": type(model).__name__}
    versions = {"pyannote.audio": pyannote.audio.__version__}
    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "hparams_name": "kwargs",
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": importlib.metadata.version("pytorch-lightning"),
            "pyannote.audio": {"versions": versions, "architecture": made_of, "specifications": specifications},
        },
        folder / "pytorch_model.bin",
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
