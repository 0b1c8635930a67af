"""What the decoder process cannot do any more when the first byte of a recording reaches it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import consumer

ROOT = Path(consumer.__file__).parent.parent


def confined(code: str, memory_bytes: int = 1 << 28) -> str:
    """What `code` prints in a confined process."""
    program = f"""
import os, socket, subprocess, sys
sys.path.append({str(ROOT)!r})
from consumer.audio.confine import confine
confine({memory_bytes}, 60, {os.getpid()})
try:
{textwrap.indent(textwrap.dedent(code), "    ")}
except (OSError, MemoryError) as exc:
    print(type(exc).__name__, getattr(exc, "errno", ""))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_opens_no_file() -> None:
    assert confined("open('/etc/passwd')") == "OSError 24"


def test_it_opens_no_socket() -> None:
    assert confined("socket.socket()") == "OSError 24"


def test_it_starts_no_program() -> None:
    assert confined("subprocess.run(['/bin/true'])") == "OSError 24"


def test_it_gets_no_more_memory_than_it_may() -> None:
    assert confined("x = bytearray(1 << 27); print(len(x))") == str(1 << 27)
    assert confined("bytearray(1 << 29)") == "MemoryError"


def test_it_gains_no_privilege_and_leaves_no_core() -> None:
    kept_open = "status = open('/proc/self/status', 'rb', buffering=0)"
    program = f"""
import sys, resource
sys.path.append({str(ROOT)!r})
from consumer.audio.confine import confine
{kept_open}
confine(1 << 28, 60, {os.getpid()})
text = status.read().decode()
print([line for line in text.splitlines() if line.startswith("NoNewPrivs")][0].split()[1])
print(resource.getrlimit(resource.RLIMIT_CORE)[1], resource.getrlimit(resource.RLIMIT_FSIZE)[1])
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", "0"]


def test_it_does_not_begin_without_its_parent() -> None:
    program = f"""
import sys
sys.path.append({str(ROOT)!r})
from consumer.audio.confine import confine
confine(1 << 28, 60, 1 << 22)
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert "OrphanedDecoder" in done.stderr
