"""The processes under test. One that ends is started again at once, as Kubernetes does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.broken_builds import Sabotage
from tests.chaos.ground import WAYS, Ground
from tests.chaos.journal import Journal
from tests.chaos.probes import Probe
from tests.servers.process import free_port

ROOT = Path(__file__).parents[2]
WATCH_S = 0.05
STARTED = '"Started"'
RESTART_S = 0.5
"""Before a process that ended by itself is started again: one that cannot start must not eat the machine."""
PLACES = (
    *((f"transcriber-{number}", "transcribe") for number in range(4)),
    *((f"coordinator-{number}", "coordinate") for number in range(2)),
    *((f"rest-{number}", "intake,plan,assemble,cleanup") for number in range(2)),
)


@dataclass(eq=False)
class Place:
    """A pod, as it were: what runs here, by which way, and which process it is now."""

    name: str
    roles: str
    way: str
    worker_id: str
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    busy: bool = False
    """A fault is at work on it."""
    wants_start_at_s: float = 0.0
    probe: Probe | None = None
    """Once it has started."""
    port: int = 0

    @property
    def life(self) -> str:
        """Name of the present process and of its log."""
        return f"{self.name}.{self.starts:03d}"

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def has_started(self) -> bool:
        """It has said so, and serves its probes."""
        return self.runs and self.probe is not None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)


@dataclass
class Fleet:
    """All processes start from one thread that lives as long as they: the kernel ends them when it ends."""

    ground: Ground
    journal: Journal
    folder: Path
    pace_s: float
    sabotage: Sabotage
    places: list[Place] = field(init=False)

    def __post_init__(self) -> None:
        self.places = [Place(name, roles, WAYS[n % len(WAYS)], name) for n, (name, roles) in enumerate(PLACES)]
        (self.folder / "logs").mkdir()
        (self.folder / "notes").mkdir()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def started(self) -> bool:
        """Every process has joined its groups once."""
        return all(place.starts and self._has_said(place, STARTED) for place in self.places)

    def stop(self, timeout_s: float) -> None:
        """End in good order; what does not end in time is killed, and the journal tells."""
        self._ending.set()
        for place in self.places:
            place.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while any(place.runs for place in self.places) and time.monotonic() < deadline:
            time.sleep(WATCH_S)
        for place in self.places:
            if place.runs:
                self.journal.write("did-not-end", life=place.life)
                place.signal(signal.SIGUSR2)  # it writes its stacks into its log
                self.ended(place, place.life, 1.0)
                place.signal(signal.SIGKILL)
        self._thread.join(10)

    def ended(self, place: Place, life: str, timeout_s: float) -> bool:
        """Wait until this process has ended, for a bounded time."""
        return wait(lambda: place.life != life or not place.runs, timeout_s)

    def _watch(self) -> None:
        while True:
            for place in self.places:
                self._look_after(place)
            if self._ending.is_set() and not any(place.runs for place in self.places):
                return
            time.sleep(WATCH_S)

    def _look_after(self, place: Place) -> None:
        self._probe(place)
        if place.process is not None and (code := place.process.poll()) is not None:
            self.journal.write("process-ended", life=place.life, code=code)
            place.process = None
            if place.probe is not None:
                place.probe.stop()
                place.probe = None
            place.wants_start_at_s = time.monotonic() + (0.0 if code < 0 else RESTART_S)
        if place.process is None and not self._ending.is_set() and time.monotonic() >= place.wants_start_at_s:
            self._start(place)

    def _probe(self, place: Place) -> None:
        """As the kubelet: from its start on ask whether it is alive, and kill what is not."""
        if place.probe is None:
            if place.runs and self._has_said(place, STARTED):
                place.probe = Probe(place.port)
                place.probe.start()
        elif place.probe.is_dead and not place.busy:
            self.journal.write("not-alive", life=place.life, reason=place.probe.reason)
            place.signal(signal.SIGUSR2)  # it writes its stacks into its log
            self.ended(place, place.life, 0.5)
            place.signal(signal.SIGKILL)
            place.probe.stop()
            place.probe = None

    def _start(self, place: Place) -> None:
        place.starts += 1
        place.port = free_port()
        command = [sys.executable, "-m", "tests.chaos.worker", "--roles", place.roles, "--pace", str(self.pace_s)]
        command += ["--notes", str(self.folder / "notes"), "--sabotage", self.sabotage]
        with self._log(place).open("wb") as sink:
            place.process = subprocess.Popen(
                command,
                env={
                    **self.ground.environment(place.way, place.worker_id),
                    "WHISPERX_SERVER__HOST": "127.0.0.1",
                    "WHISPERX_SERVER__PORT": str(place.port),
                },
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        self.journal.write(
            "process-started",
            life=place.life,
            roles=place.roles,
            way=place.way,
            worker_id=place.worker_id,
            pid=place.process.pid,
        )

    def _log(self, place: Place) -> Path:
        return self.folder / "logs" / f"{place.life}.log"

    def _has_said(self, place: Place, words: str) -> bool:
        path = self._log(place)
        return path.exists() and words in path.read_text(encoding="utf-8", errors="replace")


def wait(condition: Callable[[], bool], timeout_s: float, pause_s: float = WATCH_S) -> bool:
    """Wait for something outside this process; polling is the only way to see it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
