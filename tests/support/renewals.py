"""Renewal, in time and late step by step, by a device of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nightshift.host.rpc import CHANNEL_OPTIONS, from_rpc_error
from nightshift.host.tokens import JoinToken
from nightshift.protocol.renewal import prove
from nightshift.v1 import device_pb2, join_pb2, join_pb2_grpc
from tests.support.scripted_device import ScriptedDevice


def renew(device: ScriptedDevice, request: bytes | None = None) -> bytes:
    """Ask over mutual TLS; the certificate that came back.

    Raises:
        NightshiftError: why none did.
    """
    message = device_pb2.RenewCertificateRequest(
        certificate_request=device.certificate_request() if request is None else request
    )
    try:
        certificate: bytes = device.stub.RenewCertificate(message, timeout=10).certificate
    except grpc.RpcError as error:
        raise from_rpc_error(error, device.token.device_address) from error
    return certificate


@contextmanager
def join_stub(token: JoinToken) -> Iterator[join_pb2_grpc.JoinServiceStub]:
    """The calls of the join listener."""
    root = x509.load_der_x509_certificate(token.root_der).public_bytes(serialization.Encoding.PEM)
    with grpc.secure_channel(token.join_address, grpc.ssl_channel_credentials(root), CHANNEL_OPTIONS) as channel:
        yield join_pb2_grpc.JoinServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code


def begin(device: ScriptedDevice) -> join_pb2.EndRenewalRequest:
    """Ask for a challenge, and answer it; the answer is not sent yet."""
    with join_stub(device.token) as stub:
        challenge = stub.BeginRenewal(join_pb2.BeginRenewalRequest(device_id=device.device_id), timeout=10)
    return prove(challenge, device.device_id, device.certificate_request(), sign=device.sign, trust=device.trust)


def end(device: ScriptedDevice, request: join_pb2.EndRenewalRequest) -> bytes:
    """Send it; the certificate that came back.

    Raises:
        NightshiftError: why none did.
    """
    with join_stub(device.token) as stub:
        try:
            certificate: bytes = stub.EndRenewal(request, timeout=10).certificate
        except grpc.RpcError as error:
            raise from_rpc_error(error, device.token.join_address) from error
    return certificate
