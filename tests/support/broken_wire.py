"""A TCP proxy whose connections break after so many bytes, as a wireless link or a modem at four in the morning does.

It sees only TLS. A test puts it on the port that a device knows, and moves the coordinator to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.support.tcp_proxy import TcpProxy

_READ_BYTES = 1 << 12
_BYTES_PER_S = 1_000_000
"""As slow as a real wire: on loopback a break could come before anybody had read what passed it."""


class BrokenWire(TcpProxy):
    """Forwards connections to one port, and breaks the first ones.

    Args:
        listen_port: where the device calls.
        target_port: where the coordinator listens.
        breaks_after: bytes from the device after which the first, second ... connection is cut; later ones are whole.
    """

    def __init__(self, listen_port: int, target_port: int, breaks_after: Sequence[int]) -> None:
        super().__init__(listen_port)
        self._target_port = target_port
        self._breaks_after = list(breaks_after)
        self.sent_bytes: list[int] = []
        """What the device sent in each connection, in the order in which they were made."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards until either side ends, or the wire breaks."""
        number = len(self.sent_bytes)
        self.sent_bytes.append(0)
        limit = self._breaks_after[number] if number < len(self._breaks_after) else None
        there = await asyncio.open_connection("127.0.0.1", self._target_port)
        pumps = [
            asyncio.ensure_future(self._up(reader, there[1], number, limit)),
            asyncio.ensure_future(self._down(there[0], writer)),
        ]
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            # What had passed the break arrives; the device learns of nothing any more.
            writer.transport.abort()
            there[1].close()
            for end in (writer, there[1]):
                with suppress(OSError):
                    await end.wait_closed()

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, limit: int | None
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                if limit is not None:
                    data = data[: limit - self.sent_bytes[number]]
                self.sent_bytes[number] += len(data)
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(len(data) / _BYTES_PER_S)
                if self.sent_bytes[number] == limit:
                    return

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                writer.write(data)
                await writer.drain()
