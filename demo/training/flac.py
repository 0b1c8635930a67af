"""16 kHz mono FLAC, through PyAV: what is written comes back sample for sample, as 16-bit values."""

from pathlib import Path

import av
import numpy as np

from demo.training.speech import SAMPLE_RATE_HZ, Samples

BLOCK = 4096


def write(path: Path, samples: Samples) -> None:
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE_HZ, layout="mono", options={"compression_level": "12"})
        for first in range(0, len(pcm), BLOCK):
            frame = av.AudioFrame.from_ndarray(pcm[None, first : first + BLOCK], format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read(path: Path) -> Samples:
    """(n_samples,), float32 between -1 and 1. Raises ValueError unless it is 16 kHz mono."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        if stream.rate != SAMPLE_RATE_HZ or stream.channels != 1:
            raise ValueError(f"{path} has {stream.channels} channels at {stream.rate} Hz, not one at {SAMPLE_RATE_HZ}")
        blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
    return np.concatenate(blocks).astype(np.float32) / np.float32(32768)
