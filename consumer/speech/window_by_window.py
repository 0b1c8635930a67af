"""whisperx's Whisper for the CPU: encodes the windows of a batch one after another, and decodes them together.

The encoder's attention takes 72 MB for each window that it looks at (base size: 8 heads, 1,500 by 1,500 frames). The
cores are busy with one window already, so more at once only take memory; the decoder's short steps are what gains from
a batch. The answers are equal to the last bit. Imports whisperx: for import where a model is loaded.
"""

from __future__ import annotations

from typing import Any

import ctranslate2
import numpy as np
from whisperx.asr import WhisperModel

from consumer.speech.spare_memory import give_back


class WindowByWindow(WhisperModel):  # type: ignore[misc]  # whisperx has no types
    def encode(self, features: Any) -> Any:
        """(n_windows, n_mels, 3000) to (n_windows, 1500, dimension); one window may come without the first axis."""
        windows = np.asarray(features)
        if windows.ndim == 2:
            windows = windows[None]
        encoded = np.concatenate([np.array(super(WindowByWindow, self).encode(one)) for one in windows])
        give_back()  # of the encoder, or it would stand beside the decoder's
        return ctranslate2.StorageView.from_array(encoded)
