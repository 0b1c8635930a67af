"""What an object store does to us: slow, resets, 503, withdrawn keys, missing buckets, half an upload, a full disk, a
recording that is overwritten while it is read. On real MinIO, by a proxy where the network is at fault."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from consumer.adapters.object_store import S3Store
from consumer.bootstrap import Parts, Role
from consumer.entry import require_entry
from consumer.errors import Misconfigured, MissingObject, RefusedCredentials, StoreUnavailable
from consumer.events import JobStatus
from consumer.exit_codes import ExitCode
from tests.contract.test_object_store import at_once, s3_store
from tests.integration.server_system import ALL, RECORDING, ServerSystem, server_system
from tests.servers.kafka import Kafka
from tests.servers.minio import Minio, own_minio
from tests.servers.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

MIB = 1 << 20


@pytest.fixture
def way(minio: Minio, toxiproxy: Toxiproxy, bucket_prefix: str) -> Iterator[Proxy]:
    with toxiproxy.proxy(bucket_prefix, minio.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(minio: Minio, bucket_prefix: str) -> str:
    s3_store(minio).make_bucket(f"{bucket_prefix}b")
    return f"{bucket_prefix}b"


@pytest.fixture
def system(kafka: Kafka, minio: Minio, topic_prefix: str) -> Iterator[ServerSystem]:
    with server_system(kafka, minio, topic_prefix) as made:
        yield made


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_store_takes_longer_than_a_request_may_be_silent_and_still_serves(
    minio: Minio, way: Proxy, bucket: str
) -> None:
    """The limit is on silence, not on the whole: a large object over a thin line is no fault."""
    data = os.urandom(600_000)
    s3_store(minio).put(bucket, "large", data)
    way.slow(0.3)
    way.spoil("bandwidth", {"rate": 200})  # kB/s: three seconds for the whole
    waits_s: list[float] = []
    store = s3_store(minio, way.address, waits_s.append, request_timeout_s=1.5)
    assert store.get(bucket, "large") == data
    assert b"".join(store.stream(bucket, "large", block_bytes=64_000)) == data
    assert store.put(bucket, "back", data).created
    assert waits_s == [], "nothing was tried again"


def test_connections_that_are_reset_are_tried_again(minio: Minio, way: Proxy, bucket: str) -> None:
    s3_store(minio).put(bucket, "k", b"x" * MIB)
    way.spoil("reset_peer", {"timeout": 20})  # milliseconds from the beginning of each connection
    waits_s: list[float] = []

    def wait(seconds: float) -> None:
        waits_s.append(seconds)
        if len(waits_s) == 2:
            way.heal("reset_peer")

    way.spoil("bandwidth", {"rate": 2_000})  # so that the answer takes longer than the connection lives
    store = s3_store(minio, way.address, wait)
    assert store.get(bucket, "k") == b"x" * MIB
    assert len(waits_s) == 2


def test_half_an_upload_leaves_nothing_and_is_sent_again_whole(minio: Minio, way: Proxy, bucket: str) -> None:
    cut = {"name": "half", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": 2 * MIB}}
    way.owner.call("POST", f"/proxies/{way.name}/toxics", cut)
    data, direct = os.urandom(5 * MIB), s3_store(minio)
    missing: list[bool] = []

    def wait(_: float) -> None:
        with pytest.raises(MissingObject):
            direct.stat(bucket, "k")
        missing.append(True)
        if len(missing) == 2:
            way.heal("half")

    store = s3_store(minio, way.address, wait)
    assert store.put_new(bucket, "k", data).created
    assert direct.get(bucket, "k") == data
    assert len(missing) == 2


def test_half_an_upload_in_parts_leaves_nothing(minio: Minio, way: Proxy, bucket: str) -> None:
    cut = {"name": "half", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": 6 * MIB}}
    way.owner.call("POST", f"/proxies/{way.name}/toxics", cut)
    with pytest.raises(StoreUnavailable):
        s3_store(minio, way.address).upload(bucket, "k", io.BytesIO(os.urandom(40 * MIB)))
    with pytest.raises(MissingObject):
        s3_store(minio).stat(bucket, "k")


# ── overload ────────────────────────────────────────────────────────────────────────────────────────────────────────

SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>
<Message>Please reduce your request rate</Message><Resource>/b/k</Resource><RequestId>1</RequestId></Error>"""


@contextmanager
def overloaded(refusals: int) -> Iterator[str]:
    """A store that answers 503 to its first calls, and then serves an object of one byte: its address."""
    left = iter(range(refusals))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            refused = next(left, None) is not None
            body = SLOW_DOWN if refused else b"x"
            self.send_response(503 if refused else 200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_store_that_asks_to_slow_down_is_asked_again_more_slowly() -> None:
    waits_s: list[float] = []
    with overloaded(refusals=3) as endpoint:
        store = S3Store(endpoint, "key", "secret-key", secure=False, sleep=waits_s.append)
        assert store.get("bucket", "k") == b"x"
        store.close()
    assert len(waits_s) == 3
    assert waits_s[2] > waits_s[0]


def test_a_store_that_is_overloaded_for_long_is_away() -> None:
    with overloaded(refusals=100) as endpoint:
        store = S3Store(endpoint, "key", "secret-key", secure=False, sleep=at_once)
        with pytest.raises(StoreUnavailable, match="SlowDown"):
            store.get("bucket", "k")
        store.close()


# ── keys that are withdrawn ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def administrator(minio: Minio) -> MinioAdmin:
    return MinioAdmin(
        endpoint=minio.endpoint, credentials=StaticProvider(minio.access_key, minio.secret_key), secure=minio.secure
    )


def test_keys_that_are_withdrawn_in_mid_job_are_waited_for_and_fail_no_job(
    system: ServerSystem, administrator: MinioAdmin
) -> None:
    """Every job would fail otherwise, for something that is wrong with none of them."""
    user, secret = f"{system.prefix}user", "a-secret-for-a-test"
    administrator.user_add(user, secret)
    administrator.policy_set("readwrite", user=user)
    member = system.start(ALL, chunk_s=0.5, STORE__ACCESS_KEY=user, STORE__SECRET_KEY=secret)
    system.upload()
    system.submit("one", "two")
    system.wait(lambda: len(system.partials()) >= 3)
    administrator.user_disable(user)
    try:
        system.wait(lambda: "credentials" in " ".join(member.ready().reasons))
        system.submit("three")
        seen = len(system.partials())
        with pytest.raises(AssertionError, match="not reached"):
            system.wait(lambda: len(system.partials()) > seen + 2, timeout_s=5)
        assert all(result.status is JobStatus.COMPLETED for result in system.finished().values())
    finally:
        administrator.user_enable(user)
    system.finish("one", "two", "three")
    system.assert_nothing_lost_or_doubled("one", "two", "three")
    assert system.attempts() == {1}
    system.wait(lambda: member.ready().ok)


def test_a_wrong_secret_is_about_us_and_not_about_the_object(minio: Minio, bucket: str) -> None:
    store = S3Store(minio.endpoint, minio.access_key, "a-wrong-secret", secure=False, sleep=at_once)
    with pytest.raises(RefusedCredentials, match="STORE__"):
        store.get(bucket, "k")


def test_a_worker_with_a_wrong_secret_does_not_start_and_says_why(system: ServerSystem) -> None:
    end = subprocess.run(
        [sys.executable, "-m", "consumer", "run", "--roles", "intake,cleanup"],
        env=system.environment(STORE__SECRET_KEY="a-wrong-secret"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert end.returncode == ExitCode.MISCONFIGURED, end.stderr
    (line,) = end.stderr.splitlines()
    assert '"CREDENTIALS_REFUSED"' in line
    assert "Correct WHISPERX_STORE__ACCESS_KEY, SECRET_KEY" in line


def test_a_worker_without_any_key_does_not_start_unless_it_asks_the_store_nothing(system: ServerSystem) -> None:
    keyless = system.settings(STORE__ACCESS_KEY="", STORE__SECRET_KEY="")
    require_entry(keyless, [Role.INTAKE])
    with pytest.raises(Misconfigured, match="WHISPERX_STORE__ACCESS_KEY"):
        require_entry(keyless, [Role.INTAKE, Role.PLAN])


def test_a_store_that_is_away_stops_no_start(system: ServerSystem, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    require_entry(system.settings(STORE__ENDPOINT=address), ALL)
    (record,) = [one for one in caplog.records if one.message == "The store could not be asked whether it lets us in"]
    assert address in record.__dict__["reason"]


# ── buckets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def empty_and_remove(system: ServerSystem, bucket: str) -> None:
    client = system.minio.client()
    for _ in range(20):
        for found in client.list_objects(bucket, recursive=True):
            client.remove_object(bucket, str(found.object_name))
        try:
            client.remove_bucket(bucket)
        except Exception as error:  # noqa: BLE001  (a worker wrote once more; the last try tells)
            last = error
        else:
            return
    raise last


def test_a_work_bucket_that_vanishes_fails_its_jobs_with_a_code_and_the_next_job_runs(system: ServerSystem) -> None:
    """What was in it is gone: waiting would not bring it back."""
    system.start(ALL, chunk_s=0.5)
    system.upload()
    system.submit("unlucky")
    system.wait(lambda: len(system.partials()) >= 1)
    empty_and_remove(system, system.work)
    failed = system.finish("unlucky")["unlucky"]
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code in {"BUCKET_MISSING", "INTERMEDIATE_MISSING"}
    system.store.make_bucket(system.work)
    system.submit("next")
    assert system.finish("next")["next"].status is JobStatus.COMPLETED


def test_a_results_bucket_that_is_missing_holds_requests_and_ends_no_coordinator(system: ServerSystem) -> None:
    """It is asked whether a job is known already; without an answer nothing is decided."""
    empty_and_remove(system, system.results)
    member = system.start(ALL)
    system.upload()
    system.submit("job")
    system.wait(lambda: "bucket" in " ".join(member.ready().reasons))
    assert system.finished() == {}
    system.store.make_bucket(system.results)
    system.finish("job")
    system.assert_nothing_lost_or_doubled("job")
    system.wait(lambda: member.ready().ok)


# ── a full disk ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_store_that_is_away_and_serves_again_when_there_is_room(small_disk: Path) -> None:
    """Reading works all the while, so it is a write that has to tell whether the store serves."""
    with own_minio(small_disk) as minio:
        store = s3_store(minio)
        store.make_bucket("work")
        balloon = small_disk / "somebody-elses"
        balloon.write_bytes(bytes(24 * MIB))
        with pytest.raises(StoreUnavailable):
            fill(store)
        assert store.bucket_exists("work")
        settings_store = {"endpoint": minio.endpoint, "work_bucket": "work", "secure": False}
        assert not writes(store, settings_store)
        balloon.unlink()
        wait_for_room(store, settings_store)
        assert not list(store.list_keys("work", "probe/")), "the question leaves nothing behind"
        store.close()


def fill(store: S3Store) -> None:
    for number in range(1000):
        store.put("work", f"{number}", os.urandom(MIB // 2))


def writes(store: S3Store, settings: dict[str, object]) -> bool:
    """What decides whether an object alone is at fault, or the store."""
    from consumer.settings import Settings, StoreSettings

    parts = Parts(Settings(store=StoreSettings.model_validate(settings)))
    parts._store = store
    return parts.store_serves()


def wait_for_room(store: S3Store, settings: dict[str, object]) -> None:
    """The store itself takes a moment to see its room."""
    for _ in range(300):
        if writes(store, settings):
            return
        threading.Event().wait(0.1)
    raise AssertionError("the store does not see that there is room again")


# ── a recording that changes ────────────────────────────────────────────────────────────────────────────────────────


class Overwriting(S3Store):
    """Somebody replaces the recording while it is read."""

    def read_range(
        self, bucket: str, key: str, start: int, length: int, *, etag: str | None = None, version_id: str | None = None
    ) -> bytes:
        data = super().read_range(bucket, key, start, length, etag=etag, version_id=version_id)
        if key == "changing":
            self.put(bucket, key, RECORDING.read_bytes()[:-1])
        return data


def test_a_recording_that_is_overwritten_while_it_is_read_fails_with_source_changed(system: ServerSystem) -> None:
    system.start([Role.PLAN], name="planner", store=Overwriting.of(system.settings().store))
    system.start([role for role in Role if role is not Role.PLAN])
    system.upload("changing")
    system.upload("steady")
    system.submit("changed", key="changing")
    system.submit("next", key="steady")
    results = system.finish("changed", "next")
    assert results["changed"].error is not None
    assert results["changed"].error.code == "SOURCE_CHANGED"
    assert results["next"].status is JobStatus.COMPLETED
