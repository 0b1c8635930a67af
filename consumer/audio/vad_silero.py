"""Voice-activity detection with silero, streamed: the ONNX file inside faster-whisper, its state carried along.

The probabilities are those of faster-whisper's own `SileroVADModel` on the whole file. Frames go through the network
in batches that lie on the grid of the recording, so not even rounding depends on how the samples came in.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from consumer.core.windows import Decided, VoiceShape, Windows
from consumer.errors import MissingModel
from consumer.events import VadOptions

FRAME_SAMPLES = 512  # 32 ms: what silero v6 takes at 16 kHz
CONTEXT_SAMPLES = 64
"""Samples of the frame before that the network sees too."""

BATCH_FRAMES = 256  # 8.2 s
STATE_SIZE = 128
HYSTERESIS = 0.15
"""How far below the onset speech goes on: silero's own rule for its `neg_threshold`."""


def model_file() -> Path:
    """The file in the installed faster-whisper, found without importing it (that would load CTranslate2).

    Raises MissingModel.
    """
    package = importlib.util.find_spec("faster_whisper")
    for place in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(place, "assets").glob("silero_vad_v*.onnx"), reverse=True):
            return path
    raise MissingModel("faster-whisper with its silero file is not installed; install the extra 'speech'")


@cache
def session() -> onnxruntime.InferenceSession:
    """The network, loaded once per process; running it is safe from several threads."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # the arena would keep the memory of the largest batch
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(model_file()), options, providers=["CPUExecutionProvider"])


class SileroStream:
    """The probability of speech for each frame of 512 samples, as they come in."""

    def __init__(self) -> None:
        self._session = session()
        self._h = np.zeros((1, 1, STATE_SIZE), dtype=np.float32)
        self._c = np.zeros((1, 1, STATE_SIZE), dtype=np.float32)
        self._context: NDArray[np.float32] = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
        self._waiting: list[NDArray[np.int16]] = []
        self._waiting_samples = 0
        self.samples = 0

    def feed(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Take samples, (n_samples,); probabilities, (n_frames,), of all full batches."""
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        self.samples += len(samples)
        batch = BATCH_FRAMES * FRAME_SAMPLES
        if self._waiting_samples < batch:
            return np.empty(0, dtype=np.float32)
        waiting = np.concatenate(self._waiting)
        full = len(waiting) // batch * batch
        self._waiting, self._waiting_samples = [waiting[full:]], len(waiting) - full
        return np.concatenate([self._run(waiting[at : at + batch]) for at in range(0, full, batch)])

    def finish(self) -> NDArray[np.float32]:
        """Probabilities of the rest; the last frame is filled up with silence."""
        waiting = np.concatenate([*self._waiting, np.empty(0, dtype=np.int16)])
        if not len(waiting):
            return np.empty(0, dtype=np.float32)
        return self._run(np.pad(waiting, (0, -len(waiting) % FRAME_SAMPLES)))

    def _run(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        frames = (samples.astype(np.float32) / np.float32(32768)).reshape(-1, FRAME_SAMPLES)
        contexts = np.concatenate([self._context[None], frames[:-1, -CONTEXT_SAMPLES:]])
        self._context = frames[-1, -CONTEXT_SAMPLES:]
        inputs = {"input": np.concatenate([contexts, frames], axis=1), "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, inputs)
        return np.asarray(probabilities, dtype=np.float32).reshape(-1)


class SileroWindows:
    """The `silero` window policy."""

    def __init__(self, shape: VoiceShape) -> None:
        self._stream = SileroStream()
        self._windows = Windows(shape, FRAME_SAMPLES)

    def feed(self, samples: NDArray[np.int16]) -> Decided:
        return self._windows.feed(self._stream.feed(samples).tolist())

    def finish(self) -> Decided:
        last = self._windows.feed(self._stream.finish().tolist())
        end = self._windows.finish(self._stream.samples)
        return Decided((*last.windows, *end.windows), end.upto)


def silero_windows(vad: VadOptions, max_window_s: float) -> SileroWindows:
    onset = 0.5 if vad.onset is None else vad.onset
    offset = max(onset - HYSTERESIS, 0.01) if vad.offset is None else vad.offset
    return SileroWindows(VoiceShape(max_window_s=max_window_s, onset=onset, offset=offset))
