"""Seats on committees, and the one thing that each may say about its cohort.

A member answers, or refuses, or states that its prekey is gone: exactly one of them. A refusal
carries the erasure statement, so on the rows it is one of two: an `AnswerRow` or an `ErasureRow`.
Whoever writes one holds the seat's row (`taken`), so that two messages of a member that race are decided in order.
Until it has said it, its seats ask something of it (`asked_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.diagnostics import short
from coordinator.rounds.pace import Wait
from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import (
    AnswerRow,
    Cohort,
    CohortState,
    CommitteeSeat,
    ErasureRow,
    PrekeyRow,
    RefusalRow,
)
from nightshift.protocol.certificates import verify_device_certificate
from nightshift.protocol.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Asked:
    """What a device's seats ask of it.

    Attributes:
        duties: ids of frozen cohorts that wait for its answer, the next deadline first.
        to_erase: ids of void cohorts that wait for its statement that its prekey is gone, the first ended first. A
            cohort in which nothing was counted needs no statement, and one whose prekeys have expired none any more.
        to_come: when cohorts that still take uploads may begin to wait.
    """

    duties: tuple[bytes, ...]
    to_erase: tuple[bytes, ...]
    to_come: frozenset[Wait]


def asked_of(session: Session, device_id: bytes, now_unix_s: int) -> Asked:
    """What the seats that a device holds ask of it now."""
    rows = plain_rows(session, ASKED, {"device_id": device_id, "now_unix_s": now_unix_s})
    if not rows:
        return NOTHING
    frozen = [row for row in rows if row.state is CohortState.FROZEN]
    void = [row for row in rows if row.state is CohortState.VOID]
    return Asked(
        duties=tuple(row.cohort_id for row in sorted(frozen, key=lambda row: row.answer_deadline_unix_s)),
        to_erase=tuple(row.cohort_id for row in sorted(void, key=lambda row: (row.ended_unix_s, row.cohort_id))),
        to_come=frozenset(
            Wait(row.state, row.upload_deadline_unix_s, row.answer_deadline_unix_s)
            for row in rows
            if row.state is CohortState.OPEN
        ),
    )


def seat_of(session: Session, cohort_id: bytes, device_id: bytes) -> CommitteeSeat:
    """A device's seat on a cohort's committee.

    Raises:
        NotFoundError: no such cohort, or the device has no seat in it.
    """
    return _found(session.scalar(_seat(cohort_id, device_id)), cohort_id)


def taken(session: Session, cohort_id: bytes, device_id: bytes) -> CommitteeSeat:
    """The same, held until the transaction ends, so that nothing else is said from this seat meanwhile.

    Raises:
        NotFoundError: no such cohort, or the device has no seat in it.
    """
    # SQLite has one writer anyway and ignores FOR UPDATE.
    return _found(session.scalar(_seat(cohort_id, device_id).with_for_update()), cohort_id)


def public_key_of(deployment: Deployment, cohort: Cohort, member_index: int) -> ec.EllipticCurvePublicKey:
    """The identity key of a member, from its certificate in the plan, judged when the plan was made."""
    certificate = document_of(cohort).committee[member_index - 1].certificate
    return verify_device_certificate(certificate, deployment.authority.root, cohort.created_unix_s).public_key


def words(session: Session, cohort_id: bytes) -> dict[int, str]:
    """What each member said, by its index: "answer", "refusal" or "erasure"; those who said nothing are absent."""

    def indexes(row: type[AnswerRow] | type[ErasureRow] | type[RefusalRow]) -> Sequence[int]:
        return session.scalars(select(row.member_index).where(row.cohort_id == cohort_id)).all()

    # A refusal carries an erasure, so it is looked at last.
    said = dict.fromkeys(indexes(AnswerRow), "answer")
    said |= dict.fromkeys(indexes(ErasureRow), "erasure")
    return said | dict.fromkeys(indexes(RefusalRow), "refusal")


def prekey_of_seat() -> ColumnElement[bool]:
    """A condition on `CommitteeSeat` and `PrekeyRow`: the seat was drawn with that prekey."""
    return and_(
        CommitteeSeat.device_id == PrekeyRow.device_id,
        CommitteeSeat.prekey_epoch == PrekeyRow.epoch,
        CommitteeSeat.prekey_serial == PrekeyRow.serial,
    )


def _silent() -> ColumnElement[bool]:
    """A condition on `CommitteeSeat`: its member has said nothing yet."""
    return ~_said(AnswerRow) & ~_said(ErasureRow)


def _said(row: type[AnswerRow] | type[ErasureRow]) -> ColumnElement[bool]:
    return exists().where(row.cohort_id == CommitteeSeat.cohort_id, row.member_index == CommitteeSeat.member_index)


def _seat(cohort_id: bytes, device_id: bytes) -> Select[CommitteeSeat]:
    return select(CommitteeSeat).where(CommitteeSeat.cohort_id == cohort_id, CommitteeSeat.device_id == device_id)


def _found(seat: CommitteeSeat | None, cohort_id: bytes) -> CommitteeSeat:
    if seat is None:
        raise NotFoundError(f"this device is no committee member of a cohort {short(cohort_id)}")
    return seat


NOTHING = Asked((), (), frozenset())

# Built once: at each check-in, making a statement took as long as running it.
ASKED = (
    select(
        Cohort.cohort_id,
        Cohort.state,
        Cohort.upload_deadline_unix_s,
        Cohort.answer_deadline_unix_s,
        Cohort.ended_unix_s,
    )
    .join(CommitteeSeat, CommitteeSeat.cohort_id == Cohort.cohort_id)
    .join(PrekeyRow, prekey_of_seat())
    .where(
        CommitteeSeat.device_id == bindparam("device_id"),
        or_(
            Cohort.state == CohortState.OPEN,
            and_(Cohort.state == CohortState.FROZEN, _silent()),
            and_(
                Cohort.state == CohortState.VOID,
                Cohort.void_position.is_not(None),
                Cohort.counted > 0,
                PrekeyRow.not_after_unix_s > bindparam("now_unix_s"),
                _silent(),
            ),
        ),
    )
)
