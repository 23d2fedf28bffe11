"""The signed list of devices that no longer count."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nightshift.protocol.domains import Domain, frame, u64
from nightshift.protocol.errors import MalformedError, VerificationError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId, verify
from nightshift.protocol.trust import Trust
from nightshift.v1 import device_pb2


def _message(number: int, ids: Iterable[bytes]) -> bytes:
    return frame(Domain.REVOCATION_LIST, u64(number), *ids)


def sign_revocation(number: int, ids: Iterable[DeviceId], sign: Callable[[bytes], bytes]) -> device_pb2.RevocationList:
    """Make the list; `number` grows by one with every revocation."""
    ordered = sorted(ids)
    return device_pb2.RevocationList(number=number, device_ids=ordered, signature=sign(_message(number, ordered)))


def verify_revocation(message: device_pb2.RevocationList, *, trust: Trust, last_number: int = 0) -> frozenset[DeviceId]:
    """Check the list and return who is revoked.

    Args:
        message: as received.
        trust: whose key must have signed it.
        last_number: the newest list this device has seen.

    Raises:
        SignatureInvalidError: not made by the signing key.
        VerificationError: an older list than one already seen.
        MalformedError: ids of the wrong length or order.
    """
    ids = list(message.device_ids)
    if any(len(item) != DEVICE_ID_BYTES for item in ids) or ids != sorted(set(ids)):
        raise MalformedError("the revocation list is malformed: ids must be distinct, sorted and of 32 bytes")
    verify(trust.signing_key, message.signature, _message(message.number, ids), what="the revocation list's signature")
    if message.number < last_number:
        raise VerificationError(f"revocation list {message.number} is older than list {last_number} seen before")
    return frozenset(DeviceId(item) for item in ids)
