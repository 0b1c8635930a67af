"""One log line per fact: a constant sentence and its fields, on standard error.

    log.info("Chunk transcribed", extra={"duration_s": 4.2, "attempt": 1})

Fields in use: job_id, run, chunk_index, role, topic, partition, offset, attempt, code, reused, audio_s, duration_s. No
field quotes what was said. What a unit of work has in common is bound once, and then stands on every line that is
written inside, also by libraries:

    with bound(job_id=work.job_id, chunk_index=work.chunk_index):
        ...

Values come from senders, so no value can start a line of its own, and no known secret is written.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, TextIO
from urllib.parse import quote

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]

MAX_FIELD_CHARACTERS = 8_000
"""A longer field is cut: a line is for reading, and log collectors drop lines beyond 16 KiB or 64 KiB."""
MIN_SECRET_CHARACTERS = 4
"""A shorter secret is not masked: it would mask half of every line, and is no secret."""
REPEAT_INTERVAL_S = 30.0
"""A library's line is not written again within this time."""
MAX_REMEMBERED = 1_000
MASK = "***"

QUIET = (
    "whisperx", "pyannote", "lightning", "lightning_fabric", "pytorch_lightning", "speechbrain", "faster_whisper",
    "torch", "transformers", "huggingface_hub", "fsspec", "numba", "matplotlib", "httpx", "httpcore",
    "urllib3", "werkzeug", "minio", "confluent_kafka", "librdkafka", "botocore", "sentry_sdk", "asyncio", "libav",
)  # fmt: skip
"""Libraries of which only warnings are wanted."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NUMBER = re.compile(r"\d+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_bound: ContextVar[Mapping[str, object]] = ContextVar("bound_log_fields", default={})  # noqa: B039  (never changed)


class LogOptions(Protocol):
    """What `configure` needs of the settings."""

    @property
    def level(self) -> str: ...
    @property
    def format(self) -> str: ...


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Put these fields on every line written inside, in this thread. Inner values win over outer ones."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def configure(settings: LogOptions, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send every logger of the process to standard error, in one format. Called once, at start."""
    handler = _handler(settings, secrets, stream)
    handler.addFilter(Seldom(QUIET))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(settings.level)
    for name in QUIET:
        route(name)
    logging.captureWarnings(True)


@contextmanager
def spoken(name: str, settings: LogOptions, secrets: Iterable[str] = ()) -> Iterator[None]:
    """Send one logger to standard error as `configure` does, and only inside: for a command, which else has no log."""
    logger = logging.getLogger(name)
    handlers, level, propagates = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:], logger.propagate = [_handler(settings, secrets)], False
    logger.setLevel(settings.level)
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagates
        logger.setLevel(level)


def _handler(settings: LogOptions, secrets: Iterable[str], stream: TextIO | None = None) -> logging.Handler:
    mask = Mask(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(mask) if settings.format == "json" else TextLines(mask))
    handler.addFilter(_bind)
    return handler


def route(name: str, level: int = logging.WARNING) -> None:
    """Make a library's logger speak through ours only, also when the library is imported later.

    The silent handler is for libraries that give themselves one (on standard output: whisperx) unless there is one.
    """
    logger = logging.getLogger(name)
    logger.handlers[:] = [logging.NullHandler()]
    logger.propagate = True
    logger.setLevel(max(level, logging.root.level))


def log_uncaught() -> None:
    """Write exceptions that nobody caught, of any thread, as log lines too. Called once, at start."""
    log = logging.getLogger("consumer")

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("Uncaught exception", exc_info=(kind, error, trace))

    def of_thread(failure: threading.ExceptHookArgs) -> None:
        error = failure.exc_value or failure.exc_type()
        thread = failure.thread.name if failure.thread else "?"
        trace = (failure.exc_type, error, failure.exc_traceback)
        log.critical("Uncaught exception in a thread", exc_info=trace, extra={"thread_name": thread})

    sys.excepthook = of_process
    threading.excepthook = of_thread


class Mask:
    """Replaces the secrets that it knows, in plain form and as they look inside a URL."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS}
        forms = known | {quote(secret, safe="") for secret in known}
        longest_first = sorted(forms, key=len, reverse=True)  # a secret may contain another one
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text


class Seldom(logging.Filter):
    """Lets a library say the same thing once in a while: a broker that is away is worth one line, not twenty a second.

    Numbers do not count, so that a line per attempt, port or client is the same line. Ours always pass.
    """

    def __init__(self, libraries: Iterable[str], interval_s: float = REPEAT_INTERVAL_S) -> None:
        super().__init__()
        self._libraries = frozenset(libraries)
        self._interval_s = interval_s
        self._said_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in self._libraries:
            return True
        what = (record.name, _NUMBER.sub("#", record.getMessage()))
        if record.created - self._said_s.get(what, -math.inf) < self._interval_s:
            return False
        if len(self._said_s) >= MAX_REMEMBERED:
            self._said_s.clear()
        self._said_s[what] = record.created
        return True


class JsonLines(logging.Formatter):
    """One JSON object per line, in ASCII: a control character in a value is only ever an escape."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Plain] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self._mask(record.getMessage()),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, plain(value, self._mask))
        if record.exc_info:
            line["exception"] = self._mask(self.formatException(record.exc_info))
        return json.dumps(line)


class TextLines(logging.Formatter):
    """For a terminal: time, level, logger, sentence, fields; a trace follows on indented lines."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_time(record)} {record.levelname:<8} {record.name}: {_one_line(self._mask(record.getMessage()))}"
        fields = (f"{name}={self._shown(value)}" for name, value in _fields(record).items())
        trace = self._mask(self.formatException(record.exc_info)) if record.exc_info else ""
        return "  ".join((head, *fields)) + "".join(f"\n    {_one_line(line)}" for line in trace.splitlines())

    def _shown(self, value: object) -> str:
        kept = plain(value, self._mask)
        text = kept if isinstance(kept, str) else json.dumps(kept, ensure_ascii=False)
        return _one_line(text)


def plain(value: object, mask: Mask) -> Plain:
    """The value as JSON can hold it, with secrets masked and long text cut."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {mask(str(name)): plain(item, mask) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item, mask) for item in value]
        case bytes():
            return _cut(mask(value.decode("utf-8", errors="backslashreplace")))
        case _:
            return _cut(mask(str(value)))


def _bind(record: logging.LogRecord) -> bool:
    """Copies the bound fields when the line is written: a formatter may run later or elsewhere."""
    for name, value in _bound.get().items():
        if name not in vars(record):
            setattr(record, name, value)
    return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_FIELD_CHARACTERS else text[:MAX_FIELD_CHARACTERS] + "…"


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
