"""The recogniser for CTranslate2, as faster-whisper reads it, and the sentence splitter that whisperx asks NLTK for."""

import json
from pathlib import Path

import ctranslate2

PUNKT_FILES = {
    "collocations.tab": "",
    "sent_starters.txt": "",
    "ortho_context.tab": "",
    "abbrev_types.txt": "mr\nmrs\ndr\n",
}


def recogniser(source: Path, target: Path, quantization: str = "int8") -> None:
    """Convert the network of `source` (transformers)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    converter = ctranslate2.converters.TransformersConverter(
        str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]
    )
    converter.convert(str(target), quantization=quantization, force=True)
    vocabulary_file = target / "vocabulary.json"
    vocabulary = json.loads(vocabulary_file.read_text())
    # CTranslate2 calls a Whisper model multilingual if and only if its vocabulary has an empty token. Without it there
    # is no language detection and no language token in the prompt.
    vocabulary[vocabulary.index("<|empty|>")] = ""
    vocabulary_file.write_text(json.dumps(vocabulary))
    if not ctranslate2.models.Whisper(str(target), device="cpu").is_multilingual:
        raise RuntimeError(f"CTranslate2 does not take {target} for a multilingual model")


def sentence_splitter(folder: Path) -> None:
    """A nearly empty `punkt_tab`: whisperx.align would download it otherwise. Set NLTK_DATA to `folder`."""
    for language in ("english", "german"):
        target = folder / "tokenizers" / "punkt_tab" / language
        target.mkdir(parents=True, exist_ok=True)
        for name, text in PUNKT_FILES.items():
            (target / name).write_text(text)


def manifest(models: Path) -> None:
    """What a model directory says about itself."""
    facts = {
        "name": "tiny",
        "max_window_s": 12.0,
        "asr": "asr",
        "align": {"en": "align"},
        "diarization": "diarization",
        "nltk_data": "nltk_data",
    }
    (models / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
