"""Calls to the coordinator: TLS both ways, a deadline on every call, errors mapped once.

grpc is imported inside functions: a pass that ends at its conditions, and every
command that needs no coordinator, must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from edge_client.identity import Identity, Membership
from nightshift.host.tls import prepare_grpc

if TYPE_CHECKING:
    import grpc

    from edge_client.traffic_meter import Meter
    from nightshift.v1 import device_pb2_grpc, join_pb2_grpc

CALL_DEADLINE_S = 30.0
STREAM_DEADLINE_S = 3600.0

Reply = TypeVar("Reply")


class Connection:
    """An open channel to the coordinator's listener for enrolled devices.

    Attributes:
        address: host:port, for messages and the ledger.
        stub: the calls of the device service.
        meter: counts bytes against the owner's nightly limit; None counts nothing.
    """

    def __init__(self, address: str, stub: device_pb2_grpc.DeviceServiceStub, meter: Meter | None = None) -> None:
        self.address = address
        self.stub = stub
        self._meter = meter

    def call(self, method: Callable[[], Reply]) -> Reply:
        """Run one call; what gRPC raises comes back as an error of this project.

        Raises:
            NightshiftError: what the coordinator said, or why it could not be reached.
            DeclinedError: the night's limit of bytes is reached.
        """
        if self._meter is None:
            return _mapped(method, self.address)
        self._meter.check()
        try:
            return _mapped(method, self.address)
        finally:
            self._meter.settle()

    def stream(self, method: Callable[[], Iterator[Reply]]) -> Iterator[Reply]:
        """Iterate over a streamed reply, with errors mapped as in `call`."""
        replies = self.call(method)
        try:
            while True:
                try:
                    reply = _mapped(lambda: next(replies), self.address)
                except StopIteration:
                    return
                if self._meter is not None:
                    self._meter.check()
                yield reply
        finally:
            if self._meter is not None:
                self._meter.settle()
            # Left early: tell the server to stop sending.
            cancel = getattr(replies, "cancel", None)
            if cancel is not None:
                cancel()


def _mapped(method: Callable[[], Reply], address: str) -> Reply:
    import grpc

    from nightshift.host.rpc import from_rpc_error

    try:
        return method()
    except grpc.RpcError as error:
        raise from_rpc_error(error, address) from error


@contextmanager
def connect(identity: Identity, membership: Membership, meter: Meter | None = None) -> Iterator[Connection]:
    """Open the channel to the coordinator, with this device's certificate.

    An HTTP proxy on the way is gRPC's own affair: it reads https_proxy, http_proxy and no_proxy (docs/client.md).

    Raises:
        NightshiftError: from the calls, not from here: gRPC connects on first use.
    """
    prepare_grpc()
    import grpc

    from nightshift.protocol.chains import load_chain
    from nightshift.v1.device_pb2_grpc import DeviceServiceStub

    credentials = grpc.ssl_channel_credentials(
        root_certificates=_pem(membership.root),
        private_key=identity.private_key_pem(),
        certificate_chain=load_chain(membership.certificate).pem,
    )
    with _channel(membership.device_address, credentials) as channel:
        if meter is None:
            stub = DeviceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
        else:
            from edge_client.traffic_meter import MeteredChannel

            stub = DeviceServiceStub(MeteredChannel(channel, meter))  # type: ignore[no-untyped-call]  # generated code
        yield Connection(membership.device_address, stub, meter)


@contextmanager
def connect_to_join(address: str, root_der: bytes) -> Iterator[join_pb2_grpc.JoinServiceStub]:
    """Open the channel to the join listener, trusting one root only."""
    prepare_grpc()
    import grpc

    from nightshift.v1.join_pb2_grpc import JoinServiceStub

    with _channel(address, grpc.ssl_channel_credentials(root_certificates=_pem(root_der))) as channel:
        yield JoinServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code


def join_call(method: Callable[[], Reply], address: str) -> Reply:
    """Run one call of the join service, errors mapped.

    Raises:
        NightshiftError: what the coordinator said, or why it could not be reached.
    """
    return _mapped(method, address)


@contextmanager
def _channel(address: str, credentials: grpc.ChannelCredentials) -> Iterator[grpc.Channel]:
    import grpc

    from nightshift.host.rpc import CHANNEL_OPTIONS

    channel = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
    try:
        yield channel
    finally:
        channel.close()


def _pem(der: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    from nightshift.protocol.certificates import load_certificate

    return load_certificate(der).public_bytes(Encoding.PEM)
