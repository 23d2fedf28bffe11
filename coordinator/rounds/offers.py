"""What a check-in is told: duties, at most one plan, what became of earlier cohorts, when to return."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography import x509
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from coordinator.enrolment.devices import certified_at
from coordinator.log import LogSnapshot
from coordinator.rounds import erasures, turns
from coordinator.rounds.pool import spent_parent
from coordinator.rounds.rounds import place_of, running
from coordinator.rounds.seats import seat_of, silent
from coordinator.rounds.transitions import unfinished
from coordinator.storage.rows import (
    Cohort,
    CohortState,
    CommitteeSeat,
    Contribution,
    ContributionState,
    Device,
    Round,
    Task,
)
from nightshift.protocol.errors import StateConflictError
from nightshift.v1 import device_pb2

VOIDS_KEPT_S = 30 * 86_400
IDLE_S = 3600
IDLE_WINDOW_S = 1800

# Built once: at each check-in, making a statement took as long as running it.
_DUTIES = (
    select(CommitteeSeat.cohort_id)
    .join(Cohort, Cohort.cohort_id == CommitteeSeat.cohort_id)
    .where(CommitteeSeat.device_id == bindparam("device_id"), Cohort.state == CohortState.FROZEN, silent())
    .order_by(Cohort.answer_deadline_unix_s)
)
_SEATS_TO_COME = (
    select(CommitteeSeat.cohort_id)
    .join(Cohort, Cohort.cohort_id == CommitteeSeat.cohort_id)
    .where(CommitteeSeat.device_id == bindparam("device_id"), Cohort.state == CohortState.OPEN)
)
_VOIDS = (
    select(Cohort.cohort_id, Cohort.void_position)
    .join(Contribution, Contribution.cohort_id == Cohort.cohort_id)
    .where(
        Contribution.device_id == bindparam("device_id"),
        Cohort.state == CohortState.VOID,
        Cohort.ended_unix_s >= bindparam("since_unix_s"),
    )
    .order_by(Cohort.void_position)
)


def duties(session: Session, device: Device) -> list[bytes]:
    """Ids of the frozen cohorts that wait for this member's answer."""
    return list(session.scalars(_DUTIES, {"device_id": device.device_id}))


@dataclass(frozen=True, slots=True)
class Turn:
    """A task in the order of service, and the cohort of it that waits for one device, if one does."""

    task: Task
    cohort: Cohort | None


def turns_for(session: Session, device: Device, root: x509.Certificate, now_unix_s: int) -> list[Turn]:
    """The tasks that are due, whoever is next first, and where this device could contribute to them now."""
    rounds = {found.task: found for found in running(session)}
    return [
        Turn(task, _place(session, rounds[task.name], device, root, now_unix_s) if task.name in rounds else None)
        for task in turns.in_order(session)
    ]


def cohort_for(places: Sequence[Turn], *, without: Collection[str] = ()) -> Cohort | None:
    """The open cohort that a device should contribute to, if there is one: that of the task whose turn it is.

    Args:
        places: from `turns_for`.
        without: tasks whose plans the device has declined.
    """
    return next((turn.cohort for turn in places if turn.cohort is not None and turn.task.name not in without), None)


def _place(session: Session, found: Round, device: Device, root: x509.Certificate, now_unix_s: int) -> Cohort | None:
    """A device's own cohort of a running round, where it may still contribute to it."""
    if device.quarantined_unix_s is not None:
        return None
    cohort = place_of(session, found, device)
    if cohort is None or cohort.state is not CohortState.OPEN or now_unix_s > cohort.upload_deadline_unix_s:
        return None
    if not certified_at(device, root, cohort.created_unix_s):
        return None
    mine = session.get(Contribution, (cohort.cohort_id, device.device_id))
    if mine is not None:
        return None if mine.state is ContributionState.COUNTED else cohort
    full = cohort.counted >= cohort.n_max
    return None if full or spent_parent(session, device.device_id, cohort.parent_release, now_unix_s) else cohort


def announced(places: Sequence[Turn]) -> list[device_pb2.TaskTurn]:
    """The order as a device is told it."""
    return [
        device_pb2.TaskTurn(
            task=turn.task.name, served_unix_s=turn.task.served_unix_s or 0, plan_waits=turn.cohort is not None
        )
        for turn in places
    ]


def plan_offer(session: Session, snapshot: LogSnapshot, cohort: Cohort) -> device_pb2.PlanOffer:
    """A cohort's plan with what proves it: logged, drawn from a logged pool, seeded by the log before it.

    The pool is the entry before the plan, and the seed is the log of exactly the size at which the plan stands.
    """
    seats = select(CommitteeSeat.certificate_position).where(CommitteeSeat.cohort_id == cohort.cohort_id)
    return device_pb2.PlanOffer(
        plan=cohort.plan,
        signature=cohort.plan_signature,
        plan_proof=snapshot.proof(session, cohort.plan_position),
        pool_proof=snapshot.proof(session, cohort.plan_position - 1),
        seed_path=snapshot.consistency_path(cohort.plan_position),
        member_enrolments=[
            snapshot.proof(session, position)
            for position in session.scalars(seats.order_by(CommitteeSeat.member_index))
        ],
    )


def voids(session: Session, snapshot: LogSnapshot, device: Device, now_unix_s: int) -> Sequence[device_pb2.VoidCohort]:
    """Proof that cohorts to which this device gave something ended without a sum, and who can no longer open them."""
    which = {"device_id": device.device_id, "since_unix_s": now_unix_s - VOIDS_KEPT_S}
    return [
        device_pb2.VoidCohort(proof=snapshot.proof(session, position), erasures=erasures.statements(session, cohort_id))
        for cohort_id, position in session.execute(_VOIDS, which).all()
        if position is not None
    ]


def void_for_member(
    session: Session, snapshot: LogSnapshot, device: Device, cohort_id: bytes, log_size: int
) -> device_pb2.GetVoidResponse:
    """What a member must see before it states that its prekey for a cohort is gone.

    Raises:
        NotFoundError: the device is no member of such a cohort.
        StateConflictError: the cohort is not void.
    """
    seat_of(session, cohort_id, device.device_id)
    cohort = session.get_one(Cohort, cohort_id)
    if cohort.state is not CohortState.VOID or cohort.void_position is None:
        raise StateConflictError(f"the cohort is {cohort.state.value}; only a void one is laid to rest")
    return device_pb2.GetVoidResponse(
        plan=cohort.plan,
        signature=cohort.plan_signature,
        plan_proof=snapshot.proof(session, cohort.plan_position),
        void_proof=snapshot.proof(session, cohort.void_position),
        checkpoint=snapshot.checkpoint(),
        consistency_path=snapshot.consistency_path(log_size),
    )


def next_check_in(
    session: Session, device: Device, *, has_duty: bool, plan: Cohort | None, now_unix_s: int
) -> device_pb2.NextCheckIn:
    """When this device is worth hearing from again.

    A device with work in hand comes when it is done. Others come after the
    next deadline that could bring them something, spread over a window. A member of a
    cohort that still takes uploads comes soon after these end: members are few, the sum
    waits for them, and their owners' hours may be over in the morning.
    """
    if has_duty or plan is not None:
        return device_pb2.NextCheckIn(not_before_s=0, window_s=IDLE_WINDOW_S)
    waits = []
    seats = set(session.scalars(_SEATS_TO_COME, {"device_id": device.device_id}))
    for cohort in unfinished(session):
        if cohort.state is CohortState.OPEN:
            end, rest = cohort.upload_deadline_unix_s, cohort.answer_deadline_unix_s - cohort.upload_deadline_unix_s
        else:
            end, rest = now_unix_s, cohort.answer_deadline_unix_s - now_unix_s
        window_s = min(rest // 2, IDLE_WINDOW_S) if cohort.cohort_id in seats else rest // 2
        waits.append((max(0, end + 1 - now_unix_s), max(1, window_s)))
    if not waits:
        return device_pb2.NextCheckIn(not_before_s=IDLE_S, window_s=IDLE_WINDOW_S)
    not_before_s, window_s = min(waits)
    return device_pb2.NextCheckIn(not_before_s=min(not_before_s, IDLE_S * 24), window_s=min(window_s, IDLE_S * 4))
