from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from consumer import sentry
from consumer.logs import Mask
from consumer.settings import SentrySettings


def test_without_a_dsn_nothing_is_sent() -> None:
    assert not sentry.start(SentrySettings(), "1.0.0")
    assert not sentry_sdk.is_initialized()


def test_a_secret_is_masked_wherever_it_stands_in_an_event() -> None:
    event = {"message": "login with hidden-1", "exception": {"values": [{"value": "hidden-1 refused"}]}, "n": 1}
    assert sentry.masked(event, Mask(["hidden-1"])) == {
        "message": "login with ***",
        "exception": {"values": [{"value": "*** refused"}]},
        "n": 1,
    }


def test_what_is_sent_has_no_local_variables_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {}
    monkeypatch.setattr(sentry_sdk, "init", lambda **given: options.update(given))
    settings = SentrySettings.model_validate({"dsn": "https://key@sentry.example/1", "environment": "test"})
    assert sentry.start(settings, "1.0.0", ["hidden-1"])
    assert (options["environment"], options["release"]) == ("test", "1.0.0")
    assert not options["include_local_variables"]
    assert options["before_send"]({"message": "hidden-1"}, {}) == {"message": "***"}


class Kept(Transport):
    """Sends nothing and keeps what would be sent."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.events: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events.append(json.dumps(envelope.get_event(), default=str))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Sentry as it is started in production, but for the network."""
    transport, init = Kept(), sentry_sdk.init
    monkeypatch.setattr(sentry_sdk, "init", lambda **given: init(transport=transport, **given))
    with sentry_sdk.isolation_scope():
        assert sentry.start(SentrySettings.model_validate({"dsn": "https://key@sentry.example/1"}), "1", ["hidden-1"])
        yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def test_the_trail_before_a_bug_quotes_nothing_that_was_spoken(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ours = logging.getLogger("consumer.test")
    ours.info("Chunk transcribed", extra={"chunk_index": 417, "reason": "spoken words"})
    logging.getLogger("whisperx.asr").warning("Transcript: %s", "spoken words")
    ours.error("A role has failed", extra={"role": "hidden-1"}, exc_info=ZeroDivisionError("a bug"))
    (event,) = kept.events
    assert "Chunk transcribed" in event
    assert "417" in event
    assert "a bug" in event
    assert "spoken words" not in event
    assert "hidden-1" not in event
