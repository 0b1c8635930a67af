"""What has to be set before whisperx, pyannote and transformers are imported: no telemetry, no network, no chatter.

These libraries read the environment while they are imported, so this is the one place outside the settings that
writes it. Nothing here imports them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from consumer.settings import ModelSettings

log = logging.getLogger(__name__)

CHATTY = ("whisperx", "pyannote", "lightning", "torch", "torchaudio", "transformers", "speechbrain", "ctranslate2")
"""Packages whose warnings are about themselves and never about a job."""

_prepared = threading.Lock()
_done = False


def prepare(settings: ModelSettings) -> None:
    """Set everything, once per process; later calls change nothing."""
    global _done
    with _prepared:
        if _done:
            return
        variables = environment_of(settings)
        os.environ.update(variables)
        silence_logging()
        ignore_warnings()
        _done = True
        log.info("Environment of the models is set", extra={"variables": variables})


def environment_of(settings: ModelSettings) -> dict[str, str]:
    """The variables to set. Nothing here is secret: the hub token is passed by argument."""
    variables = {"PYANNOTE_METRICS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"}
    if not settings.download:
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if settings.hub_cache is not None:
        variables |= {"HF_HUB_CACHE": str(settings.hub_cache), "TORCH_HOME": str(settings.hub_cache / "torch")}
    elif "TORCH_HOME" not in os.environ and not _is_writable(Path.home()):
        # whisperx and torchaudio make this folder even when they need nothing from it; a pod's root is read-only.
        variables["TORCH_HOME"] = str(Path(tempfile.gettempdir()) / "torch")
    return variables


def silence_logging() -> None:
    """whisperx puts a handler for stdout on its logger unless there is one; with this one it leaves it alone."""
    logger = logging.getLogger("whisperx")
    logger.handlers[:] = [logging.NullHandler()]
    logger.propagate = True
    logger.setLevel(logging.WARNING)


def ignore_warnings() -> None:
    for package in CHATTY:
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading a model without its prints and warnings; stdout belongs to the commands that write data there."""
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore")
        yield
    if said.getvalue().strip():
        log.debug("A library printed", extra={"text": said.getvalue().strip()[:1000]})


def make_importable(folder: Path) -> None:
    """A pipeline's folder may bring the classes of its checkpoints as modules; they load by import."""
    if any(folder.glob("*.py")) and str(folder) not in sys.path:
        sys.path.append(str(folder))


def add_nltk_data(folder: Path) -> None:
    """Search this folder first for the sentence splitter's tables."""
    import nltk

    if str(folder) not in nltk.data.path:
        nltk.data.path.insert(0, str(folder))


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)
