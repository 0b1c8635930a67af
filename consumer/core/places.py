"""Where jobs may point: names that are safe to send, and the buckets and prefixes of the allow-list."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from consumer.events import RecordingRef

MAX_KEY_BYTES: Final = 1_024
MAX_VERSION_CHARACTERS: Final = 1_024
MAX_ETAG_CHARACTERS: Final = 256
_BUCKET = re.compile(r"(?!.*(?:\.\.|\.-|-\.))[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_PRINTABLE = re.compile(r"[!-~]+")


def fault_of(recording: RecordingRef) -> str | None:
    """What is wrong with the names, in a sentence that does not repeat them; None if nothing is.

    S3 takes nearly any key. HTTP clients and proxies between us and the store do not: they resolve `..`, join slashes
    and drop what cannot be printed, and then another object is read than the one that was allowed.
    """
    if not _BUCKET.fullmatch(recording.bucket):
        return "recording.bucket: 3 to 63 letters, digits, dots, hyphens and underscores are a bucket's name"
    fault = _fault_of_key(recording.key)
    if fault is not None:
        return f"recording.key: {fault}"
    for name, text, most in (
        ("version_id", recording.version_id, MAX_VERSION_CHARACTERS),
        ("etag", recording.etag, MAX_ETAG_CHARACTERS),
    ):
        if text is not None and not (len(text) <= most and _PRINTABLE.fullmatch(text)):
            return f"recording.{name}: at most {most} printable characters without a space"
    return None


def _fault_of_key(key: str) -> str | None:
    if "://" in key:
        return "it is a URL; name bucket and key, and never send a signed link"
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        return f"it has more than {MAX_KEY_BYTES} bytes in UTF-8"
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in key):
        return "it holds control characters; upload the recording under another key"
    if any(part in ("", ".", "..") for part in key.split("/")):
        return "it looks like a path with empty parts, . or ..; upload the recording under another key"
    return None


def may_be_read(allowed: Iterable[str], bucket: str, key: str) -> bool:
    """Whether an entry of the allow-list covers this object: its bucket, or bucket/prefix/ with a slash at the end.

    may_be_read(["calls", "shared/audio/"], "shared", "audio/talk.mp3") -> True
    """
    return any(bucket == entry or (entry.endswith("/") and f"{bucket}/{key}".startswith(entry)) for entry in allowed)


def bucket_of(entry: str) -> str:
    """The bucket of an entry of the allow-list."""
    return entry.partition("/")[0]
