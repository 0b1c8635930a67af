"""From settings and flags to the things that a command works with. Nothing is opened before it is needed."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from consumer import settings_reference
from consumer.broker import Outbox
from consumer.contracts import faults
from consumer.core.layout import Topic
from consumer.errors import Misconfigured
from consumer.ports import ObjectStore
from consumer.settings import Settings
from consumer.wire import Codec

SOURCE = "/whisperx-jobs"
"""Who we are to readers of our events: `ce_source`."""

OVERRIDES: Mapping[str, tuple[str, str]] = {
    "bootstrap_servers": ("kafka", "bootstrap_servers"),
    "topic_prefix": ("kafka", "topic_prefix"),
    "endpoint": ("store", "endpoint"),
    "results_bucket": ("store", "results_bucket"),
    "secure": ("store", "secure"),
    "registry": ("registry", "url"),
}
"""Flags and the setting that each overrides."""


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings of the environment, with the flags over them. Raises Misconfigured."""
    settings = _from_environment()
    try:
        for flag, (group, name) in OVERRIDES.items():
            if (value := getattr(arguments, flag, None)) is not None:
                settings = _with(settings, group, name, value)
    except ValidationError as exc:
        raise Misconfigured(f"the settings cannot work: {faults(exc)}; correct the flag") from exc
    return settings


def _from_environment() -> Settings:
    try:
        return Settings()
    except ValidationError as exc:
        raise Misconfigured(f"the settings cannot work: {'; '.join(settings_reference.faults(exc))}") from exc


def _with(settings: Settings, group: str, name: str, value: Any) -> Settings:
    before: BaseModel = getattr(settings, group)
    changed = type(before).model_validate({**dict(before), name: value})
    return settings.model_copy(update={group: changed})


class Connection:
    """Makes the clients of the installation that the settings describe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def topic(self, topic: Topic) -> str:
        return self.settings.kafka.topic_prefix + topic

    def codec(self) -> Codec:
        registry = self.settings.registry
        if not registry.url:
            return Codec(None, SOURCE)
        from consumer.adapters.registry import ConfluentRegistry

        password = registry.password.get_secret_value()
        # Only the service registers schemas: a sender looks them up, and needs no right to write.
        client = ConfluentRegistry(
            registry.url,
            username=registry.username,
            password=password,
            ca_file=registry.ca_file,
            auto_register=False,
        )
        return Codec(client, SOURCE)

    def outbox(self, name: str) -> Outbox:
        """For records that appear together or not at all. Whoever opens one takes over from those before it."""
        from consumer.adapters.kafka_outbox import PlainOutbox, TransactionalOutbox

        kafka = self.settings.kafka
        if not kafka.transactions:
            return PlainOutbox(kafka)
        return TransactionalOutbox(kafka, f"{kafka.group_prefix}{name}")

    def store(self) -> ObjectStore:
        from consumer.adapters.object_store import S3Store

        return S3Store.of(self.settings.store)


def quiet_libraries(debug: bool) -> None:
    """Client libraries log what we say better; with --debug they speak."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.CRITICAL)
