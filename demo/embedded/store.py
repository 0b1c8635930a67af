"""An object store inside this process: moto's S3 server, on the loopback interface and a free port.

Ordinary S3 clients (minio, boto3, presigned URLs) reach it over HTTP. With moto 5.2 and minio 7.2: buckets,
multipart, ranges, versions and delete markers, list, `If-Match` on GET, `If-None-Match: *` on PUT (412) and
the usual error codes work. What differs from MinIO:

- No authentication: every key pair and every signature is accepted, also a wrong or an expired one.
- A lifecycle is stored and read back, but nothing ever expires.
- HEAD compares `If-Match` with the quoted etag only, and copying ignores its conditions.
- No `/minio/...` addresses: no health, metrics or admin API.
- Not durable, and made for small objects: bodies under 5 MiB stay in memory, larger ones go to a temporary
  file, but each range read loads the whole object, and completing a multipart upload copies it a few times
  (500 MB: 5 s to put, 0.3 s per range, 2 GB of memory at the peak).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import ExitStack
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

try:
    from moto.backends import get_backend
    from moto.moto_server import werkzeug_app as moto_server
    from werkzeug.serving import BaseWSGIServer, make_server
except ImportError as exc:
    raise ImportError(
        "The embedded object store needs moto: pip install 'whisperx-consumer[demo]', or use a real MinIO."
    ) from exc

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LOOPBACK: Final = "127.0.0.1"
_ANY_FREE_PORT: Final = 0
_STOP_CHECK_S: Final = 0.05
"""How often the server looks whether it should stop."""
_in_use = Lock()
"""moto keeps its buckets in module variables, so a second store would share them and empty the first."""


class StoreAlreadyRunning(RuntimeError):
    """Another embedded store is running in this process, and both would be the same one."""

    def __init__(self) -> None:
        super().__init__("An embedded store is already running in this process: share it, or close it first.")


class EmbeddedStore:
    """A running, empty S3 server; one at a time in a process.

        with EmbeddedStore() as store:
            Minio(store.endpoint, store.access_key, store.secret_key, secure=store.secure)

    Raises StoreAlreadyRunning when the block is entered.
    """

    endpoint: str
    """Where the store listens while the block lasts: `127.0.0.1:port`, without a scheme as minio takes it."""
    access_key: Final = "embedded"
    secret_key: Final = "embedded-demo-only"  # noqa: S105 - protects nothing: any key is accepted
    secure: Final = False

    def __init__(self) -> None:
        self._running = ExitStack()

    def __enter__(self) -> Self:
        if not _in_use.acquire(blocking=False):
            raise StoreAlreadyRunning
        with ExitStack() as starting:
            starting.callback(_in_use.release)
            starting.callback(_forget_everything)
            server = _new_server()
            starting.callback(server.server_close)
            self.endpoint = f"{_LOOPBACK}:{server.server_port}"
            _serve(server, starting)
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()


class _QuietHandler(moto_server.MotoRequestHandler):
    """Writes no line per request; faults of the server are still logged."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _new_server() -> BaseWSGIServer:
    app = _one_at_a_time(moto_server.DomainDispatcherApplication(moto_server.create_backend_app))
    return make_server(_LOOPBACK, _ANY_FREE_PORT, app, threaded=True, request_handler=_QuietHandler)


def _serve(server: BaseWSGIServer, until: ExitStack) -> None:
    thread = Thread(target=server.serve_forever, args=(_STOP_CHECK_S,), name="embedded-store", daemon=True)
    thread.start()
    until.callback(thread.join)
    until.callback(server.shutdown)


def _one_at_a_time(app: WSGIApplication) -> WSGIApplication:
    """`app`, entered by one request at a time, so that a conditional PUT is atomic as in MinIO.

    moto checks `If-None-Match: *` and stores the object in two steps, and writes bodies of 5 MiB and more to
    disk between them: of eight writers at once, two or three win, and close each other's files. The body is
    read before the lock is taken and the answer is sent after it is released, so that a slow client holds
    nobody up.
    """
    lock = Lock()

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(_read_body(environ))
        with lock:
            return app(environ, start_response)

    return serve


def _read_body(environ: WSGIEnvironment) -> bytes:
    """The body of a request; without a stated length it ends where its encoding says, or there is none."""
    if length := environ.get("CONTENT_LENGTH"):
        body: bytes = environ["wsgi.input"].read(int(length))
    elif environ.get("wsgi.input_terminated"):
        body = environ["wsgi.input"].read()
    else:
        body = b""
    return body


def _forget_everything() -> None:
    """Empty moto's module variables and close the temporary files behind large objects."""
    for partition in get_backend("s3").values():
        partition.reset()
