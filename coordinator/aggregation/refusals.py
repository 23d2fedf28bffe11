"""Members' refusals: that a contributor's share cannot be used. Checked, durable, and never a verdict.

A refusal has the weight of a silent member. Only when so many refused that T answers are impossible
does the cohort end at once; its members then need not wait for the deadline to lay it to rest. Who is
suspected is the matter of `coordinator.rounds.suspects`.
"""

from __future__ import annotations

import hmac

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.rounds.seats import public_key_of, seat_of, taken
from coordinator.rounds.states import Event
from coordinator.rounds.transitions import counted, void
from coordinator.storage.rows import AnswerRow, Cohort, CohortState, Device, ErasureRow, RefusalRow
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import MalformedError, StateConflictError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.erasure import ErasureStatement, verify_erasure
from nightshift.protocol.secagg.refusal import Refusal, ShareFault, UnusableShare, verify_refusal
from nightshift.v1 import device_pb2


def parse(request: device_pb2.RefuseRequest, *, most: int) -> Refusal:
    """Read a refusal.

    Args:
        request: as received.
        most: contributors that it can name.

    Raises:
        MalformedError: it names more, or a fault that does not exist.
    """
    if len(request.shares) > most:
        raise MalformedError(f"a refusal names {len(request.shares)} contributors, the set has {most}")
    known = {int(fault) for fault in ShareFault}
    if any(share.fault not in known for share in request.shares):
        raise MalformedError("a refusal names a fault that this coordinator does not know")
    shares = tuple(UnusableShare(DeviceId(share.contributor), ShareFault(share.fault)) for share in request.shares)
    return Refusal(request.set_hash, shares, request.signature)


def receive(deployment: Deployment, device: Device, request: device_pb2.RefuseRequest, *, now_unix_s: int) -> None:
    """Check a refusal and make it durable; the same one again is acknowledged again.

    Raises:
        NotFoundError: the device is no member of such a cohort.
        MalformedError: for another set, or of devices that are not in it.
        SignatureInvalidError: not signed by this member for this plan and set.
        StateConflictError: the cohort was never frozen, or this member said something else before.
    """
    cohort_id = request.cohort_id
    with deployment.database.reading() as session:
        index = seat_of(session, cohort_id, device.device_id).member_index
        cohort = session.get_one(Cohort, cohort_id)
        contributors = {row.device_id for row in counted(session, cohort)}
    refusal = parse(request, most=len(contributors))
    if cohort.set_hash is None or not hmac.compare_digest(refusal.set_hash, cohort.set_hash):
        raise MalformedError("the refusal is for another set of contributors than the one that was frozen")
    if not {share.contributor for share in refusal.shares} <= contributors:
        raise MalformedError("the refusal names a device that is not in the set of contributors")
    key = public_key_of(deployment, cohort, index)
    verify_refusal(refusal, plan_hash=cohort.plan_hash, public_key=key)
    statement = ErasureStatement(cohort.plan_hash, cohort_id, DeviceId(device.device_id), request.erasure)
    verify_erasure(statement, key)
    with deployment.database.transaction() as session:
        taken(session, cohort_id, device.device_id)
        if session.get(ErasureRow, (cohort_id, index)) is not None:
            _require_same(session, cohort_id, index, refusal)
            return
        if session.get(AnswerRow, (cohort_id, index)) is not None:
            raise StateConflictError(
                "this member answered the cohort before; a refusal now comes from an old copy of it"
            )
        session.add(
            ErasureRow(cohort_id=cohort_id, member_index=index, signature=statement.signature, time_unix_s=now_unix_s)
        )
        session.flush()
        session.add_all(_rows(cohort_id, index, refusal))
        cohort = session.get_one(Cohort, cohort_id)
        _end_if_hopeless(session, deployment, cohort, now_unix_s)
    failpoint("coordinator.refusal.durable")
    log.warning(
        "shares refused",
        cohort=short(cohort_id),
        member=index,
        contributors=[short(share.contributor) for share in refusal.shares],
    )


def _rows(cohort_id: bytes, index: int, refusal: Refusal) -> list[RefusalRow]:
    return [
        RefusalRow(
            cohort_id=cohort_id,
            member_index=index,
            contributor=share.contributor,
            fault=int(share.fault),
            set_hash=refusal.set_hash,
            signature=refusal.signature,
        )
        for share in refusal.shares
    ]


def _end_if_hopeless(session: Session, deployment: Deployment, cohort: Cohort, now_unix_s: int) -> None:
    """Void a frozen cohort of which too few members are left who could answer."""
    if cohort.state is not CohortState.FROZEN:
        return
    refused = session.scalar(
        select(func.count()).select_from(ErasureRow).where(ErasureRow.cohort_id == cohort.cohort_id)
    )
    members = document_of(cohort).parameters.committee_size
    if members - (refused or 0) >= cohort.threshold:
        return
    reason = (
        f"{refused} of {members} committee members could not use a contributor's share; "
        f"the {cohort.threshold} answers that are needed cannot come any more"
    )
    void(session, deployment, cohort, Event.UNUSABLE, reason=reason, now_unix_s=now_unix_s)


def _require_same(session: Session, cohort_id: bytes, index: int, refusal: Refusal) -> None:
    rows = session.scalars(
        select(RefusalRow).where(RefusalRow.cohort_id == cohort_id, RefusalRow.member_index == index)
    ).all()
    if {row.signature for row in rows} != {refusal.signature}:
        log.warning("second word refused", cohort=short(cohort_id), member=index)
        raise StateConflictError("this member said something else about the cohort before; that never changes")
