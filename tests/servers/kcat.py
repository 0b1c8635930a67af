"""kcat: a Kafka client that shares no Python with us, for looking at topics from outside."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.control import unavailable

TIMEOUT_S = 30


@dataclass(frozen=True)
class Kcat:
    """The program at `binary`."""

    binary: Path

    def run(self, *arguments: str, standard_input: bytes = b"") -> bytes:
        """What it prints. Raises subprocess.CalledProcessError when it fails."""
        command = [str(self.binary), *arguments]
        result = subprocess.run(command, input=standard_input, capture_output=True, timeout=TIMEOUT_S, check=True)
        return result.stdout


def installed_kcat() -> Kcat:
    found = shutil.which("kcat")
    if found is None:
        unavailable("no kcat: run python -m tests.servers.install kcat, or use the system's package manager")
    return Kcat(Path(found))
