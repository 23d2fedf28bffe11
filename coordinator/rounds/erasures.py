"""When a void cohort is laid to rest: what its members stated, and whether that is enough.

The rule is the device's own (`nightshift.protocol.secagg.erasure.verify_void`). The coordinator
applies it too, so that it offers a plan only to devices that will accept it.
"""

from __future__ import annotations

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from coordinator.aggregation.documents import document_of
from coordinator.rounds.seats import prekey_of_seat
from coordinator.storage.rows import Cohort, CohortState, CommitteeSeat, ErasureRow, PrekeyRow
from nightshift.v1 import device_pb2


def statements(session: Session, cohort_id: bytes) -> list[device_pb2.ErasureStatement]:
    """What members of a void cohort stated, in the order of the committee."""
    rows = session.execute(
        select(CommitteeSeat.device_id, ErasureRow.signature)
        .join(
            ErasureRow,
            and_(
                ErasureRow.cohort_id == CommitteeSeat.cohort_id, ErasureRow.member_index == CommitteeSeat.member_index
            ),
        )
        .where(ErasureRow.cohort_id == cohort_id)
        .order_by(ErasureRow.member_index)
    )
    return [device_pb2.ErasureStatement(member=member, signature=signature) for member, signature in rows]


def is_laid_to_rest(session: Session, cohort: Cohort, now_unix_s: int) -> bool:
    """Whether nobody can open a cohort any more: enough members erased their prekeys, or all prekeys expired."""
    if cohort.state is not CohortState.VOID:
        return False
    stated = session.scalar(
        select(func.count()).select_from(ErasureRow).where(ErasureRow.cohort_id == cohort.cohort_id)
    )
    enough = (stated or 0) >= document_of(cohort).parameters.erasures_required
    return enough or now_unix_s > prekeys_expire_unix_s(session, cohort.cohort_id)


def prekeys_expire_unix_s(session: Session, cohort_id: bytes) -> int:
    """When the last prekey of a cohort's committee expires."""
    return (
        session.scalar(
            select(func.max(PrekeyRow.not_after_unix_s))
            .join(CommitteeSeat, prekey_of_seat())
            .where(CommitteeSeat.cohort_id == cohort_id)
        )
        or 0
    )
