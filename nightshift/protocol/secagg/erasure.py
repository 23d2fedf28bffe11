"""Erasure statements: how a void cohort is laid to rest.

A device that contributed to a cohort that went void may contribute to the same
parent release again only when the first sum can never be opened. A member that
did not answer erases the prekey and says so. C - T + 1 + f such statements
leave at most T - 1 members that could still answer, even if f of the statements lie.

What the caller must do: erase the prekey, durably, before it sends the statement,
and never make one for a cohort that it answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError, VerificationError
from nightshift.protocol.identity import DeviceId, device_id, verify
from nightshift.protocol.secagg.device import Sign
from nightshift.protocol.secagg.parameters import CohortParameters


@dataclass(frozen=True, slots=True)
class ErasureStatement:
    """A member's signed word that it never answered a cohort and no longer can.

    Attributes:
        plan_hash: H of the void cohort's plan, 32 bytes.
        cohort_id: of the void cohort.
        member: the member's device id.
        signature: of `erasure_message`, 64 bytes.
    """

    plan_hash: bytes
    cohort_id: bytes
    member: DeviceId
    signature: bytes


def erasure_message(plan_hash: bytes, cohort_id: bytes) -> bytes:
    """What a member signs: domain ‖ H ‖ cohort id. The key that verifies it says which member."""
    return frame(Domain.ERASURE, plan_hash, cohort_id)


def sign_erasure(*, plan_hash: bytes, cohort_id: bytes, member: DeviceId, sign: Sign) -> ErasureStatement:
    """Make a statement. The prekey must be gone from disk before this is called."""
    signature = sign(erasure_message(plan_hash, cohort_id))
    return ErasureStatement(plan_hash=plan_hash, cohort_id=cohort_id, member=member, signature=signature)


def verify_erasure(statement: ErasureStatement, public_key: ec.EllipticCurvePublicKey) -> None:
    """Check one statement.

    Raises:
        MalformedError: the key is another device's.
        SignatureInvalidError: not signed by this member.
    """
    if device_id(public_key) != statement.member:
        raise MalformedError(f"the key given for member {statement.member.hex()} is another device's")
    message = erasure_message(statement.plan_hash, statement.cohort_id)
    verify(public_key, statement.signature, message, what="an erasure statement")


def verify_void(
    *,
    parameters: CohortParameters,
    plan_hash: bytes,
    cohort_id: bytes,
    committee: Mapping[DeviceId, ec.EllipticCurvePublicKey],
    statements: Iterable[ErasureStatement],
) -> None:
    """Check that a void cohort can never be opened, so that its devices may contribute again.

    Args:
        parameters: of the void cohort.
        plan_hash: H of its plan.
        cohort_id: of the void cohort.
        committee: its C members and their public keys.
        statements: as many as there are.

    Raises:
        VerificationError: fewer than C - T + 1 + f distinct members stated it, or a statement is wrong.
    """
    erased: set[DeviceId] = set()
    for statement in statements:
        if (statement.plan_hash, statement.cohort_id) != (plan_hash, cohort_id):
            raise MalformedError("an erasure statement is for another cohort")
        if statement.member not in committee:
            raise MalformedError(f"device {statement.member.hex()} was no member of the void cohort's committee")
        verify_erasure(statement, committee[statement.member])
        erased.add(statement.member)
    if len(erased) < parameters.erasures_required:
        raise VerificationError(
            f"{len(erased)} members stated that they erased their prekeys, expected "
            f"{parameters.erasures_required}; until then, or until the prekeys expire, the cohort might be opened"
        )
