"""Lose the CUDA context of this process, and say what the engine makes of it; for test_engine_on_gpu.py."""

from __future__ import annotations

import os
from contextlib import suppress

import torch

from consumer.errors import BrokenGpuContext
from consumer.events import JobOptions
from consumer.settings import DeviceSettings, ModelSettings
from consumer.speech.engine import SpeechEngine
from tests.integration.test_speech_engine import MODELS, conversation


def main() -> None:
    engine = SpeechEngine(ModelSettings(directory=MODELS, allowed=("tiny",)), DeviceSettings(device="cuda"))
    engine.warm_up()
    talk = conversation("conversation-90s")
    with suppress(RuntimeError):
        print(torch.zeros(3, device="cuda")[torch.tensor([3_000_000], device="cuda")])
    try:
        engine.transcribe(talk.task(talk.whole, JobOptions(language="en")), lambda _: None)
    except BrokenGpuContext as lost:
        print(type(lost).__name__, flush=True)
    os._exit(0)  # the libraries abort when they take down a context that is lost


if __name__ == "__main__":
    main()
