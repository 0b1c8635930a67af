"""The shipped policies on a real MinIO: what they name is enough, and what they do not name is denied.

The store speaks TLS, and the service encrypts with a key of its own: the strictest form that an installation can have.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import minio
import pytest
import urllib3
from minio.credentials.providers import AssumeRoleProvider
from minio.error import S3Error
from pydantic import SecretStr

from consumer import buckets, doctor
from consumer.adapters.object_store import S3Store
from consumer.adapters.s3_buckets import S3Buckets
from consumer.bootstrap import Parts, Role
from consumer.cli import main
from consumer.core.layout import RunKeys
from consumer.entry import ask_store
from consumer.errors import AccessDenied, EncryptedObject, Misconfigured, MissingObject, RefusedCredentials
from consumer.findings import Level, report
from consumer.settings import Settings, StoreSettings
from consumer.store_policies import Principal, policy
from producer_tools.result import fetch_result
from producer_tools.upload import upload
from tests.contract.store_contract import BreaksOff
from tests.integration.server_system import RECORDING, server_system
from tests.servers.certificates import certificates
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio, own_minio

pytestmark = pytest.mark.servers

WORK, RESULTS, CALLS, FOREIGN = "wx-work", "wx-results", "wx-calls", "wx-foreign"
SENDERS = (f"{CALLS}/team-a/",)
NAMES = StoreSettings(work_bucket=WORK, results_bucket=RESULTS)
OWN, OTHERS = "team-a/one.wav", "team-b/one.wav"
RUN = RunKeys("j", 1)
AUDIO, PLAN, CHECKPOINT = RUN.chunk_audio(0), RUN.chunk_plan(0), RUN.checkpoint(0)
SHAPE, SAMPLE, MANIFEST, TEXT = RUN.plan_shape, RUN.language_sample, RUN.manifest, RUN.artifact("txt")
OF_RUN = (AUDIO, PLAN, CHECKPOINT, SHAPE, SAMPLE, MANIFEST, TEXT)
ROLES = [Role.COORDINATE, Role.PLAN, Role.TRANSCRIBE, Role.ASSEMBLE, Role.CLEANUP]


@dataclass(frozen=True)
class User:
    """One principal's ways to the store: ours, and those that we never take."""

    settings: StoreSettings
    store: S3Store

    @property
    def client(self) -> minio.Minio:
        return self.store.client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    folder = tmp_path_factory.mktemp("private-minio")
    kms = {"MINIO_KMS_SECRET_KEY": f"our-key:{base64.b64encode(os.urandom(32)).decode()}"}
    with own_minio(folder, kms, certificates(folder / "made")) as made:
        yield made


@pytest.fixture(scope="module")
def users(server: Minio) -> Iterator[dict[str, User]]:
    """One for each policy, and objects in every bucket."""
    root = server.client()
    for bucket in (WORK, RESULTS, CALLS, FOREIGN):
        root.make_bucket(bucket)
        for key in (OWN, OTHERS, "work/j/1/k", "results/j/1/k", *OF_RUN):
            root.put_object(bucket, key, io.BytesIO(b"x"), 1)
    made = {str(who): policy(who, NAMES, SENDERS) for who in Principal}
    made["deleting service"] = policy(Principal.SERVICE, NAMES, SENDERS, delete_recordings=True)
    made["deleting cleanup"] = policy(Principal.CLEANUP, NAMES, SENDERS, delete_recordings=True)
    made["own folder"] = policy(Principal.SENDER, NAMES, [CALLS + "/${aws:username}/"])
    made["letter box"] = json.loads(json.dumps(made["sender"]).replace('"s3:GetObject", ', ""))
    users = {name: _user(server, name.replace(" ", "-"), document) for name, document in made.items()}
    yield users
    for user in users.values():
        user.store.close()


def _user(server: Minio, name: str, document: dict[str, object]) -> User:
    settings = StoreSettings.model_validate(
        {
            "endpoint": server.endpoint,
            "access_key": f"test-{name}",
            "secret_key": server.user(f"test-{name}", document),
            "ca_file": server.ca_file,
            "work_bucket": WORK,
            "results_bucket": RESULTS,
        }
    )
    return User(settings, S3Store.of(settings))


def submit(user: User, prefix: str = "team-a/") -> None:
    """As `whisperx-jobs submit` uploads a file: the second time it may be there already."""
    digest = hashlib.sha256(RECORDING.read_bytes()).hexdigest()
    for _ in range(2):
        upload(user.store, CALLS, f"{prefix}{digest}", RECORDING, digest, lambda *_: None)


def give_up(user: User, bucket: str, key: str) -> None:
    """An upload whose source fails: what was sent is removed."""
    with pytest.raises(OSError, match="the disk is gone"):
        user.store.upload(bucket, key, io.BufferedReader(BreaksOff(after_bytes=12 << 20)))


def probe(user: User) -> None:
    """What a worker asks when the store fails it for long. Without the right to, it would wait for ever."""
    parts = Parts(Settings(store=user.settings))
    if not parts.store_serves():
        raise AccessDenied("the store serves nobody, says the probe", bucket=WORK, key="probe/")


def again(bucket: str, *keys: str) -> Act:
    """Write what is there already: the store is asked what stands, and it is read."""

    def act(user: User) -> None:
        for key in keys:
            assert not user.store.put_new(bucket, key, b"y").created
            assert user.store.get(bucket, key) == b"x"

    return act


def read(bucket: str, *keys: str) -> Act:
    return lambda user: [user.store.get(bucket, key) for key in keys]


def write(bucket: str, key: str) -> Act:
    return lambda user: user.store.put(bucket, key, b"y")


def remove(bucket: str, key: str) -> Act:
    return lambda user: user.store.delete(bucket, [key])


def find(bucket: str, prefix: str) -> Act:
    return lambda user: list(user.store.list_keys(bucket, prefix))


Act = Callable[[User], object]

ALLOWED: dict[tuple[str, str], Act] = {
    ("service", "read a recording"): lambda user: user.store.get(CALLS, OWN),
    ("service", "stat a recording"): lambda user: user.store.stat(CALLS, OWN),
    ("service", "read the version that was pinned"): lambda user: user.store.stat(CALLS, OWN, "null"),
    ("service", "write work"): lambda user: user.store.put_new(WORK, "work/j/1/new", b"x"),
    ("service", "replace work"): lambda user: user.store.put(WORK, "work/j/1/k", b"x"),
    ("service", "list work"): lambda user: list(user.store.list_keys(WORK, "work/j/")),
    ("service", "remove work"): lambda user: user.store.delete(WORK, ["work/j/1/gone"]),
    ("service", "write results"): lambda user: user.store.put_new(RESULTS, "results/j/1/new", b"x"),
    ("service", "list results"): lambda user: list(user.store.list_keys(RESULTS, "results/j/")),
    ("service", "remove results"): lambda user: user.store.delete(RESULTS, ["results/j/1/gone"]),
    ("service", "see that its buckets are there"): lambda user: user.store.bucket_exists(WORK),
    ("service", "read its rules"): lambda user: S3Buckets(user.store).expiries(WORK),
    ("deleting service", "remove a recording"): lambda user: user.store.delete(CALLS, ["team-a/gone.wav"]),
    ("coordinate", "read a manifest"): read(RESULTS, MANIFEST),
    ("coordinate", "find runs in results"): find(RESULTS, "results/j/"),
    ("coordinate", "find runs in work"): find(WORK, "work/j/"),
    ("plan", "read a recording"): read(CALLS, OWN),
    ("plan", "write what it planned"): lambda user: user.store.put_new(WORK, RunKeys("new", 1).chunk_audio(0), b"x"),
    ("plan", "agree on chunks with another planner"): again(WORK, AUDIO, PLAN),
    ("plan", "agree on their shape"): again(WORK, SHAPE),
    ("plan", "agree on the language sample"): again(WORK, SAMPLE),
    ("plan", "see that a run has ended"): lambda user: user.store.stat(RESULTS, MANIFEST),
    ("plan", "ask whether the store serves"): probe,
    ("transcribe", "read a chunk"): read(WORK, AUDIO, PLAN),
    ("transcribe", "read the language sample"): read(WORK, SAMPLE),
    ("transcribe", "agree on a checkpoint"): again(WORK, CHECKPOINT),
    ("transcribe", "see that a run has ended"): lambda user: user.store.stat(RESULTS, MANIFEST),
    ("transcribe", "ask whether the store serves"): probe,
    ("assemble", "read checkpoints"): read(WORK, CHECKPOINT),
    ("assemble", "read plans"): read(WORK, PLAN),
    ("assemble", "agree on results"): again(RESULTS, MANIFEST, TEXT),
    ("assemble", "ask whether the store serves"): probe,
    ("cleanup", "find work"): find(WORK, "work/j/1/"),
    ("cleanup", "find results"): find(RESULTS, "results/j/1/"),
    ("cleanup", "remove work"): remove(WORK, "work/j/1/gone"),
    ("cleanup", "remove results"): remove(RESULTS, "results/j/1/gone"),
    ("cleanup", "ask whether the store serves"): probe,
    ("deleting cleanup", "remove a recording"): remove(CALLS, "team-a/gone.wav"),
    ("deleting cleanup", "look at it before"): lambda user: user.store.stat(CALLS, OWN),
    ("sender", "submit a recording"): submit,
    ("sender", "upload in parts"): lambda user: user.store.upload(CALLS, "team-a/up.wav", io.BytesIO(bytes(11 << 20))),
    ("letter box", "submit a recording"): submit,
    ("sender", "give an upload up"): lambda user: give_up(user, CALLS, "team-a/never.wav"),
    ("own folder", "submit into its own"): lambda user: submit(user, "test-own-folder/"),
    ("sender", "see that it is there"): lambda user: user.store.stat(CALLS, OWN),
    ("reader", "read a transcript"): lambda user: user.store.get(RESULTS, "results/j/1/k"),
    ("reader", "find a run"): lambda user: list(user.store.list_keys(RESULTS, "results/j/")),
    ("buckets", "make what may be there"): lambda user: user.store.make_bucket(RESULTS),
    ("buckets", "see what is there"): lambda user: user.store.bucket_exists(RESULTS),
    ("buckets", "set rules"): lambda user: S3Buckets(user.store).set_rule(
        WORK, "whisperx-work", buckets.Expiry("whisperx-work", "work/", 14)
    ),
}

POLICY = json.dumps({"Version": "2012-10-17", "Statement": []})
DENIED: dict[tuple[str, str], Act] = {
    ("service", "list the senders' bucket"): lambda user: list(user.store.list_keys(CALLS, "")),
    ("service", "read another prefix of it"): lambda user: user.store.get(CALLS, OTHERS),
    ("service", "replace a recording"): lambda user: user.store.put(CALLS, OWN, b"y"),
    ("service", "write a new one"): lambda user: user.store.put_new(CALLS, "team-a/new.wav", b"y"),
    ("service", "upload one"): lambda user: user.store.upload(CALLS, "team-a/new.wav", io.BytesIO(b"y")),
    ("service", "delete a recording"): lambda user: user.store.delete(CALLS, [OWN]),
    ("service", "read a foreign bucket"): lambda user: user.store.get(FOREIGN, OWN),
    ("service", "list a foreign bucket"): lambda user: list(user.store.list_keys(FOREIGN, "")),
    ("service", "make a bucket"): lambda user: user.store.make_bucket("wx-new"),
    ("service", "remove a bucket"): lambda user: user.client.remove_bucket(WORK),
    ("service", "change its rules"): lambda user: S3Buckets(user.store).set_rule(
        WORK, "own", buckets.Expiry("own", "", 1)
    ),
    ("service", "open a bucket to others"): lambda user: user.client.set_bucket_policy(RESULTS, POLICY),
    ("service", "read who may"): lambda user: user.client.get_bucket_policy(RESULTS),
    ("service", "turn versions on"): lambda user: user.client.get_bucket_versioning(RESULTS),
    ("coordinate", "read a transcript"): read(RESULTS, TEXT),
    ("coordinate", "read work"): read(WORK, AUDIO),
    ("coordinate", "read recordings"): read(CALLS, OWN),
    ("coordinate", "write results"): write(RESULTS, TEXT),
    ("coordinate", "remove work"): remove(WORK, AUDIO),
    ("plan", "read a transcript"): read(RESULTS, TEXT),
    ("plan", "forge a transcript"): write(RESULTS, TEXT),
    ("plan", "forge a manifest"): write(RESULTS, MANIFEST),
    ("plan", "read a checkpoint"): read(WORK, CHECKPOINT),
    ("plan", "forge a checkpoint"): write(WORK, CHECKPOINT),
    ("plan", "find others' work"): find(WORK, "work/"),
    ("plan", "find others' results"): find(RESULTS, "results/"),
    ("plan", "list the senders' bucket"): find(CALLS, ""),
    ("plan", "read another prefix of it"): read(CALLS, OTHERS),
    ("plan", "replace a recording"): write(CALLS, OWN),
    ("plan", "delete a recording"): remove(CALLS, OWN),
    ("plan", "remove work"): remove(WORK, AUDIO),
    ("plan", "remove results"): remove(RESULTS, TEXT),
    ("plan", "read its buckets' rules"): lambda user: S3Buckets(user.store).expiries(WORK),
    ("transcribe", "read recordings"): read(CALLS, OWN),
    ("transcribe", "read a transcript"): read(RESULTS, TEXT),
    ("transcribe", "forge a transcript"): write(RESULTS, TEXT),
    ("transcribe", "forge a chunk"): write(WORK, AUDIO),
    ("transcribe", "find others' work"): find(WORK, "work/"),
    ("transcribe", "remove a checkpoint"): remove(WORK, CHECKPOINT),
    ("assemble", "read recordings"): read(CALLS, OWN),
    ("assemble", "read the audio of a chunk"): read(WORK, AUDIO),
    ("assemble", "forge a checkpoint"): write(WORK, CHECKPOINT),
    ("assemble", "remove results"): remove(RESULTS, TEXT),
    ("assemble", "find others' results"): find(RESULTS, "results/"),
    ("cleanup", "read recordings"): read(CALLS, OWN),
    ("cleanup", "delete a recording"): remove(CALLS, OWN),
    ("cleanup", "read a transcript"): read(RESULTS, TEXT),
    ("cleanup", "read work"): read(WORK, AUDIO),
    ("cleanup", "write results"): write(RESULTS, TEXT),
    ("deleting cleanup", "delete another team's"): remove(CALLS, OTHERS),
    ("deleting cleanup", "replace a recording"): write(CALLS, OWN),
    ("deleting service", "delete another team's"): lambda user: user.store.delete(CALLS, [OTHERS]),
    ("deleting service", "replace a recording"): lambda user: user.store.put(CALLS, OWN, b"y"),
    ("own folder", "submit into another's"): submit,
    ("letter box", "read its own"): lambda user: user.store.get(CALLS, OWN),
    ("letter box", "submit for another team"): lambda user: submit(user, "team-b/"),
    ("sender", "upload for another team"): lambda user: user.store.upload(CALLS, OTHERS, io.BytesIO(b"y")),
    ("sender", "read another team's"): lambda user: user.store.get(CALLS, OTHERS),
    ("sender", "delete its own"): lambda user: user.store.delete(CALLS, [OWN]),
    ("sender", "list its bucket"): lambda user: list(user.store.list_keys(CALLS, "team-a/")),
    ("sender", "read work"): lambda user: user.store.get(WORK, "work/j/1/k"),
    ("sender", "read results"): lambda user: user.store.get(RESULTS, "results/j/1/k"),
    ("sender", "write results"): lambda user: user.store.put(RESULTS, "results/j/1/k", b"y"),
    ("reader", "write results"): lambda user: user.store.put(RESULTS, "results/j/1/k", b"y"),
    ("reader", "delete results"): lambda user: user.store.delete(RESULTS, ["results/j/1/k"]),
    ("reader", "list the buckets"): lambda user: user.client.list_buckets(),
    ("reader", "list more than results"): lambda user: list(user.store.list_keys(RESULTS, "")),
    ("reader", "read work"): lambda user: user.store.get(WORK, "work/j/1/k"),
    ("reader", "read recordings"): lambda user: user.store.get(CALLS, OWN),
    ("buckets", "read work"): lambda user: user.store.get(WORK, "work/j/1/k"),
    ("buckets", "write work"): lambda user: user.store.put(WORK, "work/j/1/k", b"y"),
    ("buckets", "remove a bucket"): lambda user: user.client.remove_bucket(WORK),
    ("buckets", "make another bucket"): lambda user: user.store.make_bucket("wx-new"),
}


def _named(table: dict[tuple[str, str], Act]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("who", "act"), [(who, act) for (who, _), act in table.items()], ids=map(" may ".join, table)
    )


@_named(ALLOWED)
def test_what_is_needed_is_allowed(users: dict[str, User], who: str, act: Act) -> None:
    act(users[who])


@_named(DENIED)
def test_what_is_not_needed_is_denied(users: dict[str, User], server: Minio, who: str, act: Act) -> None:
    with pytest.raises((AccessDenied, S3Error)) as refusal:
        act(users[who])
    if isinstance(refusal.value, S3Error):
        assert refusal.value.code == "AccessDenied"
    assert server.client().stat_object(CALLS, OWN).size == 1


def _grants() -> list[tuple[str, int, str]]:
    """Everything that the policies allow, one by one.

    Not s3:GetObject and s3:GetObjectVersion on recordings: MinIO takes each for the other, AWS asks for both.
    """
    return [
        (who, number, action)
        for who in Principal
        for number, statement in enumerate(_statements(policy(who, NAMES, SENDERS)))
        for action in statement["Action"]
        if "s3:GetObjectVersion" not in statement["Action"]
    ]


def _statements(document: dict[str, object]) -> list[dict[str, list[str]]]:
    return cast("list[dict[str, list[str]]]", document["Statement"])


@pytest.mark.parametrize(("who", "number", "action"), _grants())
def test_nothing_is_granted_that_is_not_needed(
    users: dict[str, User], server: Minio, who: str, number: int, action: str
) -> None:
    """Without it, something that this user has to do is denied."""
    document = policy(Principal(who), NAMES, SENDERS)
    _statements(document)[number]["Action"].remove(action)
    document["Statement"] = [one for one in _statements(document) if one["Action"]]
    user = _user(server, f"{who}-{number}-{action.removeprefix('s3:').lower()}", document)
    denied = [deed for (whose, deed), act in ALLOWED.items() if whose == who and _is_denied(act, user)]
    user.store.close()
    assert denied


@pytest.mark.parametrize(
    ("who", "number", "resource"),
    [
        (who, number, resource)
        for who in Principal
        for number, statement in enumerate(_statements(policy(who, NAMES, SENDERS)))
        for resource in statement["Resource"]
        if len(statement["Resource"]) > 1
    ],
)
def test_no_place_is_opened_that_is_not_needed(
    users: dict[str, User], server: Minio, who: str, number: int, resource: str
) -> None:
    document = policy(Principal(who), NAMES, SENDERS)
    places = _statements(document)[number]["Resource"]
    user = _user(server, f"{who}-{number}-place-{places.index(resource)}", document_without(document, number, resource))
    denied = [deed for (whose, deed), act in ALLOWED.items() if whose == who and _is_denied(act, user)]
    user.store.close()
    assert denied


def document_without(document: dict[str, object], number: int, resource: str) -> dict[str, object]:
    _statements(document)[number]["Resource"].remove(resource)
    return document


def _is_denied(act: Act, user: User) -> bool:
    try:
        act(user)
    except AccessDenied:
        return True
    return False


def test_temporary_credentials_are_as_good_as_those_that_stay(users: dict[str, User], server: Minio) -> None:
    """As a pod gets them from its platform; each request carries their token."""
    settings = users["service"].settings
    pool = urllib3.PoolManager(ca_certs=server.ca_file)
    keys = AssumeRoleProvider(
        sts_endpoint=server.url,
        access_key=settings.access_key.get_secret_value(),
        secret_key=settings.secret_key.get_secret_value(),
        http_client=pool,
    ).retrieve()
    pool.clear()
    lent = {"access_key": SecretStr(keys.access_key), "secret_key": SecretStr(keys.secret_key)}
    token = {"session_token": SecretStr(keys.session_token or "")}
    with closing(S3Store.of(settings.model_copy(update=lent | token))) as store:
        assert store.put_new(WORK, "work/lent/1/k", b"x").created
        assert not store.put_new(WORK, "work/lent/1/k", b"x").created
        assert store.get(WORK, "work/lent/1/k") == b"x"
        with pytest.raises(AccessDenied):
            store.put(CALLS, OWN, b"y")
    with closing(S3Store.of(settings.model_copy(update=lent))) as store, pytest.raises(RefusedCredentials):
        store.put(WORK, "work/lent/1/k", b"y")


def test_the_service_is_shown_its_own_buckets_only(users: dict[str, User]) -> None:
    assert FOREIGN not in {one.name for one in users["service"].client.list_buckets()}


def test_a_recording_that_is_missing_is_missing_and_not_denied(users: dict[str, User]) -> None:
    """Although we may not list: a sender who forgot the upload is told so."""
    with pytest.raises(MissingObject):
        users["service"].store.stat(CALLS, "team-a/never-uploaded.wav")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_let_in_with_its_own_rights_and_with_those_of_all(
    users: dict[str, User], server: Minio, role: Role
) -> None:
    for name in (role.value, "service"):
        ask_store(users[name].store, users[name].settings, [role])
    assert not list(server.client().list_objects(WORK, "probe/")), "the question leaves nothing behind"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_with_a_wrong_key_is_told_so_at_start(users: dict[str, User], role: Role) -> None:
    right = users[role.value].settings
    wrong = right.model_copy(update={"secret_key": SecretStr("a-wrong-secret")})
    with closing(S3Store.of(wrong)) as store, pytest.raises(RefusedCredentials, match="WHISPERX_STORE__ACCESS_KEY"):
        ask_store(store, wrong, [role])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("setting", ["work_bucket", "results_bucket"])
def test_a_role_whose_bucket_is_missing_is_told_so_at_start(
    users: dict[str, User], server: Minio, role: Role, setting: str
) -> None:
    names = NAMES.model_copy(update={setting: "wx-not-made"})
    user = _user(server, f"{role}-{setting.replace('_', '-')}", policy(Principal(role), names, SENDERS))
    with closing(user.store) as store, pytest.raises(Misconfigured, match=r"no bucket 'wx-not-made'.*buckets create"):
        ask_store(store, names, [role])


@pytest.mark.parametrize("role", ROLES)
def test_a_role_with_the_key_of_somebody_else_is_told_so_at_start(users: dict[str, User], role: Role) -> None:
    reader = users["reader"]
    with pytest.raises(Misconfigured, match=f"policy {role}"):
        ask_store(reader.store, reader.settings, [role])


def test_doctor_has_all_rights_that_it_needs(users: dict[str, User]) -> None:
    user = users["service"]
    buckets.create(S3Buckets(users["buckets"].store), buckets.table(user.settings))
    settings = Settings(store=user.settings)
    found = doctor.run(doctor.store_checks(user.store, settings, "test", S3Buckets(user.store)))
    assert {finding.level for finding in found} == {Level.OK}, report(found)


def test_the_command_prints_the_policy_that_was_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WHISPERX_STORE__WORK_BUCKET", WORK)
    monkeypatch.setenv("WHISPERX_STORE__RESULTS_BUCKET", RESULTS)
    for who in Principal:
        assert main(["policy", str(who), "--senders", *SENDERS]) == 0
        assert json.loads(capsys.readouterr().out) == policy(who, NAMES, SENDERS)
    assert main(["policy", "service", "--senders", *SENDERS, "--delete-recordings"]) == 0
    assert "DeleteRecordings" in capsys.readouterr().out
    assert main(["policy", "service"]) == 78
    assert "--senders" in capsys.readouterr().err


@pytest.mark.parametrize("place", [f"{CALLS}/team-a", "/team-a/", ""])
def test_a_place_that_would_reach_further_than_it_says_is_refused(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["policy", "sender", "--senders", place])
    assert "with a slash at the end" in capsys.readouterr().err


@pytest.mark.parametrize("one_key", [True, False], ids=["one key for all", "a key for each role, and none for intake"])
def test_a_whole_run_needs_no_more_and_leaves_nothing_open(
    kafka: Kafka, server: Minio, topic_prefix: str, one_key: bool
) -> None:
    """Every role under the shipped policies, over TLS, with objects under SSE-C: the store takes no others."""
    with server_system(kafka, server, topic_prefix) as system:
        names = StoreSettings(work_bucket=system.work, results_bucket=system.results)
        keys = {"STORE__ENCRYPTION": "sse-c", "STORE__SSE_C_KEY": base64.b64encode(os.urandom(32)).decode()}

        def as_user(name: str, document: dict[str, object], **more: str) -> dict[str, str]:
            secret_key = server.user(topic_prefix + name, document)
            return {"STORE__ACCESS_KEY": topic_prefix + name, "STORE__SECRET_KEY": secret_key, **more}

        def encrypting(who: Principal) -> dict[str, object]:
            document = policy(who, names, [system.recordings])
            cast("list[object]", document["Statement"]).append(_nothing_unencrypted(names))
            return document

        with (
            closing(S3Store.of(system.settings(**as_user("open", encrypting(Principal.SERVICE))).store)) as unencrypted,
            pytest.raises(AccessDenied),  # else the run below would show nothing
        ):
            unencrypted.put_new(system.work, "work/job-1/1/k", b"x")
        system.upload()
        if one_key:
            system.overrides = as_user("service", encrypting(Principal.SERVICE), **keys)
            system.start()
        else:
            system.overrides = {"STORE__ACCESS_KEY": "", "STORE__SECRET_KEY": "", **keys}
            system.start([Role.INTAKE], name="intake")
            for role in ROLES:
                login = as_user(role, encrypting(Principal(role)))
                system.start([role], name=role, **login)  # type: ignore[arg-type]  # all of them are settings
        system.submit("job-1")
        result = system.finish("job-1")["job-1"]
        assert (result.status.value, result.error) == ("completed", None)
        system.wait(lambda: not list(system.store.list_keys(system.work, "work/")), what="cleaned up")

        system.overrides = as_user("reader", policy(Principal.READER, names, []), **keys)
        with closing(S3Store.of(system.settings().store)) as reader:
            fetched = io.BytesIO()
            fetch_result(reader, system.results, "job-1", None, "txt", fetched)
            assert fetched.getvalue().strip()
            with pytest.raises(AccessDenied):
                reader.put(system.results, "results/job-1/1/transcript.txt", b"forged")
        with closing(S3Store.of(system.settings(STORE__ENCRYPTION="none").store)) as keyless:
            for artifact in result.artifacts:
                with pytest.raises(EncryptedObject):
                    keyless.get(system.results, artifact.claim_check.key)


def _nothing_unencrypted(names: StoreSettings) -> dict[str, object]:
    return {
        "Effect": "Deny",
        "Action": ["s3:PutObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*" for bucket in (names.work_bucket, names.results_bucket)],
        "Condition": {"Null": {"s3:x-amz-server-side-encryption-customer-algorithm": "true"}},
    }
