"""The segmentation model that whisperx brings for its voice-activity detection, as a scorer of sliding windows."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from consumer.core.values import SAMPLE_RATE_HZ
from consumer.errors import MissingModel

if TYPE_CHECKING:
    from pyannote.audio import Inference


def model_file() -> Path:
    """The weights inside the installed whisperx, found without importing it. Raises MissingModel."""
    package = importlib.util.find_spec("whisperx")
    for place in (package.submodule_search_locations or []) if package else []:
        path = Path(place, "assets", "pytorch_model.bin")
        if path.is_file():
            return path
    raise MissingModel("whisperx with its voice-activity model is not installed; install the extra 'speech'")


class PyannoteScorer:
    """`FrameScorer` over pyannote's `Inference`: same steps, same batches, the loudest of its local speakers."""

    def __init__(self, inference: Inference) -> None:
        audio, frames = inference.model.audio, inference.model.receptive_field
        self._inference = inference
        self.window_samples: int = audio.get_num_samples(inference.duration)
        self.step_samples: int = round(inference.step * SAMPLE_RATE_HZ)
        self.window_s: float = inference.duration
        self.step_s: float = inference.step
        self.frame_s: float = frames.duration
        self.frame_step_s: float = frames.step
        self.batch_windows: int = inference.batch_size

    def score(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n_windows, window_samples) to (n_windows, n_frames)."""
        import torch

        scores = self._inference.infer(torch.tensor(windows)[:, None, :])
        assert isinstance(scores, np.ndarray), "the segmentation model has one head"
        return np.asarray(scores.max(axis=-1), dtype=np.float32)


@cache
def whisperx_scorer(device: str = "cpu") -> PyannoteScorer:
    """The model that `whisperx.load_model` loads for its windows, on the device; loaded once per process."""
    os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")  # pyannote reports on every run unless told not to
    import torch
    from pyannote.audio import Inference, Model
    from pyannote.audio.utils.reproducibility import fix_reproducibility

    model = Model.from_pretrained(model_file())
    assert model is not None, "a local file is there or is missing; it is not gated"
    inference = Inference(model, device=torch.device(device))
    fix_reproducibility(inference.device)
    return PyannoteScorer(inference)
