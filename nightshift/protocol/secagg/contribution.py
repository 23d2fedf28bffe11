"""A contribution: the bytes that a device uploads, and what a coordinator checks before it folds them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.poly1305 import Poly1305

from nightshift.protocol.domains import Domain, digest
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import DeviceId, verify
from nightshift.protocol.secagg.contributors import Contributor, contribution_message
from nightshift.protocol.secagg.parameters import CohortParameters


@dataclass(frozen=True, slots=True)
class Contribution:
    """Everything a device uploads.

    Attributes:
        ciphertext: `CohortParameters.ciphertext_bytes(length)` bytes.
        sealed: one share for each member, in index order 1..C, `CohortParameters.sealed_share_bytes` bytes each.
        signature: of `contribution_message`, 64 bytes.
    """

    ciphertext: bytes | memoryview
    sealed: tuple[bytes | memoryview, ...]
    signature: bytes


def ciphertext_tag(plan_hash: bytes, sender: DeviceId, ciphertext: bytes | memoryview) -> bytes:
    """Poly1305 (RFC 8439, section 2.5) over the ciphertext: 16 bytes.

    A checksum, with a key that everybody can derive: any change that does not depend on H is
    noticed but for a chance of 8 ceil(L / 16) in 2^106 (Bernstein 2005, theorem 3.3). Who wants
    a collision finds one, and gains nothing: nobody but the coordinator ever sees a ciphertext,
    and it folds what it likes (docs/adr/0005-one-signature-and-a-ciphertext-tag.md).
    """
    return Poly1305.generate_tag(digest(Domain.CIPHERTEXT_TAG, plan_hash, sender), ciphertext)


def entry_of(plan_hash: bytes, sender: DeviceId, contribution: Contribution) -> Contributor:
    """The contribution as an entry of U. Reads all of its bytes, once."""
    return Contributor(
        device_id=sender,
        ciphertext_tag=ciphertext_tag(plan_hash, sender, contribution.ciphertext),
        sealed_sha256=tuple(hashlib.sha256(sealed).digest() for sealed in contribution.sealed),
    )


def verify_contribution(
    *,
    parameters: CohortParameters,
    length: int,
    plan_hash: bytes,
    sender: DeviceId,
    public_key: ec.EllipticCurvePublicKey,
    contribution: Contribution,
) -> Contributor:
    """What the coordinator checks when an upload is complete, before it folds it.

    Args:
        parameters: of the cohort.
        length: D, from the plan.
        plan_hash: H, 32 bytes.
        sender: the uploading device.
        public_key: of the sender.
        contribution: the upload.

    Returns:
        Its entry in U, as the sender signed it.

    Raises:
        MalformedError: the ciphertext or a share has the wrong size, or there are not C shares.
        SignatureInvalidError: the sender did not sign these bytes.
    """
    expected = parameters.ciphertext_bytes(length)
    if len(contribution.ciphertext) != expected:
        raise MalformedError(f"a ciphertext has {len(contribution.ciphertext)} bytes, expected {expected}")
    if len(contribution.sealed) != parameters.committee_size:
        raise MalformedError(
            f"a contribution has one sealed share for each of {parameters.committee_size} members, "
            f"got {len(contribution.sealed)}"
        )
    for index, sealed in enumerate(contribution.sealed, start=1):
        if len(sealed) != parameters.sealed_share_bytes:
            raise MalformedError(
                f"the sealed share for member {index} has {len(sealed)} bytes, expected {parameters.sealed_share_bytes}"
            )
    entry = entry_of(plan_hash, sender, contribution)
    message = contribution_message(plan_hash, entry)
    verify(public_key, contribution.signature, message, what="the signature of the contribution")
    return entry
