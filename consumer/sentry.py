"""Bugs go to Sentry when a DSN is set: the error and its trace, never request bodies, local variables or secrets.

The trail of log lines before a bug holds only our own constant sentences and fields that cannot hold text that was
spoken: a library's line or a reason may quote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import sentry_sdk
from sentry_sdk.types import Breadcrumb, BreadcrumbHint, Event, Hint

from consumer.logs import Mask, Plain, plain
from consumer.settings import SentrySettings

TRAIL_FIELDS = frozenset(
    {"job_id", "run", "chunk_index", "role", "topic", "partition", "offset", "attempt", "code", "kind", "outcome"}
    | {"status", "step", "device", "reused", "audio_s", "duration_s", "wall_s", "wait_s"}
)
"""Fields of a log line that are kept in the trail."""


def start(settings: SentrySettings, release: str, secrets: Iterable[str] = ()) -> bool:
    """Start sending; False when there is no DSN, and then nothing is sent. Personal data is off unless asked for."""
    dsn = settings.dsn.get_secret_value()
    if not dsn:
        return False
    mask = Mask(secrets)

    def scrub(event: Event, _: Hint) -> Event:
        return cast(Event, masked(event, mask))

    sentry_sdk.init(
        dsn=dsn,
        environment=settings.environment,
        release=release,
        traces_sample_rate=settings.traces_sample_rate,
        include_local_variables=False,  # transcripts and samples live in local variables
        max_request_body_size="never",
        before_send=scrub,
        before_breadcrumb=lambda crumb, hint: trail(crumb, hint, mask),
    )
    return True


def trail(crumb: Breadcrumb, _: BreadcrumbHint, mask: Mask) -> Breadcrumb | None:
    """One of our own log lines without what may quote speech; None drops what is not ours (HTTP, libraries)."""
    if crumb.get("type") != "log" or not str(crumb.get("category", "")).startswith("consumer."):
        return None
    data = {name: value for name, value in crumb.get("data", {}).items() if name in TRAIL_FIELDS}
    return masked({**crumb, "data": data}, mask)


def masked(event: Any, mask: Mask) -> dict[str, Plain]:
    """The event as plain values, without the secrets."""
    content = plain(event, mask)
    assert isinstance(content, dict)
    return content
