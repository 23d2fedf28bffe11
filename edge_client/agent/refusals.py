"""Saying, in the place of an answer, that contributors' shares cannot be used.

The member erases its prekey all the same: what it would open later, for whatever set, it must not. So
the refusal carries the erasure statement, and helps to lay the cohort to rest if it ends void.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_client import ledger
from edge_client.agent.session import Session
from edge_client.store.answers import Kind, StoredAnswer
from nightshift.host.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nightshift.protocol.plan_checks import VerifiedPlan
    from nightshift.protocol.secagg.refusal import UnusableShare


def refuse(
    session: Session, plan: VerifiedPlan, *, prekey_public: bytes, set_hash: bytes, shares: Sequence[UnusableShare]
) -> StoredAnswer:
    """Make a refusal durable and erase the prekey; the caller sends it.

    Args:
        session: of this pass.
        plan: of the cohort, verified.
        prekey_public: the prekey under which the plan names this device, 32 bytes.
        set_hash: hash(U), recomputed from the entries.
        shares: which cannot be used.

    Raises:
        EquivocationError: about this cohort or plan something was said already.
    """
    from nightshift.protocol.secagg.erasure import sign_erasure
    from nightshift.protocol.secagg.refusal import sign_refusal
    from nightshift.v1 import device_pb2

    cohort_id = plan.document.cohort_id
    identity = session.identity
    refusal = sign_refusal(plan_hash=plan.plan_hash, set_hash=set_hash, shares=shares, sign=identity.sign)
    erasure = sign_erasure(plan_hash=plan.plan_hash, cohort_id=cohort_id, member=identity.device_id, sign=identity.sign)
    message = device_pb2.RefuseRequest(
        cohort_id=cohort_id,
        set_hash=set_hash,
        shares=[
            device_pb2.UnusableShare(contributor=share.contributor, fault=device_pb2.ShareFault.Name(share.fault))
            for share in refusal.shares
        ],
        signature=refusal.signature,
        erasure=erasure.signature,
    ).SerializeToString(deterministic=True)
    said = StoredAnswer(
        cohort_id, plan.plan_hash, Kind.REFUSAL, set_hash, message, plan.document.answer_deadline_unix_s, None
    )
    with session.store.database.transaction():
        session.store.answers.record(said, prekey_public=prekey_public, now_unix_s=session.now_unix_s)
        ledger.refused(
            session.store,
            cohort_id=cohort_id,
            contributors=[share.contributor for share in refusal.shares],
            size_bytes=len(message),
            now_unix_s=session.now_unix_s,
            recipient=session.connection.address,
        )
    failpoint("device.refusal.durable")
    return said
