"""A TCP server on loopback, in a thread and event loop of its own, that ends with everything it carries."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class TcpProxy(ABC):
    """What stands between a device and a coordinator.

    Args:
        port: where it listens; 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Proxy for the length of a block."""
        thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__)
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

    @abstractmethod
    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; it is cancelled when the block ends."""

    async def _open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
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
            await self.carry(reader, writer)
        writer.close()
