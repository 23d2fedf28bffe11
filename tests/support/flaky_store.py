"""A proxy before an S3 server that fails as a test tells it: 503, a cut connection, silence, half a body."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Fault = Callable[["_Handler"], None]


class FlakyStore:
    """What happens to the next requests.

    Attributes:
        endpoint: for `BucketObjects`.
        requests: (method, path) of everything that came, failed ones included.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[tuple[str, str]] = []
        self._guard = threading.Lock()
        self._faults: list[tuple[str, Fault]] = []
        self._always: Fault | None = None
        self._containing = ""

    def fail(self, fault: Fault, *, times: int, method: str = "") -> None:
        """The next requests (with a method, if one is named) end so."""
        with self._guard:
            self._faults += [(method, fault)] * times

    def fail_always(self, fault: Fault | None, *, containing: str = "") -> None:
        """All requests (whose path contains something) end so, until None is said."""
        self._always, self._containing = fault, containing

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self._guard:
            self.requests.append((method, path))
            if self._always is not None and self._containing in path:
                return self._always
            for place, (wanted, fault) in enumerate(self._faults):
                if wanted in ("", method):
                    del self._faults[place]
                    return fault
        return None


def unavailable(handler: _Handler) -> None:
    """503, as S3 says SlowDown."""
    handler.read_body()
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    handler.answer(503, {"Content-Type": "application/xml"}, body)


def cut(handler: _Handler) -> None:
    """The connection ends before anything was answered, with the body half read."""
    handler.cut()


def after_storing(handler: _Handler) -> None:
    """The store did what was asked; the answer is lost."""
    handler.forward()
    handler.cut()


def half_an_answer(handler: _Handler) -> None:
    """The connection ends in the middle of the answer's body."""
    status, headers, body = handler.forward()
    handler.answer(status, headers, body, cut_at=len(body) // 2)


def silent_for(seconds: float) -> Fault:
    """No answer for so long, then none at all."""

    def fault(handler: _Handler) -> None:
        time.sleep(seconds)
        handler.cut()

    return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FlakyStore
    upstream: str

    def _serve(self) -> None:
        fault = self.store.next_fault(self.command, self.path)
        if fault is not None:
            fault(self)
            return
        self.answer(*self.forward())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def forward(self) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body=self.read_body(), headers=dict(self.headers))
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes, cut_at: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "content-length", "date", "server"}:
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut_at])
        if cut_at is not None:
            self.cut()

    def cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a test cut is no error."""


@contextmanager
def flaky_store(upstream: str) -> Iterator[FlakyStore]:
    """The proxy, before the S3 server at an endpoint."""
    handler = type("Handler", (_Handler,), {"upstream": urlsplit(upstream).netloc})
    with _Server(("127.0.0.1", 0), handler) as server:
        store = FlakyStore(f"http://127.0.0.1:{server.server_address[1]}")
        handler.store = store  # type: ignore[attr-defined]  # a class made for this server
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
