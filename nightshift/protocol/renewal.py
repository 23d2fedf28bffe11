"""Late renewal: a device whose certificate has expired proves that it still holds the enrolled key.

The coordinator makes a challenge and signs it, so that it need not remember
whom it challenged; the device signs the challenge together with its signing
request. A challenge serves one device, for a few minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame, u64
from nightshift.protocol.errors import MalformedError, RevokedError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId, verify
from nightshift.v1 import join_pb2

if TYPE_CHECKING:
    from nightshift.protocol.trust import Trust

NONCE_BYTES = 32
CHALLENGE_LIFETIME_S = 300
_LATEST_UNIX_S = 1 << 62

Sign = Callable[[bytes], bytes]


def make_challenge(device: DeviceId, *, nonce: bytes, now_unix_s: int, sign: Sign) -> join_pb2.BeginRenewalResponse:
    """What the coordinator sends.

    Args:
        device: who asks.
        nonce: 32 fresh random bytes.
        now_unix_s: by the coordinator's clock.
        sign: by the coordinator's signing key.
    """
    signature = sign(_challenge(device, nonce, now_unix_s))
    return join_pb2.BeginRenewalResponse(nonce=nonce, time_unix_s=now_unix_s, signature=signature)


def verify_challenge(
    challenge: join_pb2.BeginRenewalResponse, device: DeviceId, signing_key: ec.EllipticCurvePublicKey
) -> None:
    """Check, on either side, that the coordinator made a challenge for this device.

    Raises:
        MalformedError: a nonce of another length, or a time out of range.
        SignatureInvalidError: not made by the signing key, or for another device.
    """
    if len(challenge.nonce) != NONCE_BYTES or not 0 <= challenge.time_unix_s < _LATEST_UNIX_S:
        raise MalformedError(f"a renewal's challenge holds {NONCE_BYTES} bytes and a time")
    message = _challenge(device, challenge.nonce, challenge.time_unix_s)
    verify(signing_key, challenge.signature, message, what="the renewal challenge's signature")


def require_fresh(challenge: join_pb2.BeginRenewalResponse, now_unix_s: int) -> None:
    """Refuse a challenge that was made too long ago, or is yet to be made.

    Raises:
        RevokedError: it is too old; a new renewal gets a new one.
    """
    if not 0 <= now_unix_s - challenge.time_unix_s <= CHALLENGE_LIFETIME_S:
        raise RevokedError("the renewal took too long: its challenge is no longer valid; run again")


def prove(
    challenge: join_pb2.BeginRenewalResponse, device: DeviceId, request_der: bytes, *, sign: Sign, trust: Trust
) -> join_pb2.EndRenewalRequest:
    """The device's reply to a challenge.

    Raises:
        MalformedError: the challenge is none.
        SignatureInvalidError: it is not this coordinator's, or is for another device.
    """
    verify_challenge(challenge, device, trust.signing_key)
    signature = sign(_proof(device, challenge.nonce, request_der))
    return join_pb2.EndRenewalRequest(
        device_id=device, challenge=challenge, certificate_request=request_der, signature=signature
    )


def verify_proof(request: join_pb2.EndRenewalRequest, device_key: ec.EllipticCurvePublicKey) -> None:
    """Check that the holder of the enrolled key answered the challenge.

    Raises:
        MalformedError: a device id of another length.
        SignatureInvalidError: not made by the enrolled key.
    """
    if len(request.device_id) != DEVICE_ID_BYTES:
        raise MalformedError(f"a device id has {DEVICE_ID_BYTES} bytes, got {len(request.device_id)}")
    message = _proof(request.device_id, request.challenge.nonce, request.certificate_request)
    verify(device_key, request.signature, message, what="the renewal's signature")


def _challenge(device: bytes, nonce: bytes, time_unix_s: int) -> bytes:
    return frame(Domain.RENEWAL_CHALLENGE, device, nonce, u64(time_unix_s))


def _proof(device: bytes, nonce: bytes, request_der: bytes) -> bytes:
    return frame(Domain.RENEWAL_PROOF, device, nonce, hashlib.sha256(request_der).digest())
