"""Where a command's question goes: to the coordinator of a directory, or over the network to a coordinator elsewhere.

Both answer the same requests with the same verbs (`coordinator.admin.verbs`).
Whoever can read the directory holds its keys and needs no certificate, so
there the verbs run in this process, also while nothing is serving. With
`--credentials` they run where the service is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from coordinator.cli.command import coordinator, target
from nightshift.protocol.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    import grpc

    from coordinator.admin.credentials import Credentials
    from coordinator.admin.operator import Operator

Q = TypeVar("Q")
R = TypeVar("R")

CALL_LIMIT_S = 120.0
STREAM_LIMIT_S = 3600.0


class Api(Protocol):
    """A coordinator that can be asked."""

    def call(self, verb: Callable[[Operator, Q], R], request: Q) -> R:
        """One reply, or an iterator of replies.

        Raises:
            NightshiftError: what the verb raises; UnreachableError where nobody answers.
        """

    def store_package(self, folder: Path) -> bytes:
        """Store a package's files; returns its manifest."""


@contextmanager
def admin_api(context: click.Context) -> Iterator[Api]:
    """The coordinator that the command line names.

    Raises:
        UsageError: it names none, or credentials that cannot be used.
    """
    named = target(context)
    if named.credentials is None:
        if named.address:
            raise UsageError(
                "--coordinator also needs --credentials, a file that `coordinator admin issue` wrote; "
                "or work in the coordinator's own directory with --data"
            )
        with coordinator(context) as deployment:
            from coordinator.admin.operator import Operator

            yield Here(Operator(deployment))
        return
    from coordinator.admin.credentials import Credentials

    credentials = Credentials.read(named.credentials)
    address = named.address or credentials.address
    if not address:
        raise UsageError(
            f"{named.credentials} states no address: the coordinator had no admin listener (listen.admin_port in "
            "coordinator.toml) when it was made; name one with --coordinator HOST:PORT"
        )
    with _channel(credentials, address) as channel:
        yield Elsewhere(channel, address)


def pages(
    api: Api, verb: Callable[[Operator, Any], Any], request: Any, entries: str, *, most: int = 0
) -> list[dict[str, Any]]:
    """All entries of a list, or the first so many, as records.

    Args:
        api: is asked.
        verb: lists.
        request: its `page` is set here.
        entries: the reply's field.
        most: 0 for all.
    """
    from coordinator.admin.messages import to_record

    found: list[dict[str, Any]] = []
    while True:
        if most:
            request.page.size = min(most - len(found), 500)
        reply = api.call(verb, request)
        found += [to_record(each) for each in getattr(reply, entries)]
        if not reply.next_page or (most and len(found) >= most):
            return found
        request.page.token = reply.next_page


@dataclass(frozen=True, slots=True)
class Here:
    """The coordinator of a directory of this machine."""

    operator: Operator

    def call(self, verb: Callable[[Operator, Q], R], request: Q) -> R:
        """See `Api.call`."""
        return verb(self.operator, request)

    def store_package(self, folder: Path) -> bytes:
        """See `Api.store_package`."""
        from coordinator.models.catalogue import store_package

        return store_package(self.operator.deployment.objects, folder)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A coordinator that is called."""

    channel: grpc.Channel
    address: str

    def call(self, verb: Callable[[Operator, Q], R], request: Q) -> R:
        """See `Api.call`."""
        import grpc

        from coordinator.admin.verbs import call_name
        from nightshift.admin.v1 import admin_pb2_grpc

        stub: Any = admin_pb2_grpc.AdminServiceStub(self.channel)  # type: ignore[no-untyped-call]  # generated
        method = getattr(stub, call_name(verb))
        try:
            if hasattr(method, "future"):
                return method(request, timeout=CALL_LIMIT_S)  # type: ignore[no-any-return]  # the stub knows no types
            return self._mapped(method(request, timeout=STREAM_LIMIT_S))  # type: ignore[return-value]  # an iterator
        except grpc.RpcError as error:
            raise self._meaning(error) from error

    def store_package(self, folder: Path) -> bytes:
        """See `Api.store_package`."""
        from coordinator.models.catalogue import read_manifest
        from nightshift.protocol.manifest import Manifest

        manifest = read_manifest(folder)
        for file in Manifest.from_bytes(manifest).files:
            self._send(folder / file.name, bytes.fromhex(file.sha256), file.size_bytes)
        return manifest

    def _send(self, path: Path, sha256: bytes, size_bytes: int) -> None:
        import grpc

        from nightshift.admin.v1 import admin_pb2, admin_pb2_grpc
        from nightshift.host.rpc import CHUNK_BYTES

        def messages() -> Iterator[admin_pb2.StoreArtefactRequest]:
            yield admin_pb2.StoreArtefactRequest(sha256=sha256, size_bytes=size_bytes)
            with path.open("rb") as file:
                while data := file.read(CHUNK_BYTES):
                    yield admin_pb2.StoreArtefactRequest(data=data)

        stub: Any = admin_pb2_grpc.AdminServiceStub(self.channel)  # type: ignore[no-untyped-call]  # generated
        try:
            stub.StoreArtefact(messages(), timeout=STREAM_LIMIT_S)
        except grpc.RpcError as error:
            raise self._meaning(error) from error

    def _mapped(self, replies: Iterator[Any]) -> Iterator[Any]:
        import grpc

        try:
            yield from replies
        except grpc.RpcError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: grpc.RpcError) -> Exception:
        from nightshift.host.rpc import from_rpc_error

        meant = from_rpc_error(error, self.address)
        if type(meant) is not UnreachableError:
            return meant
        return UnreachableError(
            f"no coordinator answers operators at {self.address}: it does not run, its listen.admin_host or admin_port "
            "in coordinator.toml is another, or it does not accept these credentials. "
            "On its own machine every command also works without it: coordinator --data DIRECTORY …"
        )


@contextmanager
def _channel(credentials: Credentials, address: str) -> Iterator[grpc.Channel]:
    import grpc

    from nightshift.host.rpc import CHANNEL_OPTIONS

    tls = grpc.ssl_channel_credentials(
        credentials.root.encode(), credentials.key.encode(), credentials.certificate.encode()
    )
    # The name is fixed by the file, so that a forwarded port is as good as the address itself.
    options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", credentials.server_name)]
    with grpc.secure_channel(address, tls, options=options) as channel:
        yield channel
