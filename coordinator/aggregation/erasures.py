"""Members' erasure statements for void cohorts: checked, and durable before the reply."""

from __future__ import annotations

from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.rounds.seats import public_key_of, seat_of, taken
from coordinator.storage.rows import AnswerRow, Cohort, CohortState, Device, ErasureRow
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import StateConflictError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.secagg.erasure import ErasureStatement, verify_erasure


def receive(deployment: Deployment, device: Device, *, cohort_id: bytes, signature: bytes, now_unix_s: int) -> None:
    """Check a statement and make it durable; the same statement again is acknowledged again.

    Raises:
        NotFoundError: the device is no member of such a cohort.
        SignatureInvalidError: not signed by this member for this cohort's plan.
        StateConflictError: the cohort is not void, or this member answered it.
    """
    with deployment.database.reading() as session:
        seat = seat_of(session, cohort_id, device.device_id)
        cohort = session.get_one(Cohort, cohort_id)
    statement = ErasureStatement(cohort.plan_hash, cohort_id, DeviceId(device.device_id), signature)
    verify_erasure(statement, public_key_of(deployment, cohort, seat.member_index))
    with deployment.database.transaction() as session:
        taken(session, cohort_id, device.device_id)
        cohort = session.get_one(Cohort, cohort_id)
        if session.get(ErasureRow, (cohort_id, seat.member_index)) is not None:
            return  # signatures are deterministic: what verified is what is here
        if cohort.state is not CohortState.VOID:
            raise StateConflictError(f"the cohort is {cohort.state.value}; only a void one is laid to rest")
        if session.get(AnswerRow, (cohort_id, seat.member_index)) is not None:
            log.warning("erasure after an answer refused", cohort=short(cohort_id), member=seat.member_index)
            raise StateConflictError(
                "this member answered the cohort before; a statement that it never did comes from an old copy of it"
            )
        session.add(
            ErasureRow(cohort_id=cohort_id, member_index=seat.member_index, signature=signature, time_unix_s=now_unix_s)
        )
    failpoint("coordinator.erasure.durable")
    log.info("erasure stated", cohort=short(cohort_id), member=seat.member_index)
