"""Whether brokers and store let a worker in: asked once at start, before models are loaded.

What they refuse is said then, and not with the first job. Servers that are away are waited for, as later on.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress

from consumer import access
from consumer.adapters.kafka_admin import KafkaAdmin
from consumer.adapters.object_store import S3Store
from consumer.bootstrap import Role
from consumer.core.layout import RunKeys
from consumer.errors import (
    AccessDenied,
    BrokerUnavailable,
    DependencyAway,
    Misconfigured,
    MissingBucket,
    MissingObject,
    NotAuthorized,
    RefusedCredentials,
    RefusedLogin,
)
from consumer.ports import ObjectStore
from consumer.settings import Settings, StoreSettings

log = logging.getLogger(__name__)

ENTRY_S = 5.0
"""How long brokers and store may each take to say whether they let us in."""
ADD_ACLS = "add the ACLs that `whisperx-consumer topics acls` prints"
_NOBODY = RunKeys("-", 1)
"""Keys of a job that there cannot be, each in a place that roles may ask for."""
_LISTING = frozenset({Role.COORDINATE, Role.CLEANUP})
"""May list what belongs to a job, in both buckets. The others may write a probe, and read manifests of results."""


def require_entry(settings: Settings, roles: Sequence[Role]) -> None:
    """Raises RefusedLogin, NotAuthorized, RefusedCredentials and Misconfigured."""
    _require_brokers(settings, roles)
    if set(roles) - {Role.INTAKE}:
        _require_store(settings.store, roles)


def lacking(admin: KafkaAdmin, settings: Settings, roles: Sequence[Role]) -> list[str]:
    """What the brokers do not allow us: "Read on topic transcription.jobs"."""
    return admin.lacking(access.acls([role.value for role in roles], settings.kafka))


def _require_brokers(settings: Settings, roles: Sequence[Role]) -> None:
    try:
        missing = lacking(KafkaAdmin(settings.kafka, ENTRY_S), settings, roles)
    except (RefusedLogin, NotAuthorized):
        raise
    except BrokerUnavailable as error:
        log.warning("The brokers could not be asked for our rights", extra={"reason": error.message})
        return
    if missing:
        raise NotAuthorized(f"Kafka does not allow us {', '.join(missing)}; {ADD_ACLS}")


def _require_store(settings: StoreSettings, roles: Sequence[Role]) -> None:
    if not settings.has_credentials:
        raise Misconfigured("no store credentials; set WHISPERX_STORE__ACCESS_KEY and WHISPERX_STORE__SECRET_KEY")
    hasty = settings.model_copy(update={"request_timeout_s": min(ENTRY_S, settings.request_timeout_s)})
    store = S3Store.of(hasty, tries=1)
    try:
        ask_store(store, settings, roles)
    finally:
        store.close()


def ask_store(store: ObjectStore, settings: StoreSettings, roles: Sequence[Role]) -> None:
    """Ask each role's questions, within its rights. Raises RefusedCredentials and Misconfigured."""
    try:
        for role in roles:
            if role in _LISTING:
                _list(store, settings.work_bucket, _NOBODY.work_prefix)
                _list(store, settings.results_bucket, _NOBODY.results_prefix)
            elif role is not Role.INTAKE:
                _write(store, settings.work_bucket)
                _read(store, settings.results_bucket, _NOBODY.manifest)
    except RefusedCredentials:
        raise
    except DependencyAway as error:
        log.warning("The store could not be asked whether it lets us in", extra={"reason": error.message})
    except MissingBucket as error:
        raise Misconfigured(f"{error.message} `whisperx-consumer buckets create` makes it.") from error
    except AccessDenied as error:
        raise Misconfigured(f"{error.message} `whisperx-consumer policy {role}` prints what it needs.") from error


def _list(store: ObjectStore, bucket: str, prefix: str) -> None:
    next(iter(store.list_keys(bucket, prefix)), None)


def _write(store: ObjectStore, bucket: str) -> None:
    key = f"probe/{uuid.uuid4().hex}"
    store.put(bucket, key, key.encode())
    store.delete(bucket, [key])


def _read(store: ObjectStore, bucket: str, key: str) -> None:
    """To a key that may not list, S3 says of an object that is not there that it may not read it: no news."""
    with suppress(MissingObject, AccessDenied):
        store.get(bucket, key)
