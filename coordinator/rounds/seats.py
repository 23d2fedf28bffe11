"""Seats on committees, and the one thing that each may say about its cohort.

A member answers, or refuses, or states that its prekey is gone: exactly one of them. A refusal
carries the erasure statement, so on the rows it is one of two: an `AnswerRow` or an `ErasureRow`.
Whoever writes one holds the seat's row (`taken`), so that two messages of a member that race are decided in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.diagnostics import short
from coordinator.storage.rows import AnswerRow, Cohort, CommitteeSeat, ErasureRow, RefusalRow
from nightshift.protocol.certificates import verify_device_certificate
from nightshift.protocol.errors import NotFoundError


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


def silent() -> ColumnElement[bool]:
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
