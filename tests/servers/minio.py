"""A real MinIO of one node: the object store."""

from __future__ import annotations

import http
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import minio
import urllib3
from minio.credentials.providers import StaticProvider
from minio.error import MinioException, S3Error
from minio.minioadmin import MinioAdmin

from tests.servers import versions
from tests.servers.certificates import Certificates
from tests.servers.containers import ServerContainer, engine_answers
from tests.servers.control import Control, NotOurs, Ready, StartError, running, unavailable
from tests.servers.packages import MINIO
from tests.servers.process import ServerProcess, free_port, port_answers

VARIABLE = "WHISPERX_TEST_MINIO"
READY_TIMEOUT_S = 5.0
INNER_PORT = 9000


@dataclass(frozen=True)
class Minio:
    """A store that answers at `endpoint`, a host with its port, to the given keys."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    secure: bool
    control: Control = field(repr=False)
    ca_file: str = ""
    """The authority behind its certificate, where the system does not know it."""

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"

    def client(self, http_client: urllib3.PoolManager | None = None) -> minio.Minio:
        if http_client is None and self.ca_file:
            http_client = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=self.ca_file)
        return minio.Minio(
            self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=self.secure,
            http_client=http_client,
        )

    def user(self, name: str, policy: dict[str, object]) -> str:
        """Make a user who may do what the policy says and nothing else; its secret key."""
        pool = urllib3.PoolManager(ca_certs=self.ca_file or None)
        keys = StaticProvider(self.access_key, self.secret_key)
        admin = MinioAdmin(endpoint=self.endpoint, credentials=keys, secure=self.secure, http_client=pool)
        secret_key = secrets.token_hex(16)
        admin.policy_add(name, policy=policy)
        admin.user_add(name, secret_key)
        admin.policy_set(name, user=name)
        pool.clear()
        return secret_key

    def stop(self) -> None:
        """Make the store unreachable; its data stays."""
        self.control.stop()

    def start(self) -> None:
        """Bring it back under the same address with the same data, and wait until it answers."""
        self.control.start()


@contextmanager
def minio_server(folder: Path) -> Iterator[Minio]:
    """The store whose address is in the environment, else an own one with its files in `folder`."""
    given = os.environ.get(VARIABLE)
    if given:
        yield given_minio(given)
        return
    with own_minio(folder) as store:
        yield store


def given_minio(url: str) -> Minio:
    """The store at http://ACCESS:SECRET@HOST:PORT. Raises StartError when it does not accept the keys."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not (parts.hostname and parts.username and parts.password):
        raise StartError(f"{VARIABLE} must read http://ACCESS:SECRET@HOST:PORT")
    endpoint = parts.netloc.rpartition("@")[2]
    keys = unquote(parts.username), unquote(parts.password)
    store = Minio(endpoint, *keys, secure=parts.scheme == "https", control=NotOurs(VARIABLE))
    if not _accepts_our_keys(store):
        raise StartError(f"no MinIO answers at {endpoint}")
    return store


@contextmanager
def own_minio(folder: Path, extra: Mapping[str, str] | None = None, tls: Certificates | None = None) -> Iterator[Minio]:
    """A fresh store: a container where Docker answers, else a process. `extra` are MINIO_* settings.

    In a container 127.0.0.1 is the container itself: a setting that names a server of this machine needs another name.
    With `tls`, it is always a process: its certificates and its data are files of this machine.
    """
    port, access_key, secret_key = free_port(), "whisperx-tests", secrets.token_hex(16)
    environment = _settings(access_key, secret_key) | dict(extra or {})

    def store(control: Control) -> Minio:
        ca_file = str(tls.authority) if tls else ""
        return Minio(f"127.0.0.1:{port}", access_key, secret_key, tls is not None, control, ca_file)

    def ready() -> bool:
        return port_answers(port) and _accepts_our_keys(store(NotOurs(VARIABLE)))

    if engine_answers() and not tls:
        server: Control = _container(port, environment, ready)
    elif MINIO.is_installed():
        server = _process(port, folder, environment, ready, _certs_dir(folder, tls) if tls else ())
    else:
        unavailable(f"no MinIO: set {VARIABLE}, start Docker, or run python -m tests.servers.install minio")
    with running(server):
        yield store(server)


def _settings(access_key: str, secret_key: str) -> dict[str, str]:
    return {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "GOMAXPROCS": "2",
    }


def _process(
    port: int, folder: Path, environment: dict[str, str], ready: Ready, options: Iterable[str]
) -> ServerProcess:
    command = [str(MINIO.path), "server", "--address", f"127.0.0.1:{port}", *options, str(folder / "data")]
    return ServerProcess("minio", command, folder, ready, environment)


def _certs_dir(folder: Path, tls: Certificates) -> tuple[str, str]:
    """The option for a folder with the names that MinIO looks for."""
    certs = folder / "certs"
    certs.mkdir(parents=True)
    (certs / "public.crt").write_bytes(tls.chain.read_bytes())
    (certs / "private.key").write_bytes(tls.key.read_bytes())
    return "--certs-dir", str(certs)


def _container(port: int, environment: dict[str, str], ready: Ready) -> ServerContainer:
    command = ["server", "--address", f":{INNER_PORT}", "/data"]
    return ServerContainer("minio", versions.MINIO_IMAGE, command, port, INNER_PORT, ready, environment)


def _accepts_our_keys(store: Minio) -> bool:
    """False while it starts. Raises StartError when it refuses the keys.

    An own store's secret is random, so only the server that we started accepts it.
    """
    with urllib3.PoolManager(retries=False, timeout=READY_TIMEOUT_S, ca_certs=store.ca_file or None) as pool:
        try:
            store.client(pool).list_buckets()
        except S3Error as exc:
            if exc.response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                return False
            raise StartError(f"{store.endpoint} does not accept our keys: {exc}") from exc
        except (MinioException, urllib3.exceptions.HTTPError):
            return False
    return True
