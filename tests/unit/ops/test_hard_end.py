"""A process that ends hard leaves nothing behind among the temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BOUND_S = 120
MODELS = "import os, tempfile, torch.distributed.nn as _; assert os.listdir(tempfile.gettempdir())"
WORKER = """
from consumer import cli
cli.require_entry = cli.System = lambda *_: None
cli._serve = lambda _: 7
cli.main(["run", "--roles", "cleanup"])
"""
TRANSCRIBE = """
import signal
from pathlib import Path
from demo import transcribe

def interrupted(*_):
    raise KeyboardInterrupt

transcribe._watch, transcribe._cancel = interrupted, lambda *_: None
transcribe._finish(None, None, [], Path(), transcribe.Screen())
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize(("program", "code"), [(WORKER, 7), (TRANSCRIBE, 130)], ids=["a worker", "transcribe"])
def test_what_the_models_libraries_made_in_the_temporary_folder_is_removed(
    program: str, code: int, tmp_path: Path
) -> None:
    end = subprocess.run(
        [sys.executable, "-c", f"{MODELS}\n{program}\nraise AssertionError('went on')"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert end.returncode == code, end.stderr
    assert list(tmp_path.iterdir()) == []
