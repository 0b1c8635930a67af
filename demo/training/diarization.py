"""The directory of the diarization pipeline: segmentation, speaker embedding, clustering, for pyannote.audio 4.

pyannote imports the class of a checkpoint by the name of its module. Ours is `tiny_xvector`, a file that lies beside
the models, so that the models can be used where this package is not: its folder has to be on sys.path.
"""

import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyannote.audio
import torch
import whisperx
import yaml
from pyannote.audio import Model
from pyannote.audio.core.task import Problem, Resolution, Specifications

CLASS_FILE = Path(__file__).parents[1] / "models" / "tiny" / "diarization" / "tiny_xvector.py"
if str(CLASS_FILE.parent) not in sys.path:
    sys.path.append(str(CLASS_FILE.parent))

from tiny_xvector import TinyXVector as TinyXVector  # noqa: E402  (found through the line above)

DIMENSION = 64

PIPELINE = {
    "dependencies": {"pyannote.audio": "4.0.0"},
    "pipeline": {
        "name": "pyannote.audio.pipelines.SpeakerDiarization",
        "params": {
            "segmentation": "$model/segmentation",  # $model is the directory that is given as the model's name
            "embedding": "$model/embedding",
            "plda": "$model/plda",
            "clustering": "AgglomerativeClustering",
            "segmentation_step": 0.2,  # half the work of pyannote's 0.1
            "segmentation_batch_size": 32,
            "embedding_batch_size": 32,
            "embedding_exclude_overlap": True,
        },
    },
    # Chosen on conversations of the seeds 100 to 105, which are not those of the evaluation.
    "params": {
        "segmentation": {"threshold": 0.6, "min_duration_off": 0.1},
        "clustering": {"method": "centroid", "min_cluster_size": 6, "threshold": 0.8},
    },
}


def save(embedding: TinyXVector, folder: Path) -> None:
    for part in ("segmentation", "embedding", "plda"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    specifications = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0)
    _save_checkpoint(folder / "embedding" / "pytorch_model.bin", embedding, specifications)
    _save_segmentation(folder / "segmentation" / "pytorch_model.bin")
    _save_plda(folder / "plda")
    (folder / "config.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    if folder.resolve() != CLASS_FILE.parent:
        shutil.copyfile(CLASS_FILE, folder / CLASS_FILE.name)


def _save_segmentation(path: Path) -> None:
    """WhisperX ships these weights for its voice-activity detection; as float16 and without the optimizer's state
    they take 3 MB instead of 18."""
    shipped = Path(whisperx.__file__).parent / "assets" / "pytorch_model.bin"
    model = Model.from_pretrained(str(shipped))
    if model is None:
        raise FileNotFoundError(f"whisperx has no segmentation weights at {shipped}")
    _save_checkpoint(path, model.half(), model.specifications)


def _save_plda(folder: Path) -> None:
    """pyannote 4 loads a PLDA also when its clustering uses none; an identity keeps it from asking the network."""
    zeros, identity = np.zeros(DIMENSION), np.eye(DIMENSION)
    np.savez(folder / "xvec_transform.npz", mean1=zeros, mean2=zeros, lda=identity)
    np.savez(folder / "plda.npz", mu=zeros, tr=identity, psi=np.linspace(2, 1, DIMENSION))


def _save_checkpoint(path: Path, model: Model, specifications: Any) -> None:
    architecture = {"module": type(model).__module__, "class": type(model).__name__}
    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "hparams_name": "kwargs",
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": importlib.metadata.version("pytorch-lightning"),
            "pyannote.audio": {
                "versions": {"pyannote.audio": pyannote.audio.__version__},
                "architecture": architecture,
                "specifications": specifications,
            },
        },
        path,
    )
