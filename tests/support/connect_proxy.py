"""A small HTTP proxy that speaks CONNECT (RFC 9110, section 9.3.6), with or without a password, as a company has one.

It sees only TLS, and keeps the request lines that it was asked.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HEAD_BYTES = 1 << 14


class ConnectProxy:
    """Opens tunnels to wherever it is asked.

    Args:
        credentials: "name:password" that it wants; empty lets everybody through.
        tunnels_allowed: whether CONNECT is let through at all.
    """

    def __init__(self, credentials: str = "", *, tunnels_allowed: bool = True) -> None:
        self._wanted = base64.b64encode(credentials.encode()).decode() if credentials else ""
        self._tunnels_allowed = tunnels_allowed
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        """The request lines, in their order."""
        self.port = 0

    @contextmanager
    def serving(self) -> Iterator[ConnectProxy]:
        """Proxy for the length of a block, on a free port of loopback."""
        thread = threading.Thread(target=self._loop.run_forever, name="CONNECT proxy")
        thread.start()
        try:
            server = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(30)
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self._end(server), self._loop).result(30)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n"))[:_HEAD_BYTES].decode("latin-1")
        line, *fields = head.split("\r\n")
        self.asked.append(line)
        given = [field.split(" ")[-1] for field in fields if field.lower().startswith("proxy-authorization:")]
        if self._wanted and self._wanted not in given:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
            await writer.drain()
            return
        if not self._tunnels_allowed:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            await writer.drain()
            return
        host, _, port = line.split(" ")[1].rpartition(":")
        there, back = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()
