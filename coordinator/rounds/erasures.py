"""When a void cohort is laid to rest: what its members stated, and whether that is enough.

The rule is the device's own (`nightshift.protocol.secagg.erasure.verify_void`). The coordinator
applies it too, so that it offers a plan only to devices that will accept it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, bindparam, func, select
from sqlalchemy.orm import Session

from coordinator.aggregation.documents import document_of
from coordinator.rounds.seats import silent
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
            .join(CommitteeSeat, _prekey_of_seat())
            .where(CommitteeSeat.cohort_id == cohort_id)
        )
        or 0
    )


def wanted(session: Session, device_id: bytes, now_unix_s: int) -> Sequence[bytes]:
    """Void cohorts in which a device had a seat, did not answer, and has not stated that its prekey is gone.

    A cohort in which nothing was counted needs no statement, and one whose
    prekeys have expired none any more.
    """
    return session.scalars(_WANTED, {"device_id": device_id, "now_unix_s": now_unix_s}).all()


def _prekey_of_seat() -> ColumnElement[bool]:
    return and_(
        CommitteeSeat.device_id == PrekeyRow.device_id,
        CommitteeSeat.prekey_epoch == PrekeyRow.epoch,
        CommitteeSeat.prekey_serial == PrekeyRow.serial,
    )


# Built once: at each check-in, making a statement took as long as running it.
_WANTED = (
    select(CommitteeSeat.cohort_id)
    .join(Cohort, Cohort.cohort_id == CommitteeSeat.cohort_id)
    .join(PrekeyRow, _prekey_of_seat())
    .where(
        CommitteeSeat.device_id == bindparam("device_id"),
        Cohort.state == CohortState.VOID,
        Cohort.void_position.is_not(None),
        Cohort.counted > 0,
        PrekeyRow.not_after_unix_s > bindparam("now_unix_s"),
        silent(),
    )
    .order_by(Cohort.ended_unix_s, Cohort.cohort_id)
)
