"""Committee members' answers: checked, durable before the reply, and the T-th one opens."""

from __future__ import annotations

import hmac

from coordinator.aggregation.documents import document_of
from coordinator.deployment import Deployment
from coordinator.diagnostics import log, short
from coordinator.rounds.seats import public_key_of, seat_of, taken
from coordinator.rounds.states import Event, next_state
from coordinator.storage.rows import AnswerRow, Cohort, CohortState, Device, ErasureRow
from nightshift.host.failpoints import failpoint
from nightshift.protocol.errors import MalformedError, StateConflictError
from nightshift.protocol.secagg.member import Answer, verify_answer


def receive(
    deployment: Deployment, device: Device, *, cohort_id: bytes, set_hash: bytes, answer: Answer, now_unix_s: int
) -> None:
    """Check an answer and make it durable; the same answer again is acknowledged again.

    A right answer that arrives after the sum was opened is acknowledged and not kept.

    Raises:
        NotFoundError: the device is no member of such a cohort.
        MalformedError: another index or set, or not N field elements.
        SignatureInvalidError: not signed by this member for this plan and set.
        StateConflictError: the cohort is not waiting for answers, or this member said something else before.
    """
    with deployment.database.reading() as session:
        cohort = session.get(Cohort, cohort_id)
        seat = seat_of(session, cohort_id, device.device_id)
        existing = session.get(AnswerRow, (cohort_id, seat.member_index))
    assert cohort is not None, "a seat has its cohort"
    if answer.index != seat.member_index:
        raise MalformedError(f"this device is member {seat.member_index} of the committee, not {answer.index}")
    if cohort.set_hash is None or not hmac.compare_digest(set_hash, cohort.set_hash):
        raise MalformedError("the answer is for another set of contributors than the one that was frozen")
    if existing is not None:
        _require_same(existing, answer)
        return
    verify_answer(
        parameters=document_of(cohort).parameters,
        plan_hash=cohort.plan_hash,
        set_hash=set_hash,
        answer=answer,
        public_key=public_key_of(deployment, cohort, answer.index),
    )
    with deployment.database.transaction() as session:
        cohort = session.get_one(Cohort, cohort_id)
        taken(session, cohort_id, device.device_id)
        existing = session.get(AnswerRow, (cohort_id, answer.index))
        if existing is not None:
            _require_same(existing, answer)
            return
        if session.get(ErasureRow, (cohort_id, answer.index)) is not None:
            log.warning("answer after an erasure refused", cohort=short(cohort_id), member=answer.index)
            raise StateConflictError(
                "this member stated that its key for the cohort is gone; an answer now comes from an old copy of it"
            )
        if cohort.state is CohortState.OPENED:
            # It was on its way when the T-th answer opened the sum: right, and no longer needed.
            log.info("answer not needed", cohort=short(cohort_id), member=answer.index)
            return
        cohort.state = next_state(cohort.state, Event.ANSWER)
        if now_unix_s > cohort.answer_deadline_unix_s:
            raise StateConflictError("the answer deadline of this cohort has passed")
        session.add(
            AnswerRow(
                cohort_id=cohort_id,
                member_index=answer.index,
                set_hash=set_hash,
                vector=answer.vector,
                signature=answer.signature,
                time_unix_s=now_unix_s,
            )
        )
    failpoint("coordinator.answer.durable")
    log.info("answer kept", cohort=short(cohort_id), member=answer.index)


def _require_same(existing: AnswerRow, answer: Answer) -> None:
    if existing.vector != answer.vector or existing.signature != answer.signature:
        log.warning("second answer refused", cohort=short(existing.cohort_id), member=existing.member_index)
        raise StateConflictError("another answer of this member is here already; an answer never changes")
