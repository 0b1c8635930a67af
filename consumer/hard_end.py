"""The end of a process that waits for nothing: neither for threads, nor for what libraries do when Python goes down.

A model that still computes would hold an ordinary end for minutes, and one under which the interpreter goes away
aborts it. What libraries tidy up on the ordinary way out is ours to do then.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import NoReturn

_TORCH = "torch.distributed.nn.jit.instantiator"
"""Makes a folder among the temporary files when it is imported, and lets Python's end remove it."""


def end_now(code: int) -> NoReturn:
    """End this process. Nothing is flushed. Safe in a signal handler."""
    folder = getattr(sys.modules.get(_TORCH), "INSTANTIATED_TEMPLATE_DIR_PATH", None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)
