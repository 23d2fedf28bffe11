"""What a check-in tells one device: whose turn it is, at most one plan, what became of earlier cohorts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, defer

from coordinator.enrolment.devices import certified_at
from coordinator.log import LogSnapshot
from coordinator.rounds import erasures, turns
from coordinator.rounds.pool import spent_parent
from coordinator.rounds.rounds import Division, division_of, place_of, running
from coordinator.rounds.seats import seat_of
from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import (
    Cohort,
    CohortState,
    CommitteeSeat,
    Contribution,
    ContributionState,
    Device,
)
from nightshift.protocol.errors import StateConflictError
from nightshift.v1 import device_pb2

VOIDS_KEPT_S = 30 * 86_400

# Built once: at each check-in, making a statement took as long as running it.
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


@dataclass(frozen=True, slots=True)
class Due:
    """A task in the order of service, as it is for all devices.

    Attributes:
        task: its name.
        served_unix_s: when it was served last; 0 if never.
        division: of its running round, if one runs.
    """

    task: str
    served_unix_s: int
    division: Division | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A task in the order of service, and the cohort of it that waits for one device, if one does."""

    due: Due
    cohort: Cohort | None


def due_in_order(session: Session) -> tuple[Due, ...]:
    """The tasks that are due, whoever is next first, and how their rounds are divided."""
    divisions = {found.task: division_of(session, found) for found in running(session)}
    return tuple(Due(task.name, task.served_unix_s or 0, divisions.get(task.name)) for task in turns.in_order(session))


def turns_for(
    session: Session, due: Iterable[Due], device: Device, root: x509.Certificate, now_unix_s: int
) -> list[Turn]:
    """Where a device could contribute now to the tasks that are due, in their order."""
    return [
        Turn(each, None if each.division is None else _place(session, each.division, device, root, now_unix_s))
        for each in due
    ]


def cohort_for(places: Sequence[Turn], *, without: Collection[str] = ()) -> Cohort | None:
    """The open cohort that a device should contribute to, if there is one: that of the task whose turn it is.

    Args:
        places: from `turns_for`.
        without: tasks whose plans the device has declined.
    """
    return next((turn.cohort for turn in places if turn.cohort is not None and turn.due.task not in without), None)


def _place(
    session: Session, division: Division, device: Device, root: x509.Certificate, now_unix_s: int
) -> Cohort | None:
    """A device's own cohort of a running round, where it may contribute to it now; the plan, which is large, unread."""
    if device.quarantined_unix_s is not None:
        return None
    cohort_id = place_of(session, division, device)
    if cohort_id is None:
        return None
    cohort = session.get_one(Cohort, cohort_id, options=[defer(Cohort.plan)])
    if cohort.state is not CohortState.OPEN or now_unix_s > cohort.upload_deadline_unix_s:
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
            task=turn.due.task, served_unix_s=turn.due.served_unix_s, plan_waits=turn.cohort is not None
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
        for cohort_id, position in plain_rows(session, _VOIDS, which)
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
