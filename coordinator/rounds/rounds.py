"""Rounds as they are stored: found, listed, and the place that a device has in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, bindparam, exists, select
from sqlalchemy.orm import Session, defer

from coordinator.rounds import assignment
from coordinator.rounds.rank_classes import rank_of
from coordinator.rounds.states import FINAL
from coordinator.storage.plain import plain_rows
from coordinator.storage.rows import AssignmentRow, Cohort, CohortState, Device, Round, RoundState
from nightshift.protocol.errors import NotFoundError
from nightshift.protocol.identity import DeviceId
from nightshift.protocol.readable_ids import LEAST_DIGITS


def cohorts_of(session: Session, found: Round) -> Sequence[Cohort]:
    """A round's cohorts, in the order in which they were opened; their plans, which are large, unread."""
    rows = select(Cohort).where(_in(found)).options(defer(Cohort.plan))
    return session.scalars(rows.order_by(Cohort.plan_position)).all()


def goes_on(session: Session, found: Round) -> bool:
    """Whether a cohort of the round has not ended."""
    return bool(session.scalar(select(exists().where(_in(found), Cohort.state.not_in(FINAL)))))


def running(session: Session) -> Sequence[Round]:
    """Rounds that have not ended, by task."""
    return session.scalars(select(Round).where(Round.state == RoundState.RUNNING).order_by(Round.task)).all()


def list_rounds(session: Session) -> Sequence[Round]:
    """All rounds, by task and number."""
    return session.scalars(select(Round).order_by(Round.task, Round.number)).all()


def find(session: Session, name: str) -> tuple[Round, Sequence[Cohort]]:
    """A round by TASK/ROUND with all its cohorts; or, by TASK/ROUND/COHORT or the first digits of its id, one cohort.

    Raises:
        NotFoundError: none or several are called so.
    """
    task, *numbers = name.split("/")
    if numbers and len(numbers) <= 2 and all(number.isdecimal() and len(number) < 12 for number in numbers):
        found = session.get(Round, (task, int(numbers[0])))
        cohorts = cohorts_of(session, found) if found is not None else []
        if found is not None and len(numbers) == 1:
            return found, cohorts
        if found is not None and 1 <= int(numbers[1]) <= len(cohorts):
            return found, [cohorts[int(numbers[1]) - 1]]
        raise NotFoundError(f"no round or cohort is called {name!r}; see `coordinator round list`")
    found_ids = session.scalars(select(Cohort.cohort_id)) if len(name) >= LEAST_DIGITS else ()
    ids = [each for each in found_ids if each.hex().startswith(name.lower())]
    if len(ids) != 1:
        many = "no round or cohort is" if not ids else f"{len(ids)} cohorts are"
        raise NotFoundError(f"{many} called {name!r}; see `coordinator round list`")
    cohort = session.get_one(Cohort, ids[0])
    return round_of(session, cohort), [cohort]


@dataclass(frozen=True, slots=True)
class Place:
    """A cohort of a round as the devices that look for their place see it, without what each upload changes.

    Attributes:
        cohort_id: 32 bytes.
        trained_rank: how many rank slots its contributors train.
        state: of the cohort.
        created_unix_s: when its plan was made.
        upload_deadline_unix_s: as it stands.
        n_max: most contributors.
    """

    cohort_id: bytes
    trained_rank: int
    state: CohortState
    created_unix_s: int
    upload_deadline_unix_s: int
    n_max: int


@dataclass(frozen=True, slots=True)
class Division:
    """How a round is divided, as far as it is the same for all devices.

    Attributes:
        task: whose round.
        number: of the round.
        parent_release: that it trains on from.
        seed: of the deal (`coordinator.rounds.assignment`).
        places: its cohorts, in the order in which they were opened.
    """

    task: str
    number: int
    parent_release: bytes
    seed: bytes
    places: tuple[Place, ...]


def division_of(session: Session, found: Round) -> Division:
    """How a round is divided."""
    rows = select(
        Cohort.cohort_id,
        Cohort.trained_rank,
        Cohort.state,
        Cohort.created_unix_s,
        Cohort.upload_deadline_unix_s,
        Cohort.n_max,
    )
    places = session.execute(rows.where(_in(found)).order_by(Cohort.plan_position))
    return Division(found.task, found.number, found.parent_release, found.seed, tuple(Place(*row) for row in places))


def place_of(session: Session, division: Division, device: Device) -> Place | None:
    """The one cohort of a round to which a device may contribute (`coordinator.rounds.assignment`).

    None where all cohorts, or the one to which it was dealt, train more rank slots than it says now that it can.
    """
    which = {"task": division.task, "round_number": division.number, "device_id": device.device_id}
    dealt = next((cohort_id for (cohort_id,) in plain_rows(session, _DEALT, which)), None)
    if dealt is not None:
        own = next(place for place in division.places if place.cohort_id == dealt)
        return own if rank_of(device.rank_limit, [own.trained_rank]) else None
    rank = rank_of(device.rank_limit, {place.trained_rank for place in division.places})
    numbers = [number for number, place in enumerate(division.places) if place.trained_rank == rank]
    if not numbers:
        return None
    return division.places[assignment.latecomer(DeviceId(device.device_id), numbers=numbers, seed=division.seed)]


# Built once: at each check-in, making a statement took as long as running it.
_DEALT = select(AssignmentRow.cohort_id).where(
    AssignmentRow.task == bindparam("task"),
    AssignmentRow.round_number == bindparam("round_number"),
    AssignmentRow.device_id == bindparam("device_id"),
)


def round_of(session: Session, cohort: Cohort) -> Round:
    """The round that a cohort is part of."""
    return session.get_one(Round, (cohort.task, cohort.round_number))


def _in(found: Round) -> ColumnElement[bool]:
    return and_(Cohort.task == found.task, Cohort.round_number == found.number)
