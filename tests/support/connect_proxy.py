"""A small HTTP proxy that speaks CONNECT (RFC 9110, section 9.3.6), with or without a password, as a company has one.

It sees only TLS, and keeps the request lines that it was asked.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

from tests.support.tcp_proxy import TcpProxy

_HEAD_BYTES = 1 << 14


class ConnectProxy(TcpProxy):
    """Opens tunnels to wherever it is asked.

    Args:
        credentials: "name:password" that it wants; empty lets everybody through.
        tunnels_allowed: whether CONNECT is let through at all.
    """

    def __init__(self, credentials: str = "", *, tunnels_allowed: bool = True) -> None:
        super().__init__()
        self._wanted = base64.b64encode(credentials.encode()).decode() if credentials else ""
        self._tunnels_allowed = tunnels_allowed
        self.asked: list[str] = []
        """The request lines, in their order."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Asks for the password, and opens the tunnel."""
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
