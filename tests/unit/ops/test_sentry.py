from __future__ import annotations

import pytest
import sentry_sdk

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
