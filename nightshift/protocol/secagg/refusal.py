"""Refusals: how a member says that a contributor's share is unusable, in the place of an answer.

Only the member can see that a share does not open, so only its word can say it. The word is
bound to H and to hash(U): the member has recomputed hash(U) from all entries and verified every
contributor's signature, so what it complains of is what the contributor signed. What the coordinator
could have altered on the way is no matter for a refusal; the member then fails, and keeps its prekey.

A member that refuses cannot answer for the others alone: an answer is a point of the sum over all
of U, and answers for different sets mix (docs/protocol-secagg.md, "Why this threshold"). So a
refusal has the weight of a silent member and no more: the sum opens when T others answer.

What the caller must do: in one durable transaction store the refusal with the erasure statement that
goes with it, and erase the prekey; only then send. A cohort is answered or refused, never both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame, u32
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.identity import DEVICE_ID_BYTES, DeviceId, verify
from nightshift.protocol.secagg.contributors import HASH_BYTES
from nightshift.protocol.secagg.device import Sign


class ShareFault(IntEnum):
    """What is wrong with a share that its contributor signed; the numbers travel (device.proto)."""

    DOES_NOT_OPEN = 1
    NOT_IN_FIELD = 2


@dataclass(frozen=True, slots=True)
class UnusableShare:
    """A contributor's share that a member cannot use.

    Attributes:
        contributor: whose it is.
        fault: what is wrong with it.
    """

    contributor: DeviceId
    fault: ShareFault


@dataclass(frozen=True, slots=True)
class Refusal:
    """A member's signed word that it cannot answer for a set.

    Attributes:
        set_hash: hash(U), 32 bytes.
        shares: which shares are unusable, by ascending contributor; at least one.
        signature: of `refusal_message`, 64 bytes.
    """

    set_hash: bytes
    shares: tuple[UnusableShare, ...]
    signature: bytes


def refusal_message(plan_hash: bytes, set_hash: bytes, shares: Sequence[UnusableShare]) -> bytes:
    """What a member signs: domain ‖ H ‖ hash(U) ‖ (contributor ‖ fault as u32) for each share, ascending.

    Raises:
        MalformedError: no share, a contributor twice or out of order, or a field of the wrong length.
    """
    if not shares:
        raise MalformedError("a refusal must name at least one contributor")
    if len(set_hash) != HASH_BYTES or any(len(share.contributor) != DEVICE_ID_BYTES for share in shares):
        raise MalformedError("a refusal's set hash and contributors take 32 bytes each")
    if any(before.contributor >= after.contributor for before, after in pairwise(shares)):
        raise MalformedError("a refusal must name each contributor once, in ascending order")
    fields = (field for share in shares for field in (share.contributor, u32(share.fault)))
    return frame(Domain.REFUSAL, plan_hash, set_hash, *fields)


def sign_refusal(*, plan_hash: bytes, set_hash: bytes, shares: Sequence[UnusableShare], sign: Sign) -> Refusal:
    """Make a refusal.

    Args:
        plan_hash: H, 32 bytes.
        set_hash: hash(U), recomputed from the entries that were shown.
        shares: those that cannot be used, in any order.
        sign: with this member's identity key.
    """
    ordered = tuple(sorted(shares, key=lambda share: share.contributor))
    return Refusal(set_hash, ordered, sign(refusal_message(plan_hash, set_hash, ordered)))


def verify_refusal(refusal: Refusal, *, plan_hash: bytes, public_key: ec.EllipticCurvePublicKey) -> None:
    """What the coordinator checks when a refusal arrives. A well-signed one may still be a lie.

    Raises:
        MalformedError: it names nobody, or somebody twice or out of order.
        SignatureInvalidError: not signed by this member for this plan, set and shares.
    """
    message = refusal_message(plan_hash, refusal.set_hash, refusal.shares)
    verify(public_key, refusal.signature, message, what="a member's refusal")
