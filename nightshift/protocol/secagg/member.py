"""What a committee member does: add the shares of the contributors, once.

What the caller must do around `answer`: check the plan, the log and the
certificates first; refuse when this plan or this cohort id was answered before;
then, in one fully synchronous transaction, store H, hash(U) and the `Answer` and
erase the prekey; only then send. Asked again for the same U, send the stored
bytes; for another U, refuse and report it (two answers would open a difference).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import (
    DeclinedError,
    HashMismatchError,
    MalformedError,
    NightshiftError,
    UsageError,
)
from nightshift.protocol.identity import DeviceId, device_id, verify
from nightshift.protocol.secagg import contributors as frozen_set
from nightshift.protocol.secagg import sharing
from nightshift.protocol.secagg.contributors import Contributor, check_entry, contribution_message
from nightshift.protocol.secagg.device import Sign
from nightshift.protocol.secagg.errors import ShareRefusedError, SharesUnusableError
from nightshift.protocol.secagg.parameters import MIN_DEVICES, RING_DIMENSION, CohortParameters
from nightshift.protocol.secagg.refusal import ShareFault, UnusableShare
from nightshift.protocol.secagg.sealing import open_sealed, seal_info


@dataclass(frozen=True, slots=True)
class ShareForMember:
    """One contributor's entry in the bundle that a member receives.

    Attributes:
        contributor: the entry of U.
        public_key: of the contributor; the caller has checked its certificate.
        sealed: this member's sealed share.
        signature: the contributor's, over its entry, 64 bytes.
    """

    contributor: Contributor
    public_key: ec.EllipticCurvePublicKey
    sealed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A member's answer: its share of the sum of the keys.

    Attributes:
        index: the member's, 1..C.
        vector: N field elements, little endian.
        signature: over domain ‖ H ‖ hash(U) ‖ index ‖ vector, 64 bytes.
    """

    index: int
    vector: bytes
    signature: bytes


def answer_message(plan_hash: bytes, set_hash: bytes, index: int, vector: bytes) -> bytes:
    """What a member signs: domain ‖ H ‖ hash(U) ‖ index (u32, big endian) ‖ vector."""
    return frame(Domain.ANSWER, plan_hash, set_hash, struct.pack(">I", index), vector)


def answer(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    set_hash: bytes,
    index: int,
    member: DeviceId,
    prekey_private: bytes,
    shares: Iterable[ShareForMember],
    sign: Sign,
    minimum: int = MIN_DEVICES,
) -> Answer:
    """Verify, open and add the shares of one cohort.

    Args:
        parameters: of the cohort.
        plan_hash: H, 32 bytes.
        set_hash: hash(U) as logged; it is computed again from `shares`.
        index: this member's, from the plan.
        member: this device.
        prekey_private: the private half of the prekey in the plan, 32 bytes.
        shares: one for each contributor, in any order; consumed as a stream.
        sign: with this device's identity key.
        minimum: fewest contributors, the larger of the plan's n_min and the owner's own; never below 3.

    Raises:
        ShareRefusedError: a share is not what its contributor signed; the member may be asked again.
        SharesUnusableError: shares do not open, though they are what their contributors signed; all else is as
            it must be. The member says so in the place of an answer (`refusal`).
        HashMismatchError: the shares are not those of hash(U).
        MalformedError: more than n_max contributors, or one of them twice.
        DeclinedError: fewer than `minimum` contributors.
        UsageError: `index` is not in 1..C.
    """
    if not 1 <= index <= parameters.committee_size:
        raise UsageError(f"a member's index lies in 1..{parameters.committee_size}, got {index}")
    total = np.zeros(RING_DIMENSION, dtype=np.uint64)
    seen: list[Contributor] = []
    unusable: list[UnusableShare] = []
    for share in shares:
        if len(seen) == parameters.n_max:
            raise MalformedError(f"the set of contributors has more than n_max = {parameters.n_max} devices")
        opened = _open_share(
            parameters=parameters,
            plan_hash=plan_hash,
            index=index,
            member=member,
            prekey_private=prekey_private,
            share=share,
        )
        if isinstance(opened, ShareFault):
            unusable.append(UnusableShare(share.contributor.device_id, opened))
        else:
            total += opened
        seen.append(share.contributor)
    if len(seen) < max(minimum, MIN_DEVICES):
        raise DeclinedError(
            f"a sum of {len(seen)} contributors would say too much about each; "
            f"this member answers for {max(minimum, MIN_DEVICES)} or more"
        )
    if frozen_set.set_hash(plan_hash, seen) != set_hash:
        raise HashMismatchError("the shares in the bundle are not those of the logged set of contributors")
    if unusable:
        # An answer without them would be one for another set, and such answers mix.
        raise SharesUnusableError(
            f"the shares of {len(unusable)} contributors cannot be used, the first that of "
            f"{unusable[0].contributor.hex()[:16]}; the cohort is not answered",
            shares=sorted(unusable, key=lambda share: share.contributor),
        )
    vector = sharing.to_bytes(total % np.uint64(parameters.field_prime), parameters)
    signature = sign(answer_message(plan_hash, set_hash, index, vector))
    return Answer(index=index, vector=vector, signature=signature)


def _open_share(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    index: int,
    member: DeviceId,
    prekey_private: bytes,
    share: ShareForMember,
) -> sharing.FieldVector | ShareFault:
    contributor = share.contributor
    name = contributor.device_id.hex()
    try:
        check_entry(contributor, parameters.committee_size)
        if device_id(share.public_key) != contributor.device_id:
            raise HashMismatchError("the public key given for it does not have its device id")
        verify(share.public_key, share.signature, contribution_message(plan_hash, contributor), what="its signature")
        if hashlib.sha256(share.sealed).digest() != contributor.sealed_sha256[index - 1]:
            raise HashMismatchError("the sealed share does not have the hash that its contributor signed")
    except NightshiftError as error:
        raise ShareRefusedError(
            f"the share of contributor {name} is refused: {error}; the cohort cannot be answered",
            contributor=contributor.device_id,
        ) from error
    # From here on it is what the contributor signed, so a fault is the contributor's.
    info = seal_info(plan_hash, contributor.device_id, member)
    try:
        opened = open_sealed(share.sealed, prekey_private, info, parameters)
    except NightshiftError:
        return ShareFault.DOES_NOT_OPEN
    try:
        return sharing.from_bytes(opened, parameters, what="its share")
    except NightshiftError:
        return ShareFault.NOT_IN_FIELD


def verify_answer(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    set_hash: bytes,
    answer: Answer,
    public_key: ec.EllipticCurvePublicKey,
) -> None:
    """What the coordinator checks when an answer arrives. A well-formed answer may still be wrong.

    Raises:
        MalformedError: index outside 1..C, wrong size, or an element not below p.
        SignatureInvalidError: not signed by this member for this plan and this set.
    """
    if not 1 <= answer.index <= parameters.committee_size:
        raise MalformedError(f"an answer's index lies in 1..{parameters.committee_size}, got {answer.index}")
    what = f"the answer of member {answer.index}"
    sharing.from_bytes(answer.vector, parameters, what=what)
    message = answer_message(plan_hash, set_hash, answer.index, answer.vector)
    verify(public_key, answer.signature, message, what=f"the signature of {what}")
