"""Rounds as they are stored: found, listed, and the place that a device has in one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from coordinator.rounds import assignment
from coordinator.storage.rows import AssignmentRow, Cohort, Round, RoundState
from nightshift.protocol.errors import NotFoundError
from nightshift.protocol.identity import DeviceId


def cohorts_of(session: Session, found: Round) -> Sequence[Cohort]:
    """A round's cohorts, in the order in which they were opened."""
    rows = select(Cohort).where(Cohort.task == found.task, Cohort.round_number == found.number)
    return session.scalars(rows.order_by(Cohort.plan_position)).all()


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
    ids = [each for each in session.scalars(select(Cohort.cohort_id)) if each.hex().startswith(name.lower())]
    if len(ids) != 1:
        many = "no round or cohort is" if not ids else f"{len(ids)} cohorts are"
        raise NotFoundError(f"{many} called {name!r}; see `coordinator round list`")
    cohort = session.get_one(Cohort, ids[0])
    return round_of(session, cohort), [cohort]


def place_of(session: Session, found: Round, device_id: DeviceId) -> Cohort:
    """The one cohort of a round to which a device may contribute (`coordinator.rounds.assignment`)."""
    row = session.get(AssignmentRow, (found.task, found.number, device_id))
    if row is not None:
        return session.get_one(Cohort, row.cohort_id)
    cohorts = cohorts_of(session, found)
    return cohorts[assignment.latecomer(device_id, cohorts=len(cohorts), seed=found.seed)]


def round_of(session: Session, cohort: Cohort) -> Round:
    """The round that a cohort is part of."""
    return session.get_one(Round, (cohort.task, cohort.round_number))
