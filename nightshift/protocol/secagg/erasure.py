"""Erasure statements: how a void cohort is laid to rest.

A device that contributed to a cohort that went void may contribute to the same
parent release again only when the first sum can never be opened. A member that
did not answer erases the prekey and says so. C - T + 1 + f such statements
leave at most T - 1 members that could still answer, even if f of the statements lie.

A lying coordinator may log a void that is none and collect statements. It gains nothing:
whoever stated can no longer answer, so it has destroyed its own sum.

What the caller must do: check first that the void is in the log; never make a statement for a
cohort that it answered, nor for a prekey of an epoch whose record of answers is lost; store the
statement and erase the prekey in one durable transaction; only then send it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from nightshift.protocol.domains import Domain, frame
from nightshift.protocol.errors import MalformedError, VerificationError
from nightshift.protocol.identity import DeviceId, device_id, verify
from nightshift.protocol.secagg.device import Sign


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
    """Make a statement. It leaves the device only when it is durable and the prekey is gone from disk."""
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
    required: int,
    plan_hash: bytes,
    cohort_id: bytes,
    committee: Mapping[DeviceId, ec.EllipticCurvePublicKey],
    statements: Iterable[ErasureStatement],
) -> None:
    """Check that a void cohort can never be opened, so that its devices may contribute again.

    Args:
        required: C - T + 1 + f of the void cohort (`CohortParameters.erasures_required`).
        plan_hash: H of its plan.
        cohort_id: of the void cohort.
        committee: its C members and their public keys, from the plan that the caller contributed to.
        statements: as many as there are.

    Raises:
        VerificationError: fewer than `required` distinct members stated it.
        MalformedError: a statement is for another cohort, or of no member.
        SignatureInvalidError: a statement is not signed by its member.
    """
    erased: set[DeviceId] = set()
    for statement in statements:
        if (statement.plan_hash, statement.cohort_id) != (plan_hash, cohort_id):
            raise MalformedError("an erasure statement is for another cohort")
        if statement.member not in committee:
            raise MalformedError(f"device {statement.member.hex()} was no member of the void cohort's committee")
        verify_erasure(statement, committee[statement.member])
        erased.add(statement.member)
    if len(erased) < required:
        raise VerificationError(
            f"{len(erased)} members stated that they erased their prekeys, expected {required}; "
            "until then, or until the prekeys expire, the cohort might be opened"
        )
