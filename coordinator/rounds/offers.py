"""What a check-in offers one device: whose turn it is, and at most one plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from sqlalchemy import and_, bindparam, exists, select
from sqlalchemy.orm import Session

from coordinator.enrolment.devices import certified_at
from coordinator.log import LogSnapshot
from coordinator.rounds import turns
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
    """A task in the order of service, and the id of the cohort of it that waits for one device, if one does."""

    due: Due
    cohort_id: bytes | None


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


def cohort_for(places: Sequence[Turn], *, without: Collection[str] = ()) -> bytes | None:
    """The id of the open cohort that a device should contribute to, if there is one: that of the task whose turn it is.

    Args:
        places: from `turns_for`.
        without: tasks whose plans the device has declined.
    """
    return next(
        (turn.cohort_id for turn in places if turn.cohort_id is not None and turn.due.task not in without), None
    )


def _place(
    session: Session, division: Division, device: Device, root: x509.Certificate, now_unix_s: int
) -> bytes | None:
    """The id of a device's own cohort of a running round, where it may contribute to it now."""
    if device.quarantined_unix_s is not None:
        return None
    place = place_of(session, division, device)
    if place is None or place.state is not CohortState.OPEN or now_unix_s > place.upload_deadline_unix_s:
        return None
    which = {
        "cohort_id": place.cohort_id,
        "device_id": device.device_id,
        "parent_release": division.parent_release,
    }
    ((counted, state, gave),) = plain_rows(session, _GIVEN, which)
    mine = cast("ContributionState | None", state)  # none where the outer join found none
    if mine is ContributionState.COUNTED:
        return None
    if mine is None:
        if counted >= place.n_max:
            return None
        if gave and spent_parent(session, device.device_id, division.parent_release, now_unix_s):
            return None
    return place.cohort_id if certified_at(device, root, place.created_unix_s) else None


def announced(places: Sequence[Turn]) -> list[device_pb2.TaskTurn]:
    """The order as a device is told it."""
    return [
        device_pb2.TaskTurn(
            task=turn.due.task, served_unix_s=turn.due.served_unix_s, plan_waits=turn.cohort_id is not None
        )
        for turn in places
    ]


# Built once: at each check-in, making a statement took as long as running it.
_GIVEN = (
    select(
        Cohort.counted,
        Contribution.state,
        exists()
        .where(
            Contribution.device_id == bindparam("device_id"),
            Contribution.state == ContributionState.COUNTED,
            Contribution.cohort_id.in_(
                select(Cohort.cohort_id).where(Cohort.parent_release == bindparam("parent_release"))
            ),
        )
        .correlate(None),  # of any of its contributions, not of the joined one
    )
    .outerjoin(
        Contribution,
        and_(Contribution.cohort_id == Cohort.cohort_id, Contribution.device_id == bindparam("device_id")),
    )
    .where(Cohort.cohort_id == bindparam("cohort_id"))
)
"""What a device has given: how many a cohort counts, the state of its own contribution to it, and whether any of its
contributions to the same parent was ever counted."""


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
