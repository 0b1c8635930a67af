"""Bugs go to Sentry when a DSN is set: the error and its trace, never request bodies, local variables or secrets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import sentry_sdk
from sentry_sdk.types import Event, Hint

from consumer.logs import Mask, Plain, plain
from consumer.settings import SentrySettings


def start(settings: SentrySettings, release: str, secrets: Iterable[str] = ()) -> bool:
    """Start sending; False when there is no DSN, and then nothing is sent."""
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
        send_default_pii=False,
        include_local_variables=False,  # transcripts and samples live in local variables
        max_request_body_size="never",
        before_send=scrub,
    )
    return True


def masked(event: Any, mask: Mask) -> dict[str, Plain]:
    """The event as plain values, without the secrets."""
    content = plain(event, mask)
    assert isinstance(content, dict)
    return content
