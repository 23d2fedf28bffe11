"""The body of a contribution on the wire.

    ciphertext ‖ for each index 1..C: sealed share ‖ signature

Every length follows from the plan, so a receiver knows the only right total
before the first byte and has nothing to parse that the sender could stretch.
"""

from __future__ import annotations

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import SIGNATURE_BYTES
from nightshift.protocol.secagg.device import Contribution, SealedShare
from nightshift.protocol.secagg.parameters import CohortParameters


def upload_size_bytes(parameters: CohortParameters, length: int) -> int:
    """Bytes of the body for a vector of `length` values."""
    per_member = parameters.sealed_share_bytes + SIGNATURE_BYTES
    return parameters.ciphertext_bytes(length) + parameters.committee_size * per_member


def pack(contribution: Contribution) -> bytes:
    """The body of a contribution."""
    ordered = sorted(contribution.shares, key=lambda share: share.index)
    return contribution.ciphertext + b"".join(share.sealed + share.signature for share in ordered)


def unpack(parameters: CohortParameters, length: int, body: bytes) -> Contribution:
    """Cut a body into its parts; nothing in them is proved yet.

    Raises:
        MalformedError: any other total length than the plan's.
    """
    expected = upload_size_bytes(parameters, length)
    if len(body) != expected:
        raise MalformedError(f"a contribution to this cohort has {expected} bytes, got {len(body)}")
    offset = parameters.ciphertext_bytes(length)
    ciphertext = body[:offset]
    shares = []
    for index in range(1, parameters.committee_size + 1):
        middle = offset + parameters.sealed_share_bytes
        end = middle + SIGNATURE_BYTES
        shares.append(SealedShare(index, body[offset:middle], body[middle:end]))
        offset = end
    return Contribution(ciphertext, tuple(shares))
