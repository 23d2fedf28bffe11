"""The body of a contribution on the wire.

    ciphertext ‖ sealed share for each index 1..C ‖ signature

Every length follows from the plan, so a receiver knows the only right total
before the first byte and has nothing to parse that the sender could stretch.
"""

from __future__ import annotations

from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import SIGNATURE_BYTES
from nightshift.protocol.secagg.contribution import Contribution
from nightshift.protocol.secagg.parameters import CohortParameters


def upload_size_bytes(parameters: CohortParameters, length: int) -> int:
    """Bytes of the body for a vector of `length` values."""
    return parameters.ciphertext_bytes(length) + _bytes_after_the_ciphertext(parameters)


def pack(contribution: Contribution) -> bytes:
    """The body of a contribution."""
    return b"".join((contribution.ciphertext, *contribution.sealed, contribution.signature))


def unpack(parameters: CohortParameters, length: int, body: bytes) -> Contribution:
    """Cut a body into its parts; nothing in them is proved yet.

    Ciphertext and shares are views of the body, not copies.

    Raises:
        MalformedError: any other total length than the plan's.
    """
    offset = parameters.ciphertext_bytes(length)
    expected = offset + _bytes_after_the_ciphertext(parameters)
    if len(body) != expected:
        raise MalformedError(f"a contribution to this cohort has {expected} bytes, got {len(body)}")
    view, size = memoryview(body), parameters.sealed_share_bytes
    sealed = tuple(view[start : start + size] for start in range(offset, expected - SIGNATURE_BYTES, size))
    return Contribution(view[:offset], sealed, signature_of(body))


def _bytes_after_the_ciphertext(parameters: CohortParameters) -> int:
    return parameters.committee_size * parameters.sealed_share_bytes + SIGNATURE_BYTES


def signature_of(body: bytes) -> bytes:
    """The signature at the end of a body: it stands for the whole, since it covers all other bytes."""
    return body[-SIGNATURE_BYTES:]
