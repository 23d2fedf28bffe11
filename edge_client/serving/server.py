"""One process that listens: uvicorn around the application, ended by SIGINT or SIGTERM."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from edge_client.serving.access import Gate
from edge_client.serving.api import make_app
from edge_client.serving.desk import Desk
from nightshift.protocol.errors import UsageError

CONNECTIONS_LIMIT = 256
_GRACE_S = 1  # for answers that are being written when the process is told to end
_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """Opens the listening socket.

    Args:
        host: name or address.
        port: 0 takes a free one.

    Raises:
        UsageError: the address is not this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror or error}; expected an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno or 0)
        hint = "; is it running already? Choose another with --port" if error.errno == errno.EADDRINUSE else ""
        raise UsageError(f"cannot listen on {host} port {port}: {reason}{hint}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The base address that clients are given."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def serve_until_stopped(desk: Desk, gate: Gate, listener: socket.socket, *, started: Callable[[], None]) -> None:
    """Answers requests until the process is told to end.

    Args:
        desk: engine and queue; its engine is ended with the server.
        gate: who may ask.
        listener: from `listen`.
        started: called once requests are answered.
    """
    config = uvicorn.Config(
        make_app(desk, gate),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # addresses and times of a person's questions are nobody's business
        server_header=False,
        limit_concurrency=CONNECTIONS_LIMIT,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, started)
    try:
        server.run(sockets=[listener])
    finally:
        desk.close()


class _Server(uvicorn.Server):
    """uvicorn that ends quietly: asked to stop is no failure, so the signal is not raised again."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
