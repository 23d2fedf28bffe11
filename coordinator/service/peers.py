"""Who is calling: the peer's certificate, never a field of a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.errors import RevokedError
from nightshift.protocol.identity import DeviceId, device_id


def caller(context: grpc.ServicerContext) -> DeviceId:
    """The device id of the certificate with which the peer made the TLS connection.

    Raises:
        RevokedError: no certificate, or one that is not for an ECDSA P-256 key.
    """
    # The stubs' types name one value for each property; the library gives a sequence.
    properties = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    pem = properties.get("x509_pem_cert", ())
    if len(pem) != 1:
        raise RevokedError("the connection shows no device certificate; join first")
    return _identity(pem[0])


@lru_cache(maxsize=4096)
def _identity(pem: bytes) -> DeviceId:
    key = x509.load_pem_x509_certificate(pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RevokedError("the connection's certificate is not a device's; join first")
    return device_id(key)
