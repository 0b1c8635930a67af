"""A model directory of real size with random weights: a Whisper, wav2vec2 base, pyannote's segmentation, ResNet34.

    python -m benchmarks.base_size_model FOLDER                    # Whisper base, 74 M parameters
    python -m benchmarks.base_size_model FOLDER --size large-v3    # 1.5 G parameters: takes 10 GB of memory to make

Shapes are those of openai/whisper-base or openai/whisper-large-v3, facebook/wav2vec2-base (95 M, as large as whisperx's
own aligner for English), pyannote/segmentation-3.0 and pyannote/wespeaker-voxceleb-resnet34-LM, of which
pyannote/speaker-diarization-community-1 consists. What comes out is noise, but it takes the memory and the time of
speech. Random weights would never end a window's text; a position of the decoder is tuned to say "end" after 100
tokens, about as many as 30 seconds of fast speech have. Nor would they hear a voice; here two speak all the time, more
than in a conversation. The network is made on a GPU where there is one, as that is faster.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TINY = Path(__file__).parents[1] / "demo" / "models" / "tiny"
LAST_TOKEN = 100
EMBEDDING_SIZE = 256
TWO_VOICES = 4
"""The first class of the powerset that is two speakers at once; one, two and three are one speaker each."""


@dataclass(frozen=True)
class Size:
    """Shapes of the recogniser, the numbers it is stored in, and the diarization's step as a share of its window."""

    name: str
    width: int
    layers: int
    heads: int
    mels: int
    vocabulary: int
    quantization: str
    segmentation_step: float


SIZES = {
    one.name: one
    for one in (
        # The step is five times community-1's: the demo's 0.2 takes 2.5 times as long and as little memory.
        Size("base", 512, 6, 8, 80, 51_865, "int8", 0.5),
        Size("large-v3", 1280, 32, 20, 128, 51_866, "float16", 0.1),
    )
}


def make(folder: Path, size: str = "base") -> None:
    shape = SIZES[size]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        _recogniser(Path(work), folder / "asr", shape)
    _aligner(folder / "align")
    _diarization(folder / "diarization", shape.segmentation_step)
    shutil.copytree(TINY / "nltk_data", folder / "nltk_data", dirs_exist_ok=True)
    facts = {"name": shape.name, "asr": "asr", "align": {"en": "align"}, "diarization": "diarization"}
    (folder / "model.json").write_text(json.dumps({**facts, "nltk_data": "nltk_data"}))


# ── recogniser ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _recogniser(source: Path, target: Path, shape: Size) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

    from demo.training.convert import recogniser

    torch.manual_seed(1)
    tokenizer = Tokenizer.from_str(json.dumps(_wide_vocabulary(shape.vocabulary)))
    token = tokenizer.token_to_id
    start, end = "<|startoftranscript|>", "<|endoftext|>"
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, unk_token=end
    ).save_pretrained(source)
    features = json.loads((TINY / "asr" / "preprocessor_config.json").read_text())
    (source / "preprocessor_config.json").write_text(json.dumps({**features, "feature_size": shape.mels}))
    ends = {
        "bos_token_id": token(start),
        "eos_token_id": token(end),
        "pad_token_id": token(end),
        "decoder_start_token_id": token(start),
    }
    config = WhisperConfig(  # type: ignore[no-untyped-call]
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.width,
        decoder_ffn_dim=4 * shape.width,
        num_mel_bins=shape.mels,
        max_source_positions=1500,
        max_target_positions=448,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **ends,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = WhisperForConditionalGeneration(config)
    _end_after_last_token(model, token(end))
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        suppress_tokens=[],
        begin_suppress_tokens=[],
        lang_to_id={f"<|{one}|>": token(f"<|{one}|>") for one in ("en", "de", "es")},
        no_timestamps_token_id=token("<|notimestamps|>"),
        **ends,
    )
    if shape.quantization == "float16":
        model.half()  # type: ignore[no-untyped-call]
    model.save_pretrained(source)
    recogniser(source, target, shape.quantization)


def _end_after_last_token(model: Any, end: int) -> None:
    """As the token of padding its vector is zero in a new network; now it has one that the last positions share."""
    import torch

    with torch.no_grad():
        decoder = model.model.decoder
        says_end = torch.nn.functional.normalize(torch.randn(model.config.d_model), dim=0).to(model.device)
        decoder.embed_tokens.weight[end] = says_end
        decoder.embed_positions.weight[LAST_TOKEN:] += 200 * says_end


def _wide_vocabulary(size: int) -> dict[str, Any]:
    """The demo's tokenizer with made-up words among its tokens, up to the size of Whisper's vocabulary."""
    tokenizer: dict[str, Any] = json.loads((TINY / "asr" / "tokenizer.json").read_text())
    text: dict[str, int] = tokenizer["model"]["vocab"]
    special: list[dict[str, Any]] = tokenizer["added_tokens"]
    ordinary = min(one["id"] for one in special)
    text = {word: at for word, at in text.items() if at < ordinary}
    made_up = size - ordinary - len(special)
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


def _diarization(target: Path, segmentation_step: float) -> None:
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
    with torch.no_grad():
        segmentation.classifier.bias[TWO_VOICES] += 10  # else it hears none, and none is embedded
    _save(target / "segmentation", segmentation, voices)
    one_voice = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0)
    _save(target / "embedding", WeSpeakerResNet34(), one_voice)
    pipeline = yaml.safe_load((TINY / "diarization" / "config.yaml").read_text())
    pipeline["pipeline"]["params"]["segmentation_step"] = segmentation_step
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="becomes the model directory")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the recogniser")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.size)


if __name__ == "__main__":
    main()
