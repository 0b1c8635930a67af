"""What the decoder process cannot do any more when the first byte of a recording reaches it.

Three layers, each tried without the others: the limits of every kernel, Landlock, and the seccomp filter.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import consumer
from consumer.audio import sandbox

ROOT = Path(consumer.__file__).parent.parent
NO_WALLS = "sys.modules['landlockpy'] = sys.modules['pyseccomp'] = None"
"""A machine that has neither library."""


def confined(code: str, memory_bytes: int = 1 << 28) -> str:
    """What `code` prints in a process that has the limits and nothing behind them."""
    program = f"""
import os, socket, subprocess, sys
{NO_WALLS}
sys.path.append({str(ROOT)!r})
from consumer.audio.confine import confine
missing = confine({memory_bytes}, 60, {os.getpid()})
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


def test_it_tells_which_walls_its_machine_lacks() -> None:
    assert confined("print(*missing, sep='|')") == (
        "Landlock: landlockpy is not installed|seccomp: pyseccomp or libseccomp is not installed"
    )


def test_it_gets_no_more_memory_than_it_may() -> None:
    assert confined("x = bytearray(1 << 27); print(len(x))") == str(1 << 27)
    assert confined("bytearray(1 << 29)") == "MemoryError"


def test_it_gains_no_privilege_and_leaves_no_core() -> None:
    kept_open = "status = open('/proc/self/status', 'rb', buffering=0)"
    program = f"""
import sys, resource
{NO_WALLS}
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


# ── the walls behind the limits ─────────────────────────────────────────────────────────────────────────────────────


def attempts(wall: str, folder: Path) -> dict[str, int | None]:
    """The error number of each attempt of `breakout` behind the wall; None: it came through."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.unit.audio.breakout", wall, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found["missing"]:
        pytest.skip(f"this machine has not this wall: {found['missing']}")
    outcomes: dict[str, int | None] = found["outcomes"]
    return outcomes


def test_landlock_denies_every_file_port_and_foreign_process(tmp_path: Path) -> None:
    walled = attempts("landlock", tmp_path / "walled")
    assert {name: outcome for name, outcome in walled.items() if outcome not in {errno.EACCES, errno.EPERM}} == {}
    free = attempts("no-landlock", tmp_path / "free")
    assert {name: outcome for name, outcome in free.items() if outcome is not None} == {}, "they fail without it too"
    assert free.keys() == walled.keys() != set()


def test_seccomp_denies_every_call_that_computing_does_not_need(tmp_path: Path) -> None:
    walled = attempts("seccomp", tmp_path / "walled")
    assert {name: outcome for name, outcome in walled.items() if outcome != errno.EPERM} == {}
    free = attempts("no-seccomp", tmp_path / "free")
    came_through = [name for name, outcome in free.items() if outcome is None]
    assert len(came_through) > len(free) / 2, f"most of them are such that work without the wall: {free}"


@pytest.mark.skipif(
    sandbox.seccomp is None, reason="this machine has no libseccomp to stand in for a container's runtime"
)
@pytest.mark.parametrize("denied", [errno.EPERM, errno.ENOSYS], ids=["EPERM", "ENOSYS"])
def test_where_a_containers_runtime_denies_landlock_the_rest_stands_and_it_is_said(denied: int) -> None:
    """As the profile RuntimeDefault of older runtimes, which deny what they do not know. Ours stands within theirs."""
    program = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from consumer.audio import sandbox
from consumer.audio.confine import confine
runtime = sandbox.seccomp.SyscallFilter(sandbox.seccomp.ALLOW)
for call in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"):
    runtime.add_rule(sandbox.seccomp.ERRNO({denied}), call)
runtime.load()
sandbox.rehearse()
print(*confine(1 << 28, 60, {os.getpid()}))
try:
    os.kill(os.getpid(), 0)
except OSError as exc:
    print(exc.errno)
try:
    open("/etc/passwd")
except OSError as exc:
    print(exc.errno)
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    said, *outcomes = done.stdout.splitlines()
    assert said == f"Landlock: this kernel says {errno.errorcode[denied]}"
    assert outcomes == [str(errno.EPERM), str(errno.EPERM)], done.stderr
