"""A recording proxy inside the TLS of a coordinator and its devices: what it keeps is what TLS would hide.

It stands where the coordinator is expected, with the coordinator's own server
key, and calls the real one with the key of whichever device is calling; a test
has all of them. So a recording is the plain HTTP/2 of every call, and a search in
it says something about the protocol, not about TLS.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509

from nightshift.protocol.chains import Chain, load_chain

_READ_BYTES = 1 << 16


class Recorder:
    """Proxies of both listeners of one coordinator, and everything that passed through them.

    Args:
        coordinator: its directory, with `keys/` in it.
        homes: the directory that holds the devices' homes, each of which has `identity.pem` and `membership.json`.
        targets: the ports on which the coordinator listens.
    """

    def __init__(self, coordinator: Path, homes: Path, targets: tuple[int, int]) -> None:
        self._keys = coordinator / "keys"
        self._homes = homes
        self._targets = targets
        self._streams: list[bytearray] = []
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        # asyncio itself holds its tasks only weakly.
        self._connections: set[asyncio.Task[None]] = set()
        self.ports = (0, 0)

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Proxy for the length of a block."""
        thread = threading.Thread(target=self._loop.run_forever, name="recorder")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(30)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def recorded(self) -> list[bytes]:
        """Each direction of each connection, in the clear, in the order of the connections."""
        return [bytes(stream) for stream in self._streams]

    async def _open(self) -> None:
        for target in self._targets:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int = target) -> None:
                with suppress(asyncio.CancelledError):
                    await self._proxy(reader, writer, target)

            self._servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self._server_side()))
        first, second = (server.sockets[0].getsockname()[1] for server in self._servers)
        self.ports = (first, second)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            onward = await asyncio.open_connection(
                "127.0.0.1", target, ssl=self._client_side(certificate), server_hostname="127.0.0.1"
            )
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.ensure_future(self._pump(reader, onward[1])),
            asyncio.ensure_future(self._pump(onward[0], writer)),
        ]
        try:
            # HTTP/2 never half-closes: whoever goes ends the connection.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, onward[1]):
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self._streams.append(kept)
        # A killed process ends its connection as it likes.
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                kept += data
                writer.write(data)
                await writer.drain()

    def _server_side(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._keys / "server.pem")
        context.load_verify_locations(cadata=self._root())
        # A device that joins has no certificate yet.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["h2"])
        return context

    def _client_side(self, certificate: bytes | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self._root())
        context.set_alpn_protocols(["h2"])
        if certificate is not None:
            # The device presents its leaf; towards the coordinator the recorder presents the whole chain.
            leaf = x509.load_der_x509_certificate(certificate)
            chains = {home: _chain_of(home) for home in self._homes.glob("device*")}
            home, chain = next(found for found in chains.items() if found[1].leaf == leaf)
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(chain.pem)
                file.flush()
                context.load_cert_chain(file.name, home / "identity.pem")
        return context

    def _root(self) -> str:
        return (self._keys / "root.crt").read_text("ascii")


def _chain_of(home: Path) -> Chain:
    membership = json.loads((home / "membership.json").read_bytes())
    return load_chain(base64.b64decode(membership["certificate"]))
